package house

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

const module = "github.com/portico-proxy/portico"

// rooms are the directories at the top, which say who may live there.
var rooms = []string{"cmd", "core", "filters", "plugins", "bpf", "crds", "examples", "test"}

// A tree is a checkout as the rules see it. Paths are relative to its root and
// separated by slashes.
type tree struct {
	files   map[string]string // every path; the content only where a rule reads it
	sources []*source         // the Go files outside testdata, sorted by path
	broken  []finding         // the Go files that do not parse
	excuses map[string]string // what is allowed to break a rule, and why
	excused map[string]bool   // the excuses that were needed
}

// A source is one Go file.
type source struct {
	path, dir string
	text      string
	ast       *ast.File
	fset      *token.FileSet
	test      bool
	generated bool
}

// A finding is a place where a rule is broken, and what to do about it.
type finding struct{ path, text string }

func (f finding) String() string { return f.path + ": " + f.text }

// newTree reads the files of fsys that paths name.
func newTree(fsys fs.FS, paths []string) (*tree, error) {
	t := &tree{files: map[string]string{}, excused: map[string]bool{}}
	for _, p := range slices.Sorted(slices.Values(paths)) {
		t.files[p] = ""
		if !readable(p) {
			continue
		}
		text, err := fs.ReadFile(fsys, p)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", p, err)
		}
		t.files[p] = string(text)
		if path.Ext(p) == ".go" && !strings.Contains("/"+p, "/testdata/") {
			t.parse(p, string(text))
		}
	}
	return t, nil
}

// readable says whether some rule wants to know what is in a file.
func readable(p string) bool {
	return path.Base(p) == "go.mod" || path.Ext(p) == ".go" || path.Ext(p) == ".md"
}

func (t *tree) parse(p, text string) {
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, p, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		t.broken = append(t.broken, finding{p, err.Error()})
		return
	}
	t.sources = append(t.sources, &source{
		path: p, dir: path.Dir(p), text: text, ast: file, fset: fset,
		test:      strings.HasSuffix(p, "_test.go"),
		generated: ast.IsGenerated(file),
	})
}

// written returns the Go files that a person wrote.
func (t *tree) written() []*source {
	return slices.DeleteFunc(slices.Clone(t.sources), func(s *source) bool { return s.generated })
}

// excuse says whether what key names may break a rule.
func (t *tree) excuse(key string) bool {
	_, ok := t.excuses[key]
	if ok {
		t.excused[key] = true
	}
	return ok
}

// exists says whether there is a file or a directory of this name.
func (t *tree) exists(p string) bool {
	if _, ok := t.files[p]; ok || p == "." {
		return true
	}
	for f := range t.files {
		if within(f, p) {
			return true
		}
	}
	return false
}

// children returns the directories directly below dir, sorted.
func (t *tree) children(dir string) []string {
	found := map[string]bool{}
	for f := range t.files {
		if rest, ok := strings.CutPrefix(f, dir+"/"); ok {
			if child, _, ok := strings.Cut(rest, "/"); ok {
				found[child] = true
			}
		}
	}
	return keys(found)
}

// lines counts the lines from one position of a file to another, both included.
func (s *source) lines(from, to token.Pos) int {
	return s.fset.Position(to).Line - s.fset.Position(from).Line + 1
}

// functions returns what is declared with the word func, by the name that
// excuses use: Name or Type.Name.
func (s *source) functions() map[string]*ast.FuncDecl {
	found := map[string]*ast.FuncDecl{}
	for _, decl := range s.ast.Decls {
		f, ok := decl.(*ast.FuncDecl)
		if !ok {
			continue
		}
		name := f.Name.Name
		if f.Recv != nil {
			name = receiver(f.Recv.List[0].Type) + "." + name
		}
		found[name] = f
	}
	return found
}

func receiver(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return receiver(e.X)
	case *ast.IndexExpr:
		return receiver(e.X)
	case *ast.IndexListExpr:
		return receiver(e.X)
	case *ast.Ident:
		return e.Name
	}
	return "?"
}

// within says whether p is dir or lies below it.
func within(p, dir string) bool {
	return p == dir || strings.HasPrefix(p, dir+"/")
}

func keys[V any](m map[string]V) []string {
	var all []string
	for k := range m {
		all = append(all, k)
	}
	slices.Sort(all)
	return all
}

// checkout reads the repository this test belongs to: what is there, and git
// does not ignore. Walking tells go test's cache what the result depends on.
func checkout() (*tree, error) {
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		return nil, err
	}
	paths, err := walked(root)
	if err != nil {
		return nil, fmt.Errorf("list files of %s: %w", root, err)
	}
	// Without git, or in an unpacked archive, all that is there counts.
	if known, err := listed(root); err == nil && len(known) > 0 {
		paths = slices.DeleteFunc(paths, func(p string) bool { return !known[p] })
	}
	return newTree(os.DirFS(root), paths)
}

// walked returns the files that are there, but for what building leaves behind.
func walked(root string) ([]string, error) {
	var paths []string
	err := fs.WalkDir(os.DirFS(root), ".", func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case !d.IsDir():
			paths = append(paths, p)
		case p == ".git" || p == ".cache" || p == "bin":
			return fs.SkipDir
		}
		return nil
	})
	return paths, err
}

// listed asks git. A file that is not added yet counts where rooms are, so that
// the rules speak before the commit; a scratch file at the top does not.
func listed(root string) (map[string]bool, error) {
	added, err := git(root, "ls-files", "-z")
	if err != nil {
		return nil, err
	}
	untracked, err := git(root, append([]string{"ls-files", "-z", "--others", "--exclude-standard", "--"}, rooms...)...)
	if err != nil {
		return nil, err
	}
	known := map[string]bool{}
	for p := range bytes.SplitSeq(append(added, untracked...), []byte{0}) {
		known[string(p)] = true
	}
	return known, nil
}

func git(root string, args ...string) ([]byte, error) {
	cmd := exec.Command("git", args...)
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("run git %s: %w", args[0], err)
	}
	return out, nil
}
