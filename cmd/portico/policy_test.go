package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// runPortico runs a command and returns what it prints.
func runPortico(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	cmd := newCommand()
	cmd.SetArgs(args)
	cmd.SetOut(&out)
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

func TestPolicyTestFailsWhereATestDoes(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := runPortico(t, "policy", "test", dir); err == nil || !strings.Contains(err.Error(), "there are no tests") {
		t.Errorf("without tests: %v", err)
	}
	write("a_test.rego", "package a_test\n\ntest_good if 1 == 1\n\ntest_bad if count([1]) == 2\n")
	out, err := runPortico(t, "policy", "test", dir)
	if want := "FAIL  a_test.test_bad: it does not hold\nok    a_test.test_good\n"; !errors.Is(err, errTests) || out != want {
		t.Errorf("got %v\n%s", err, out)
	}
	write("a_test.rego", "package a_test\n\ntest_bad if input.verbs == \"get\"\n")
	if _, err := runPortico(t, "policy", "test", dir); err == nil || !strings.Contains(err.Error(), "line 3, column 13: undefined ref: input.verbs") {
		t.Errorf("with a mistake: %v", err)
	}
}

func TestPolicyEvalReadsRegoPolicies(t *testing.T) {
	input := filepath.Join(t.TempDir(), "request.yaml")
	if err := os.WriteFile(input, []byte("{verb: list, resource: pods, user: {name: joe}}"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := runPortico(t, "policy", "eval", "../../examples/quorum-lists/policy.yaml", "--input="+input)
	if err != nil || !strings.Contains(out, `"id": "quorum-list"`) {
		t.Errorf("got %v\n%s", err, out)
	}
	if _, err := runPortico(t, "policy", "eval", "../../examples/redirect/policy.yaml"); err == nil {
		t.Error("a file without a RegoPolicy is taken for one")
	}
}

const perMinute = "package lists\n\nlimits contains {\"id\": \"all\", \"key\": [input.user.name], \"tokens\": {\"rate\": data.settings.perMinute / 60, \"burst\": 2}} if input.verb == \"list\"\n"

func TestPolicyEvalNamesTheFileThatIsWrong(t *testing.T) {
	policy, dir := written(t, "lists.rego", perMinute), t.TempDir()
	settings, input := written(t, "settings.yaml", "perMinute: 6\n"), written(t, "request.yaml", "verb: list\nuser:\n  name: joe\n  nam: jim\n")
	for name, tt := range map[string]struct {
		args []string
		want string
	}{
		"no-settings":       {nil, policy + ", line 3, column 76: --settings, which is not given, has no perMinute"},
		"other-settings":    {[]string{"--settings=" + written(t, "other.yaml", "perHour: 6")}, "other.yaml has no perMinute"},
		"broken-settings":   {[]string{"--settings=" + written(t, "broken.yaml", "- 6")}, "broken.yaml, line 1: here must be an object"},
		"missing-settings":  {[]string{"--settings=" + filepath.Join(dir, "none.yaml")}, "none.yaml: no such file"},
		"misspelt-input":    {[]string{"--settings=" + settings, "--input=" + input}, input + ", line 4: there is no input.user.nam: did you mean input.user.name?"},
		"number-for-text":   {[]string{"--settings=" + settings, "--input=" + written(t, "n.yaml", "options: {resourceVersion: 0}")}, "n.yaml, line 1: input.options.resourceVersion is a string: put it in quotes"},
		"needless-package":  {[]string{"--settings=" + settings, "--package=lists"}, "--package for a bundle"},
		"needless-settings": {[]string{"../../examples/quorum-lists/policy.yaml", "--settings=" + settings}, "has spec.settings"},
	} {
		args := append([]string{"policy", "eval", policy}, tt.args...)
		if len(tt.args) > 0 && !strings.HasPrefix(tt.args[0], "-") {
			args = append([]string{"policy", "eval"}, tt.args...)
		}
		if _, err := runPortico(t, args...); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", name, err, tt.want)
		}
	}
}

// bundled is a bundle with one policy, as `opa build` packs it.
func bundled(t *testing.T, rego string) string {
	t.Helper()
	var out bytes.Buffer
	packed := gzip.NewWriter(&out)
	files := tar.NewWriter(packed)
	err := files.WriteHeader(&tar.Header{Name: "/lists.rego", Typeflag: tar.TypeReg, Mode: 0o600, Size: int64(len(rego))})
	if err == nil {
		_, err = files.Write([]byte(rego))
	}
	if err := errors.Join(err, files.Close(), packed.Close()); err != nil {
		t.Fatal(err)
	}
	return written(t, "bundle.tar.gz", out.String())
}

func TestPolicyEvalReadsBundles(t *testing.T) {
	packed := bundled(t, perMinute)
	settings, input := written(t, "settings.yaml", "perMinute: 6\n"), written(t, "request.yaml", "verb: list")
	policy := func(source string) string {
		return written(t, "policy.yaml", "apiVersion: proxy.elf.io/v1alpha1\nkind: RegoPolicy\nmetadata: {name: lists}\nspec: {settings: {perMinute: 6}, source: {"+source+"}}\n")
	}
	const remote = "url: https://example.org/b.tar.gz, sha256: a000000000000000000000000000000000000000000000000000000000000000"
	for name, tt := range map[string]struct {
		args []string
		want string // "" evaluates it
	}{
		"bundle":       {[]string{packed, "--settings=" + settings}, ""},
		"policy":       {[]string{policy("file: " + packed)}, ""},
		"elsewhere":    {[]string{policy("file: /nowhere/b.tar.gz"), "--bundle=" + packed}, ""},
		"away":         {[]string{policy("file: /nowhere/b.tar.gz")}, "RegoPolicy lists, spec.source, file: the bundle is not on this machine: name its file here by --bundle: open /nowhere/b.tar.gz"},
		"remote":       {[]string{policy(remote)}, "RegoPolicy lists, spec.source, the bundle is not fetched here: get it, and name its file by --bundle"},
		"other-digest": {[]string{policy(remote), "--bundle=" + packed}, "bundle.tar.gz has another digest: "},
		"other-pkg":    {[]string{packed, "--settings=" + settings, "--package=other"}, "package must be one of those of the bundle: lists"},
		"no-settings":  {[]string{packed}, "--settings, which is not given, has no perMinute"},
	} {
		out, err := runPortico(t, append([]string{"policy", "eval", "--input=" + input}, tt.args...)...)
		if tt.want == "" && (err != nil || !strings.Contains(out, `"rate": 0.1`)) || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: got %v, %s; want %q", name, err, out, tt.want)
		}
	}
}

// TestReplayFailsWhereAPolicyDoes has a policy that limits nothing, as the proxy
// refuses what it calls a limit.
func TestReplayFailsWhereAPolicyDoes(t *testing.T) {
	dir := t.TempDir()
	policy, audit := filepath.Join(dir, "policy.yaml"), filepath.Join(dir, "audit.log")
	const text = `apiVersion: proxy.elf.io/v1alpha1
kind: RegoPolicy
metadata: {name: lists}
spec:
  rego: |
    package lists
    limits contains {"id": "lists", "key": [input.user.name], "tokens": {"rate": 1}, "onExceed": "reject"} if input.verb == "list"
---
apiVersion: proxy.elf.io/v1alpha1
kind: FilterBinding
metadata: {name: lists}
spec: {filterRef: {kind: RegoPolicy, name: lists}, phase: Throttle}
`
	const events = `{"auditID":"1","stage":"ResponseComplete","verb":"list","requestURI":"/api/v1/pods","user":{"username":"joe"}}
{"auditID":"2","stage":"ResponseComplete","verb":"get","requestURI":"/api/v1/namespaces/a/pods/a","user":{"username":"joe"}}
`
	for name, text := range map[string]string{policy: text, audit: events} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err := runPortico(t, "policy", "replay", policy, audit)
	if !errors.Is(err, errFailed) || !regexp.MustCompile(`(?m)^1 +failed +joe +policy lists: limit lists: onExceed: must be one of`).MatchString(out) || !regexp.MustCompile(`(?m)^1 +admitted`).MatchString(out) {
		t.Errorf("got %v\n%s", err, out)
	}
}

// TestReplayTellsWhatSelectorsNarrow has requests about what selectors are about, and
// others.
func TestReplayTellsWhatSelectorsNarrow(t *testing.T) {
	dir := t.TempDir()
	policy, audit := filepath.Join(dir, "policy.yaml"), filepath.Join(dir, "audit.log")
	const own = `apiVersion: proxy.elf.io/v1alpha1
kind: RegoPolicy
metadata: {name: own}
spec:
  deadline: 10s
  rego: |
    package own

    selectors contains {"resources": [{"resource": "pods"}], "names": [input.user.name]}
---
apiVersion: proxy.elf.io/v1alpha1
kind: FilterBinding
metadata: {name: own}
spec:
  filterRef: {kind: RegoPolicy, name: own}
  phase: View
  match: {users: [joe]}
`
	log := ""
	for _, who := range []string{"joe", "jane"} {
		for _, path := range []string{"/api/v1/pods", "/api/v1/configmaps", "/healthz"} {
			log += `{"kind":"Event","apiVersion":"audit.k8s.io/v1","stage":"ResponseComplete","verb":"get","requestURI":"` + path + `","user":{"username":"` + who + `"}}` + "\n"
		}
	}
	for name, text := range map[string]string{policy: own, audit: log} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err := runPortico(t, "policy", "replay", policy, audit)
	const want = "REQUESTS  OUTCOME   USER  BECAUSE\n1         narrowed  joe   selectors of binding own\n5         admitted        \n"
	if err != nil || out != want {
		t.Errorf("got %v\n%s", err, out)
	}
	schema, err := runPortico(t, "policy", "schema", "caller")
	if err != nil || !strings.Contains(schema, `"workload"`) || strings.Contains(schema, `"verb"`) {
		t.Errorf("got %v\n%s", err, schema)
	}
}
