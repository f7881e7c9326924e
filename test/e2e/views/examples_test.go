package views

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
)

// root is the repository's.
const root = "../../.."

// TestExampleTenantView does what examples/tenant-view/README.md says, with a proxy
// as the cluster.
func TestExampleTenantView(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join(root, "examples/tenant-view/README.md"))
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(string(readme), -1)
	if len(blocks) != 2 {
		t.Fatalf("the page has %d blocks", len(blocks))
	}
	p := newProxy(t)
	t.Cleanup(func() {
		admin(t, "", "delete", "--ignore-not-found", "-f", filepath.Join(root, "examples/tenant-view/policy.yaml"))
		admin(t, "", "delete", "namespace", "--ignore-not-found", "--wait=false", "shop", "bank")
	})
	type page struct{ script, kubeconfig string }
	run := func(do page) string {
		cmd := exec.Command("sh", "-exc", strings.ReplaceAll(do.script, "kubectl ", world.Program("kubectl")+" "))
		cmd.Dir = root
		cmd.Env = append(os.Environ(), "KUBECONFIG="+do.kubeconfig)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return string(out)
	}
	operator := p.Kubeconfig(world.Token("gina"))
	run(page{blocks[0][1], operator})
	out := run(page{blocks[1][1], operator})
	for _, want := range []string{"shop ", `namespaces "bank" not found`, "secret/key annotated", `password: ""`, "note: mine"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	for _, no := range []string{"bank  ", "default ", "kube-system", "bWVsbG9u"} {
		if strings.Contains(out, no) {
			t.Errorf("%q is in\n%s", no, out)
		}
	}
	if got := admin(t, "", "get", "secret", "key", "--namespace=shop", "-o", "jsonpath={.data.password}"); got != "bWVsbG9u" {
		t.Errorf("the password is %q now", got)
	}
}

// TestGuideShowsAGoodView has the API server take the view of docs/virtual-views.md.
func TestGuideShowsAGoodView(t *testing.T) {
	guide, err := os.ReadFile(filepath.Join(root, "docs/virtual-views.md"))
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindSubmatch(guide)
	if block == nil {
		t.Fatal("the guide shows none")
	}
	admin(t, string(block[1]), "create", "--dry-run=server", "--validate=strict", "-f", "-")
	var v v1alpha1.VirtualView
	if err := yaml.UnmarshalStrict(block[1], &v); err != nil {
		t.Fatal(err)
	}
	if err := v.Validate(); err != nil {
		t.Error(err)
	}
}
