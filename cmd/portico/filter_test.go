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

// tryFlags are those by which a guest in C is tried with cases.
func tryFlags(t *testing.T, guest []byte, cases string) []string {
	t.Helper()
	return []string{
		"--wasm=" + written(t, "f.wasm", string(guest)), "--cases=" + written(t, "cases.yaml", cases),
		"--policy=" + written(t, "policy.yaml", "apiVersion: proxy.elf.io/v1alpha1\nkind: WasmFilter\nspec: {source: {file: f.wasm}, config: {}}\n"),
	}
}

// seer hides what is labelled so, masks a field, and refuses all that is asked for
// outside of views, of which it would know the verb.
const seer = `#include "portico.h"
i32 on_request(void) {
	portico_respond(403, PORTICO_TEXT("Forbidden"), PORTICO_TEXT("never"), 0);
	return PORTICO_DENY;
}
i32 on_object(void) {
	char b[8];
	if (portico_kind(portico_attr_get(PORTICO_VERB, b, 8)) != PORTICO_ABSENT) return -1;
	if (portico_kind(portico_object_get(PORTICO_TEXT("/metadata/labels/hide"), b, 0)) != PORTICO_ABSENT) return PORTICO_DROP;
	return portico_object_remove(PORTICO_TEXT("/data/key")) == PORTICO_PATCH_OK ? PORTICO_PATCHED : PORTICO_KEEP;
}`

const viewCases = `- name: what is plain is shown
  phase: View
  request: &jane {user: jane, verb: list, version: v1, resource: configmaps}
  object: &plain {metadata: {name: a}}
- name: what is labelled is not there
  phase: View
  request: *jane
  object: &hidden {metadata: {name: a, labels: {hide: ""}}}
  want: {dropped: true}
- name: the key is masked
  phase: View
  request: *jane
  object: &secret {metadata: {name: a}, data: {key: x, other: y}}
  want: {object: {metadata: {name: a}, data: {other: y}}}
- name: the key is masked, and the rest is there
  phase: View
  request: *jane
  object: *secret
  want: {fields: {/data/key: null, /data/other: y}}
- name: who watches is told of what is not hidden any more
  phase: View
  request: *jane
  previous: *hidden
  object: *plain
  want: {event: ADDED}
- name: who watches is told of changes, as he may see them
  phase: View
  request: *jane
  previous: *plain
  object: *secret
  want: {event: MODIFIED, fields: {/data/key: null}}
- name: who watches loses what is hidden, as he last saw it
  phase: View
  request: *jane
  previous: *secret
  object: *hidden
  want: {event: DELETED, dropped: true, object: {metadata: {name: a}, data: {other: y}}}
- name: who watches is told nothing of what stays hidden
  phase: View
  request: *jane
  previous: *hidden
  object: *hidden
  want: {dropped: true}
- name: who watches is told of deletions
  phase: View
  request: *jane
  previous: *secret
  want: {event: DELETED, fields: {/data/other: y, /data/key: null}}
- name: nor of the deletion of what was hidden
  phase: View
  request: *jane
  previous: *hidden
  want: {dropped: true}
`

func TestViewCases(t *testing.T) {
	guest := tck.FromC(t, written(t, "seer.c", seer))
	out, err := portico(t, append([]string{"filter", "test"}, tryFlags(t, guest, viewCases)...)...)
	if err != nil || strings.Count(out, "ok    ") != 10 {
		t.Errorf("%v, %s", err, out)
	}
	// The same answers, as they are shown.
	shown, err := portico(t, append([]string{"filter", "run"}, tryFlags(t, guest, viewCases)...)...)
	if err != nil || !strings.Contains(shown, "dropped: true\n    event: DELETED\n") {
		t.Errorf("%v, %s", err, shown)
	}
	wrong := strings.Replace(viewCases, "/data/other: y}", "/data/other: z}", 1)
	if out, err := portico(t, append([]string{"filter", "test"}, tryFlags(t, guest, wrong)...)...); !errors.Is(err, errCases) || strings.Count(out, "FAIL  ") != 1 {
		t.Errorf("%v, %s", err, out)
	}
}

func TestViewCasesOfWhatCannotBeOneFail(t *testing.T) {
	flags := tryFlags(t, tck.FromC(t, written(t, "seer.c", seer)), viewCases)
	flags = append(flags, "--policy="+written(t, "kv.yaml", "apiVersion: proxy.elf.io/v1alpha1\nkind: WasmFilter\nspec: {source: {file: f.wasm}, capabilities: [kv]}\n"))
	if out, err := portico(t, append([]string{"filter", "test"}, flags...)...); !errors.Is(err, errCases) || !strings.Contains(out, "a module that has capabilities cannot say what is seen") {
		t.Errorf("%v, %s", err, out)
	}
}

// TestDropIsARefusalOfRequests has a guest that does not say why.
func TestDropIsARefusalOfRequests(t *testing.T) {
	guest := tck.FromC(t, written(t, "drop.c", "#include \"portico.h\"\ni32 on_object(void) { return PORTICO_DROP; }"))
	const cases = "- name: drop\n  object: {}\n  want: {refused: {code: 403, reason: Forbidden, message: refused by a policy}}\n"
	if out, err := portico(t, append([]string{"filter", "test"}, tryFlags(t, guest, cases)...)...); err != nil {
		t.Errorf("%v, %s", err, out)
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
	if _, err := portico(t, append([]string{"filter", "test"}, misspelt...)...); err == nil || !strings.Contains(err.Error(), "misspelt.yaml, line 2: there is no field requst: did you mean request?") {
		t.Errorf("got %v", err)
	}
}
