package house

import (
	"fmt"
	"go/ast"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

var packageSentence = rule{
	name: "one-sentence-per-package",
	why:  "the sentence at the door says what belongs in the room; if it needs two subjects, it is two packages",
	check: func(t *tree) (found []finding) {
		signs := map[string][]*source{} // by directory and package name
		for _, s := range t.sources {
			if name := s.ast.Name.Name; !strings.HasSuffix(name, "_test") {
				key := s.dir + ":" + name
				signs[key] = append(signs[key], s)
			}
		}
		for _, key := range keys(signs) {
			found = append(found, judgeSigns(signs[key])...)
		}
		return found
	},
	broken: map[string]files{
		"core/config":             {"core/config/snapshot.go": "package config\n"},
		"core/cache":              {"core/cache/doc.go": goFile("Package cache remembers.")},
		"core/server/licence.go":  {"core/server/licence.go": "// Copyright by its authors.\npackage server\n"},
		"cmd/portico/second.go":   {"cmd/portico/main.go": "package main\n", "cmd/portico/second.go": "// Package main is it.\npackage main\n"},
		"core/telemetry/names.go": {"core/telemetry/names.go": "// Package tele is misnamed.\npackage telemetry\n"},
	},
}

// judgeSigns looks at the files of one package, of which one must have its doc
// comment.
func judgeSigns(sources []*source) []finding {
	dir, name := sources[0].dir, sources[0].ast.Name.Name
	start := "Package " + name
	if name == "main" {
		start = "Command " + path.Base(dir)
	}
	var signs []string
	for _, s := range sources {
		// Text leaves out directives, which may stand right above the word package.
		doc := s.ast.Doc.Text()
		if doc == "" || s.generated {
			continue
		}
		if !strings.HasPrefix(doc, start+" ") {
			return []finding{{s.path, fmt.Sprintf("begin the package comment with %q; keep anything else apart by an empty line", start)}}
		}
		signs = append(signs, path.Base(s.path))
	}
	switch len(signs) {
	case 0:
		return []finding{{dir, fmt.Sprintf("package %s has no package comment: write \"// %s ...\" in one of its files", name, start)}}
	case 1:
		return nil
	}
	return []finding{{dir, fmt.Sprintf("package %s has several package comments: %s", name, strings.Join(signs, ", "))}}
}

var heaps = []string{"util", "utils", "common", "helper", "helpers", "base", "manager", "managers", "misc", "shared", "types"}

var packageName = rule{
	name: "no-heaps",
	why:  "a package named for nothing in particular collects everything",
	check: func(t *tree) (found []finding) {
		seen := map[string]bool{}
		for _, s := range t.sources {
			for _, name := range []string{s.ast.Name.Name, path.Base(s.dir)} {
				if slices.Contains(heaps, name) && !seen[s.dir] {
					seen[s.dir] = true
					found = append(found, finding{s.dir, fmt.Sprintf("name the package for its subject, not %q", name)})
				}
			}
		}
		return found
	},
	broken: map[string]files{
		"core/util":  {"core/util/x.go": goFile("Package util is one.")},
		"core/types": {"core/types/x.go": goFile("Package kinds is one.")},
	},
}

var plainName = regexp.MustCompile(`^[a-z0-9_.]+\.go$`)

var fileName = rule{
	name: "file-names",
	why:  "Go reads suffixes after an underscore; one way of writing names is enough",
	check: func(t *tree) (found []finding) {
		for _, p := range keys(t.files) {
			if path.Ext(p) == ".go" && !plainName.MatchString(path.Base(p)) {
				found = append(found, finding{p, "use only lower-case letters, digits, _ and ."})
			}
		}
		return found
	},
	broken: map[string]files{
		"core/cache/read-list.go": {"core/cache/read-list.go": "package cache\n"},
		"core/cache/readList.go":  {"core/cache/readList.go": "package cache\n"},
	},
}

var noInit = rule{
	name: "no-init",
	why:  "what happens, and in which order, is written where it is called",
	check: func(t *tree) (found []finding) {
		for _, s := range t.written() {
			if _, ok := s.functions()["init"]; ok {
				found = append(found, finding{s.path, "make it a function that somebody calls"})
			}
		}
		return found
	},
	broken: map[string]files{
		"filters/authn/register.go": {"filters/authn/register.go": "package authn\n\nfunc init() {}\n"},
	},
}

var errorText = rule{
	name: "error-texts",
	why:  "an error says what was being done; that it failed is what an error is",
	check: func(t *tree) (found []finding) {
		eachCall(t, func(s *source, call *ast.CallExpr) {
			maker := name(call.Fun)
			text, ok := literal(call, 0)
			if ok && (maker == "fmt.Errorf" || maker == "errors.New") && strings.Contains(strings.ToLower(text), "failed to") {
				found = append(found, finding{s.path, fmt.Sprintf("say what was being done, without \"failed to\": %q", text)})
			}
		})
		return found
	},
	broken: map[string]files{
		"core/cache/wrap.go": {"core/cache/wrap.go": "package cache\n\nvar e = fmt.Errorf(\"failed to list: %w\", err)\n"},
	},
}

var subtestName = rule{
	name: "subtest-names",
	why:  "a name with spaces cannot be pasted from the output into -run",
	check: func(t *tree) (found []finding) {
		eachCall(t, func(s *source, call *ast.CallExpr) {
			text, ok := literal(call, 0)
			if ok && s.test && len(call.Args) == 2 && strings.HasSuffix(name(call.Fun), ".Run") && strings.Contains(text, " ") {
				found = append(found, finding{s.path, fmt.Sprintf("join the words of subtest %q", text)})
			}
		})
		return found
	},
	broken: map[string]files{
		"core/cache/list_test.go": {"core/cache/list_test.go": "package cache\n\nfunc TestList(t *testing.T) { t.Run(\"with limit\", nil) }\n"},
	},
}

// eachCall calls visit for every call that a person wrote.
func eachCall(t *tree, visit func(*source, *ast.CallExpr)) {
	for _, s := range t.written() {
		ast.Inspect(s.ast, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok {
				visit(s, call)
			}
			return true
		})
	}
}

// name is what a call calls, if that is x.Y.
func name(fun ast.Expr) string {
	sel, ok := fun.(*ast.SelectorExpr)
	if !ok {
		return ""
	}
	x, ok := sel.X.(*ast.Ident)
	if !ok {
		return ""
	}
	return x.Name + "." + sel.Sel.Name
}

// literal is an argument of a call that is written out as a string.
func literal(call *ast.CallExpr, i int) (string, bool) {
	if i >= len(call.Args) {
		return "", false
	}
	lit, ok := call.Args[i].(*ast.BasicLit)
	if !ok {
		return "", false
	}
	text, err := strconv.Unquote(lit.Value)
	return text, err == nil
}
