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

// runExample does what an example's README.md says, with a proxy as the cluster, and
// returns what its second half prints. Namespaces are those that it makes.
func runExample(t *testing.T, dir string, namespaces ...string) string {
	t.Helper()
	readme, err := os.ReadFile(filepath.Join(root, dir, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(string(readme), -1)
	if len(blocks) != 2 {
		t.Fatalf("the page has %d blocks", len(blocks))
	}
	operator := newProxy(t).Kubeconfig(world.Token("gina"))
	t.Cleanup(func() {
		admin(t, "", "delete", "--ignore-not-found", "-f", filepath.Join(root, dir, "policy.yaml"))
		admin(t, "", append([]string{"delete", "namespace", "--ignore-not-found", "--wait=false"}, namespaces...)...)
	})
	var out []byte
	for _, block := range blocks {
		cmd := exec.Command("sh", "-ec", strings.ReplaceAll(block[1], "kubectl ", world.Program("kubectl")+" "))
		cmd.Dir = root
		cmd.Env = append(os.Environ(), "KUBECONFIG="+operator)
		if out, err = cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	return string(out)
}

func TestExampleTenantNames(t *testing.T) {
	out := runExample(t, "examples/tenant-names", "north-default", "north-team", "south-default")
	own, cluster, _ := strings.Cut(out, "name: sue")
	for _, want := range []string{"namespace/team created", "configmap/owner created", "default ", "team ", "name: joe", "namespace: default"} {
		if !strings.Contains(own, want) {
			t.Errorf("%q is not in\n%s", want, own)
		}
	}
	for _, no := range []string{"north-", "south-", "kube-system"} {
		if strings.Contains(own, no) {
			t.Errorf("%q is in\n%s", no, own)
		}
	}
	for _, want := range []string{"north-default", "north-team", "south-default"} {
		if !strings.Contains(cluster, want) {
			t.Errorf("%q is not in\n%s", want, cluster)
		}
	}
}

func TestExampleTenantView(t *testing.T) {
	out := runExample(t, "examples/tenant-view", "shop", "bank")
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
