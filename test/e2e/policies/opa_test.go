// Package policies holds the policies that we ship, and what our pages tell their
// authors, against OPA's own program.
package policies

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const root = "../../.."

// run runs a program at the root of the repository.
func run(t *testing.T, program string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Dir = root
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// opa runs the program that authors have.
func opa(t *testing.T, args ...string) (string, error) {
	t.Helper()
	return run(t, "go", append([]string{"tool", "-modfile=.tools/opa.mod", "opa"}, args...)...)
}

const (
	shipped = "plugins/policies"
	schemas = "plugins/policies/schemas"
)

func TestShippedPoliciesPassStockTools(t *testing.T) {
	for _, args := range [][]string{
		{"check", "--strict", "--schema", schemas, shipped},
		{"test", shipped},
		{"fmt", "--fail", "--list", shipped},
	} {
		if out, err := opa(t, args...); err != nil {
			t.Errorf("opa %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

func TestEveryShippedPolicyHasATest(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(root, shipped, "*", "*.rego"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%v: there are no policies", err)
	}
	for _, file := range files {
		name, isTest := strings.CutSuffix(file, "_test.rego")
		if isTest {
			continue
		}
		name = strings.TrimSuffix(name, ".rego")
		if _, err := os.Stat(name + "_test.rego"); err != nil {
			t.Errorf("%s has no test: %v", file, err)
		}
	}
}

// TestStockCheckFindsMisspeltFields has an author run what our pages tell, on a
// mistake.
func TestStockCheckFindsMisspeltFields(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, shipped, "quorum_list", "quorum_list.rego"))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "typo.rego")
	if err := os.WriteFile(file, []byte(strings.Replace(string(text), "input.namespace", "input.namespaces", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := opa(t, "check", "--strict", "--schema", schemas, file)
	if err == nil || !strings.Contains(out, "undefined ref: input.namespaces") {
		t.Errorf("%v\n%s", err, out)
	}
}
