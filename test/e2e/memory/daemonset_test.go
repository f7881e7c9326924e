package memory

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/yaml"

	"github.com/portico-proxy/portico/test/proxy"
)

const daemonset = "../../../examples/daemonset/"

// TestExampleDaemonSetIsTaken asks the API server, and the proxy about its flags.
func TestExampleDaemonSetIsTaken(t *testing.T) {
	rbac := readFile(t, daemonset+"rbac.yaml")
	mustKubectl(t, "", "create", "namespace", "portico") // it stays: there is nobody here to end one
	mustKubectl(t, rbac, "apply", "--dry-run=server", "--validate=strict", "-f", "-")
	manifest := strings.Replace(readFile(t, daemonset+"daemonset.yaml"), "image: IMAGE", "image: example.org/portico", 1)
	mustKubectl(t, manifest, "apply", "--dry-run=server", "--validate=strict", "-f", "-")

	var set appsv1.DaemonSet
	if err := yaml.UnmarshalStrict([]byte(manifest), &set); err != nil {
		t.Fatal(err)
	}
	container := set.Spec.Template.Spec.Containers[0]
	if out, err := exec.Command(proxy.Binary(t), append(container.Args, "--help")...).CombinedOutput(); err != nil {
		t.Errorf("the proxy does not take %v: %v\n%s", container.Args, err, out)
	}
	if diff := cmp.Diff(roleIn(t, documented(t, "operate.md")[0]), roleIn(t, rbac)); diff != "" {
		t.Errorf("the role is another than that of docs/operate.md (-page +example):\n%s", diff)
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// roleIn returns the ClusterRole among manifests.
func roleIn(t *testing.T, manifests string) (role rbacv1.ClusterRole) {
	t.Helper()
	all := strings.Split(manifests, "\n---\n")
	i := slices.IndexFunc(all, func(one string) bool { return strings.Contains(one, "\nkind: ClusterRole\n") })
	if i < 0 {
		t.Fatal("there is no ClusterRole")
	}
	if err := yaml.UnmarshalStrict([]byte(all[i]), &role); err != nil {
		t.Fatal(err)
	}
	return role
}
