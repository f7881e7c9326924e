package views

import (
	"strings"
	"testing"
)

func TestWhatIsHiddenIsNotDiscovered(t *testing.T) {
	p := newProxy(t)
	show(t, "fewer-kinds", `  subjects: {users: [nils]}
  hidden: [{resource: secrets}, {group: apps, resource: deployments}, {group: batch, resource: "*"}, {group: proxy.elf.io, resource: "*"}]
`)
	n := newTenant(t, p, "nils")
	kubeconfig := p.Kubeconfig(world.Token("nils"))
	for _, flags := range [][]string{{"api-resources", "-o", "name"}, {"api-resources", "-o", "wide"}, {"api-versions"}} {
		out := must(t, kubeconfig, "", flags...)
		for _, no := range []string{"secrets", "deployments", "jobs", "batch/v1", "virtualviews", "proxy.elf.io"} {
			if strings.Contains(out, no) {
				t.Errorf("%v shows %s:\n%s", flags, no, out)
			}
		}
		if !strings.Contains(out, "apps") {
			t.Errorf("%v shows\n%s", flags, out)
		}
	}
	if out, err := kubectl(kubeconfig, "", "get", "deployments"); err == nil || !strings.Contains(out, `doesn't have a resource type "deployments"`) {
		t.Errorf("%v, %s", err, out)
	}
	if out := must(t, kubeconfig, "", "auth", "can-i", "--list"); strings.Contains(out, "secrets") {
		t.Errorf("he may\n%s", out)
	}
	if out, err := kubectl(kubeconfig, "", "auth", "can-i", "get", "secrets"); err == nil || !strings.Contains(out, "no") {
		t.Errorf("he may get Secrets: %v, %s", err, out)
	}
	for _, path := range []string{"/apis/batch", "/apis/batch/v1", "/openapi/v3/apis/batch/v1"} {
		n.is(t, "GET", path, "", 404, "could not find the requested resource")
	}
	n.is(t, "GET", "/apis/apps/v1", "", 200, "statefulsets")
	n.is(t, "GET", "/api/v1", "", 200, "configmaps")
	n.is(t, "GET", "/openapi/v3", "", 200, "apis/apps/v1")
	n.neverSaw(t, "batch/v1", "secrets", "deployments")
	must(t, kubeconfig, "", "create", "configmap", "of-nils", "--from-literal=a=b", "--dry-run=server")
	if out := admin(t, "", "api-resources", "-o", "name"); !strings.Contains(out, "deployments.apps") {
		t.Errorf("others see\n%s", out)
	}
}
