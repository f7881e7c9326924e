package filters

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/portico-proxy/portico/test/proxy"
)

// blocks are what a page tells its reader to type or to write.
var blocks = regexp.MustCompile("(?s)```(sh|go|c|yaml|rego)(?: file=(\\S+))?\n(.*?)```")

// script does what a page says, in its order. What it would leave in /tmp is in
// dir.
func script(t *testing.T, page, dir string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, page))
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, m := range blocks.FindAllStringSubmatch(string(text), -1) {
		switch {
		case m[2] != "":
			b.WriteString("cat > " + m[2] + " <<'END_OF_FILE'\n" + m[3] + "END_OF_FILE\n")
		case m[1] == "sh":
			// A machine that is busy with other tests needs more time.
			b.WriteString(strings.ReplaceAll(m[3], "portico filter build", "sed -i 's/100ms/10s/' policy.yaml\nportico filter build"))
		}
	}
	return strings.ReplaceAll(b.String(), "/tmp/", dir+"/")
}

// readAlong does what a page says as jane, with programs in the path, through a
// proxy. It returns what they print.
func readAlong(t *testing.T, page string, programs map[string]string) string {
	t.Helper()
	p, dir := newProxy(t), t.TempDir()
	bin := filepath.Join(dir, "bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, path := range programs {
		if err := os.Symlink(path, filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("bash", "-exc", script(t, page, dir))
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "KUBECONFIG="+p.Kubeconfig(world.Token("jane")), "GOFLAGS=-mod=mod", "PATH="+bin+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

func TestGuideToRatePolicies(t *testing.T) {
	opa := filepath.Join(t.TempDir(), "opa")
	build := exec.CommandContext(t.Context(), "go", "build", "-modfile=.tools/opa.mod", "-o", opa, "github.com/open-policy-agent/opa")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build opa: %v\n%s", err, out)
	}
	out := readAlong(t, "docs/write-a-rate-policy.md", map[string]string{"portico": proxy.Binary(t), "kubectl": world.Program("kubectl"), "opa": opa})
	for _, want := range []string{
		"ok    lists_test.test_informers_are_free", "PASS: 2/2", "typo.rego, line 13, column 2: undefined ref: input.verbs",
		`"rate": 0.1`, "Warning: jane lists all pods: use an informer (limit all-pods)", `"list secrets by name"`,
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
}

func TestGuideToWasmFilters(t *testing.T) {
	for _, tool := range []string{"clang", "wasm-ld"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("the guide ends in C, which needs clang and lld: %v", err)
		}
	}
	out := readAlong(t, "docs/write-a-wasm-filter.md", map[string]string{"portico": proxy.Binary(t), "kubectl": world.Program("kubectl")})
	for _, want := range []string{"ok    who says it is a dry run is warned too", "ok    passwords are refused", "ok    who watches loses it once it is labelled", "ok    an object of a team's namespace is the team's", "team=nobody", "team=till", "keep passwords in Secrets (filter stamp)", "Careful, jane: this cannot be undone", "this is kept (filter keep)"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
}
