package filters

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/portico-proxy/portico/test/proxy"
)

// looking is a WasmFilter that may look namespaces and the shop's deployments up,
// bound to the ConfigMaps that jane makes.
func looking(t *testing.T) string {
	t.Helper()
	guest := ofGuest("team", "{inline: "+encoded(t, fromC(t, "../../../plugins/tck/guests/c/lookup.c"))+"}")
	return guest + `  capabilities: [lookup]
  contextResources:
  - {resource: namespaces}
  - {group: apps, resource: deployments, namespace: shop}
` + bound("team")
}

// space is a namespace of a team. It stays: nobody here would finish it.
func space(t *testing.T, name string) {
	t.Helper()
	manifest := "apiVersion: v1\nkind: Namespace\nmetadata: {name: " + name + ", labels: {team: till}}\n"
	must(t, world.KubeconfigPath(), manifest, "apply", "-f", "-")
}

// teamOf makes a ConfigMap in a namespace and returns its labels.
func teamOf(kubeconfig, namespace string) (string, error) {
	return kubectl(kubeconfig, strings.Replace(made, "default", namespace, 1), "create", "-f", "-", "--dry-run=server", "-o", "jsonpath={.metadata.labels}")
}

func TestFiltersLookUp(t *testing.T) {
	p := newProxy(t)
	space(t, "looked-at")
	apply(t, looking(t))
	inForce(t, "wasmfilter/team", "filterbinding/team")
	jane := p.Kubeconfig(world.Token("jane"))
	if got, err := teamOf(jane, "looked-at"); err != nil || got != `{"team":"till"}` {
		t.Errorf("%v, %s", err, got)
	}
	must(t, world.KubeconfigPath(), "", "label", "--overwrite", "namespace", "looked-at", "team=market")
	until(t, "the label is another", func() bool { got, err := teamOf(jane, "looked-at"); return err == nil && got == `{"team":"market"}` })
	must(t, world.KubeconfigPath(), "", "label", "namespace", "looked-at", "team-")
	until(t, "the label is gone", func() bool { got, err := teamOf(jane, "looked-at"); return err == nil && got == "" })
}

// follows lets a proxy's user read policies, report on them, and review callers.
const follows = `apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: follows}
rules:
- {apiGroups: [proxy.elf.io], resources: ["*"], verbs: [list, watch, update]}
- {apiGroups: [authentication.k8s.io], resources: [tokenreviews], verbs: [create]}
- {apiGroups: [authorization.k8s.io], resources: [subjectaccessreviews], verbs: [create]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: follows}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: follows}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: follower}]
`

const looks = `apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: looks}
rules:
- {apiGroups: ["", apps], resources: [namespaces, deployments], verbs: [list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: looks}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: looks}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: follower}]
`

func TestFiltersThatCannotLookUpAreNotInForce(t *testing.T) {
	apply(t, follows)
	space(t, "looked-for")
	cred, err := world.ClientCert("follower")
	if err != nil {
		t.Fatal(err)
	}
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	if err := world.Kubeconfig(cred).WriteFile(kubeconfig); err != nil {
		t.Fatal(err)
	}
	p := proxy.New(t, proxy.Options{Kubeconfig: kubeconfig})
	apply(t, looking(t))
	must(t, world.KubeconfigPath(), "", "wait", "--for=condition=Programmed=false", "--timeout=2m", "wasmfilter/team", "filterbinding/team")
	reason := func() string {
		return must(t, world.KubeconfigPath(), "", "get", "wasmfilter", "team", "-o", "jsonpath={.status.conditions[?(@.type==\"Programmed\")].message}")
	}
	until(t, "the status says why", func() bool {
		return strings.Contains(reason(), `"follower" cannot list resource`)
	})
	jane := p.Kubeconfig(world.Token("jane"))
	if got, err := teamOf(jane, "looked-for"); err == nil || !strings.Contains(got, "what the guest looks up is not known") || strings.Contains(got, "follower") {
		t.Errorf("%v, %s", err, got)
	}
	if got, err := teamOf(p.Kubeconfig(world.Token("joe")), "looked-for"); err != nil || got != "" {
		t.Errorf("joe's: %v, %s", err, got)
	}
	apply(t, looks)
	inForce(t, "wasmfilter/team", "filterbinding/team")
	if got, err := teamOf(jane, "looked-for"); err != nil || got != `{"team":"till"}` {
		t.Errorf("%v, %s", err, got)
	}
}

func TestWhatDoesNotFitIsNotLookedUp(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "team.yaml"), []byte(looking(t)), 0o600); err != nil {
		t.Fatal(err)
	}
	space(t, "looked-large")
	p := newProxy(t, "--policy-dir="+dir, "--watch-policies=false", "--lookup-memory-limit=1Ki")
	until(t, "the log says so", func() bool { return strings.Contains(p.Log(), "take more memory than they may") })
	if got, err := teamOf(p.Kubeconfig(world.Token("jane")), "looked-large"); err == nil || !strings.Contains(got, "what the guest looks up is not known") {
		t.Errorf("%v, %s", err, got)
	}
}
