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

// root is the repository's.
const root = "../../.."

// patient gives a filter the time that it needs on a machine that is busy with
// other tests.
func patient(policy string) string {
	return strings.Replace(policy, "spec:\n  source:", "spec:\n  limits: {wallClock: 10s}\n  source:", 1)
}

// follow does what the README of an example says, line by line, with p as the
// cluster, and returns what it printed. What it would leave in /tmp goes away.
func follow(t *testing.T, p *proxy.Proxy, example string) string {
	t.Helper()
	dir := t.TempDir()
	readme, err := os.ReadFile(filepath.Join(root, example, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	policy, err := os.ReadFile(filepath.Join(root, example, "policy.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	here := func(text string) string { return strings.ReplaceAll(text, "/tmp/", dir+"/") }
	if err := os.WriteFile(filepath.Join(dir, "policy.yaml"), []byte(patient(here(string(policy)))), 0o600); err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile("(?s)```sh\n(.*?)```").FindSubmatch(readme)
	if block == nil {
		t.Fatalf("%s shows nothing", example)
	}
	script := strings.ReplaceAll(here(string(block[1])), example+"/policy.yaml", dir+"/policy.yaml")
	script = strings.ReplaceAll(script, "kubectl ", world.Program("kubectl")+" ")
	cmd := exec.Command("sh", "-ec", script)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "KUBECONFIG="+p.Kubeconfig(world.Token("jane")), "GOFLAGS=")
	t.Cleanup(func() {
		must(t, world.KubeconfigPath(), "", "delete", "--ignore-not-found", "-f", filepath.Join(dir, "policy.yaml"))
	})
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", example, err, out)
	}
	return string(out)
}

func TestExampleLabels(t *testing.T) {
	p := newProxy(t)
	out := follow(t, p, "examples/labels")
	if !regexp.MustCompile(`settings +0 .*team=a`).MatchString(out) {
		t.Errorf("printed\n%s", out)
	}
	jane := p.Kubeconfig(world.Token("jane"))
	// kubectl label sends a patch.
	label := func(text string) (string, error) {
		return kubectl(jane, "", "label", "--overwrite", "configmap", "settings", "--namespace=team-a-web", text)
	}
	if out, err := label("team=b"); err == nil || !strings.Contains(out, "the label team must be a in the namespace team-a-web") {
		t.Errorf("%v, %s", err, out)
	}
	if out, err := label("team-"); err == nil || !strings.Contains(out, "a policy wants another object than this patch makes") {
		t.Errorf("%v, %s", err, out)
	}
	if out, err := label("tier=web"); err != nil {
		t.Errorf("%v, %s", err, out)
	}
	if out, err := kubectl(jane, "", "label", "configmap", "none", "--namespace=team-a-web", "a=b"); err == nil || !strings.Contains(out, "NotFound") {
		t.Errorf("%v, %s", err, out)
	}
	wrong := "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: wrong, namespace: team-a-web, labels: {team: b}}\n"
	if out, err := kubectl(jane, wrong, "create", "-f", "-"); err == nil || !strings.Contains(out, "the label team must be a in the namespace team-a-web") {
		t.Errorf("%v, %s", err, out)
	}
}

func TestExampleTenantModule(t *testing.T) {
	out := follow(t, newProxy(t), "examples/tenant-module")
	t.Cleanup(func() {
		must(t, world.KubeconfigPath(), "", "delete", "namespace", "--ignore-not-found", "--wait=false", "shop-front", "bank")
		must(t, world.KubeconfigPath(), "", "delete", "clusterrolebinding", "--ignore-not-found", "joe")
	})
	for _, want := range []string{"shop-front ", `namespaces "bank" not found`, "configmap/mine created", "Secrets are shown without their data", "name: key"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	for _, no := range []string{"bank  ", "default ", "kube-system", "bWVsbG9u"} {
		if strings.Contains(out, no) {
			t.Errorf("%q is in\n%s", no, out)
		}
	}
}

func TestExampleCosts(t *testing.T) {
	p := newProxy(t)
	follow(t, p, "examples/costs")
	until(t, "the costs are reported", func() bool {
		must(t, p.Kubeconfig(world.Token("jane")), "", "get", "clusterroles")
		return regexp.MustCompile(`jane was sent \d+ bytes by \d+ requests`).MatchString(p.Log())
	})
}
