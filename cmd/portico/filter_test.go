package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/portico-proxy/portico/plugins/tck"
)

// portico runs a command and returns what it printed.
func portico(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	cmd := newCommand()
	cmd.SetArgs(args)
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

func TestNewFilterOverwritesNothing(t *testing.T) {
	dir := t.TempDir()
	if _, err := portico(t, "filter", "new", dir); !errors.Is(err, os.ErrExist) {
		t.Errorf("got %v", err)
	}
	if _, err := portico(t, "filter", "new", filepath.Join(dir, "f"), "--language=cobol"); !errors.Is(err, errLanguage) {
		t.Errorf("got %v", err)
	}
	if _, err := portico(t, "filter", "build", dir); !errors.Is(err, errNoSources) {
		t.Errorf("got %v", err)
	}
}

func TestNewFilterHasANameThatAPolicyMayHave(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "Bad Name")
	if _, err := portico(t, "filter", "new", dir); err == nil || !strings.Contains(err.Error(), `"Bad Name" cannot be`) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("the directory is there all the same")
	}
}

// TestNewFiltersAreBuiltAndPassTheirCases is about what "filter new" writes; of Go
// docs/write-a-wasm-filter.md tells, which is tested too.
func TestNewFiltersAreBuiltAndPassTheirCases(t *testing.T) {
	for language, a := range authorships {
		if a.host == "" {
			continue
		}
		t.Run(language, func(t *testing.T) {
			tck.Guest(t, language) // skips where there is no toolchain
			dir := filepath.Join(t.TempDir(), "labels")
			if out, err := portico(t, "filter", "new", dir, "--language="+language); err != nil {
				t.Fatalf("%v, %s", err, out)
			}
			if out, err := portico(t, "filter", "build", dir); err != nil || !strings.Contains(out, "filter.wasm: ") {
				t.Fatalf("%v, %s", err, out)
			}
			out, err := portico(t, "filter", "test", "--wasm="+filepath.Join(dir, "filter.wasm"), "--policy="+filepath.Join(dir, "policy.yaml"), "--cases="+filepath.Join(dir, "cases.yaml"))
			if err != nil || strings.Count(out, "ok    ") != 4 {
				t.Errorf("%v, %s", err, out)
			}
		})
	}
}

func TestFilterBuildRefusesWhatAProxyWould(t *testing.T) {
	tck.Guest(t, "c") // skips where there is no clang
	dir := filepath.Join(t.TempDir(), "labels")
	if _, err := portico(t, "filter", "new", dir, "--language=c"); err != nil {
		t.Fatal(err)
	}
	source := filepath.Join(dir, "filter.c")
	text, err := os.ReadFile(source)
	if err != nil {
		t.Fatal(err)
	}
	misspelt := strings.Replace(string(text), "i32 on_object(", "PORTICO_GUEST(on_objekt) i32 on_objekt(", 1)
	if err := os.WriteFile(source, []byte(misspelt), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := portico(t, "filter", "build", dir); err == nil || !strings.Contains(err.Error(), "did you mean on_object?") {
		t.Errorf("got %v, %s", err, out)
	}
}

func TestFilterCasesMustHold(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	flags := []string{
		"--wasm=" + write("f.wasm", string(tck.Guest(t, "c"))),
		"--policy=" + write("policy.yaml", "apiVersion: proxy.elf.io/v1alpha1\nkind: WasmFilter\nspec: {source: {file: f.wasm}, config: {}}\n"),
	}
	const refused = "- name: refused\n  request: {headers: {X-Case: deny}}\n  want: {refused: {code: 403, reason: Forbidden, message: not here}}\n"
	good := append(flags, "--cases="+write("good.yaml", refused))
	if out, err := portico(t, append([]string{"filter", "test"}, good...)...); err != nil || out != "ok    refused\n" {
		t.Errorf("%v, %s", err, out)
	}
	if out, err := portico(t, append([]string{"filter", "run"}, good...)...); err != nil || !strings.Contains(out, "message: not here") {
		t.Errorf("%v, %s", err, out)
	}
	bad := append(flags, "--cases="+write("bad.yaml", strings.Replace(refused, "not here", "no", 1)))
	if out, err := portico(t, append([]string{"filter", "test"}, bad...)...); !errors.Is(err, errCases) || !strings.Contains(out, "FAIL  refused") {
		t.Errorf("%v, %s", err, out)
	}
	handler := append(slices.Clone(flags), "--cases="+filepath.Join(dir, "good.yaml"),
		"--policy="+write("handler.yaml", "apiVersion: proxy.elf.io/v1alpha1\nkind: WasmFilter\nspec: {source: {file: f.wasm}, abi: HTTPWasmV1}\n"))
	if _, err := portico(t, append([]string{"filter", "test"}, handler...)...); !errors.Is(err, errHandlerCases) {
		t.Errorf("got %v", err)
	}
	misspelt := append(flags, "--cases="+write("misspelt.yaml", strings.Replace(refused, "request", "requst", 1)))
	if _, err := portico(t, append([]string{"filter", "test"}, misspelt...)...); err == nil || !strings.Contains(err.Error(), `case 1 ("refused"): `) ||
		!strings.Contains(err.Error(), "requst") || !strings.Contains(err.Error(), "its request has user, groups, verb, group,") {
		t.Errorf("got %v", err)
	}
}
