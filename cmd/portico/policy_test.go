package main

import (
	"bytes"
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
