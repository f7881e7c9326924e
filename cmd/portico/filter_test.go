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
