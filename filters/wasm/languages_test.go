package wasm

import (
	"go/ast"
	"go/constant"
	"go/parser"
	"go/token"
	gotypes "go/types"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/tetratelabs/wazero/api"

	"github.com/portico-proxy/portico/plugins/abi/languages"
)

// A written language is how a file of plugins/abi/languages declares what.
type written struct {
	imports  *regexp.Regexp // of the name, and then, in either order, of parameters and result
	types    map[string]api.ValueType
	constant *regexp.Regexp // of the name and the value
	params   int            // the group of imports that has the parameters
	result   int
}

var inLanguages = map[string]written{
	"portico.h": {
		regexp.MustCompile(`PORTICO_HOST\((\w+)\) (\w+) \w+\(([^)]*)\);`),
		map[string]api.ValueType{"char *": i32, "u32": i32, "i32": i32, "u64": i64, "i64": i64},
		regexp.MustCompile(`PORTICO_(\w+) = (\d+)`), 3, 2,
	},
	"portico.rs": {
		regexp.MustCompile(`(?m)^    (?:#\[link_name = "(\w+)"\]\s+)?fn (\w+)\(([^)]*)\)(?: -> (\w+))?;`),
		map[string]api.ValueType{"*const u8": i32, "*mut u8": i32, "usize": i32, "u32": i32, "i32": i32, "u64": i64, "i64": i64},
		regexp.MustCompile(`pub const (\w+): [iu]32 = (\d+);`), 3, 4,
	},
	"portico.ts": {
		regexp.MustCompile(`@external\("portico.v1", "(\w+)"\) declare function \w+\(([^)]*)\): (\w+);`),
		map[string]api.ValueType{"usize": i32, "u32": i32, "i32": i32, "u64": i64, "i64": i64},
		regexp.MustCompile(`export const (\w+): [iu]32 = (\d+);`), 2, 3,
	},
}

// TestOtherLanguagesSayWhatTheHostDoes: a guest that was built with what drifted would
// be refused, or misunderstand.
func TestOtherLanguagesSayWhatTheHostDoes(t *testing.T) {
	functions := map[string]string{}
	for _, f := range hostFunctions(class{kv: true, clock: true, lookup: true}) {
		functions[f.name] = signature{f.params, f.result}.String()
	}
	constants := constantsOf(t, "../../plugins/abi/abi.go")
	for name, w := range inLanguages {
		text, err := languages.Files.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(functions, w.functions(t, string(text))); diff != "" {
			t.Errorf("%s, imports: -host +file\n%s", name, diff)
		}
		got := map[string]string{}
		for _, m := range w.constant.FindAllStringSubmatch(string(text), -1) {
			got[m[1]] = m[2]
		}
		if diff := cmp.Diff(constants, got); diff != "" {
			t.Errorf("%s, constants: -abi.go +file\n%s", name, diff)
		}
	}
	header, _ := languages.Files.ReadFile("portico.h")
	want, got := map[string]string{}, map[string]string{}
	for name, s := range exported {
		want[name] = s.String()
	}
	for _, m := range regexp.MustCompile(`PORTICO_GUEST\((\w+)\) (void|i32) (\w+)\(void\)`).FindAllStringSubmatch(string(header), -1) {
		if got[m[1]] = "() -> (" + strings.TrimPrefix(m[2], "void") + ")"; m[1] != m[3] {
			t.Errorf("%s is exported as %s", m[3], m[1])
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("exports: -host +header\n%s", diff)
	}
}

// functions are those that a file imports, with their signatures.
func (w *written) functions(t *testing.T, text string) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, m := range w.imports.FindAllStringSubmatch(text, -1) {
		s, name := signature{}, m[1]
		if name == "" {
			name = m[2]
		}
		for p := range strings.SplitSeq(m[w.params], ",") {
			if p = strings.TrimSpace(p); p != "" && p != "void" {
				s.params = append(s.params, w.typeOf(t, p))
			}
		}
		if r := m[w.result]; r != "" && r != "void" {
			s.results = append(s.results, w.typeOf(t, r))
		}
		all[name] = s.String()
	}
	return all
}

// typeOf is that of a parameter: as in "const char *text", "text: usize" or "u64".
func (w *written) typeOf(t *testing.T, p string) api.ValueType {
	t.Helper()
	if _, after, named := strings.Cut(p, ": "); named {
		p = after
	}
	p = strings.TrimPrefix(p, "const ")
	for name, is := range w.types {
		if strings.HasPrefix(p, name) {
			return is
		}
	}
	t.Fatalf("of what type is %q?", p)
	return 0
}

var words = regexp.MustCompile(`([a-z])([A-Z])|([A-Z])([A-Z][a-z])`)

// constantsOf are the numbers that the file names, in the spelling of languages that
// have their constants in capitals. Bounds are the host's.
func constantsOf(t *testing.T, file string) map[string]string {
	t.Helper()
	files := token.NewFileSet()
	parsed, err := parser.ParseFile(files, file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	checker := gotypes.Config{}
	pkg, err := checker.Check("abi", files, []*ast.File{parsed}, nil)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, name := range pkg.Scope().Names() {
		c, ok := pkg.Scope().Lookup(name).(*gotypes.Const)
		if ok && c.Val().Kind() == constant.Int && !strings.HasPrefix(name, "Max") {
			all[strings.ToUpper(words.ReplaceAllString(name, "${1}${3}_${2}${4}"))] = c.Val().String()
		}
	}
	return all
}
