package kubectl

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/portico-proxy/portico/test/proxy"
)

// inCluster begins the names of a tenant's namespaces in the cluster.
const inCluster = "kq7x-"

// renaming has everybody call namespaces by other names than the cluster's.
const renaming = `
apiVersion: proxy.elf.io/v1alpha1
kind: VirtualView
metadata: {name: names}
spec:
  subjects: {groups: ["system:authenticated"]}
  namespaces: {prefix: ` + inCluster + `}
`

// TestTenantsSeeTheSame tells stories directly, and by a tenant whose namespaces have
// other names: nothing tells him so.
func TestTenantsSeeTheSame(t *testing.T) {
	const node = "node-c"
	startKubelet(t, node)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "view.yaml"), []byte(renaming), 0o600); err != nil {
		t.Fatal(err)
	}
	p := proxy.New(t, proxy.Options{Kubeconfig: cp.KubeconfigPath(), Flags: []string{"--policy-dir=" + dir}})
	for name, tell := range map[string]func(*side){
		"create": create, "apply": apply, "applied-by": applyServerSide, "patch": patch, "edit": edit, "scale": scale,
		"select": readSelected, "describe": describe, "events": events, "missing": readMissing,
		"delete-namespace": deleteNamespace, "delete-waits": deleteWaits,
		"exec": func(s *side) { s.manned(node); execute(s.with(protocols["websocket"]...)) },
		"spdy": func(s *side) { s.manned(node); executeStdin(s.with(protocols["spdy"]...)) },
		"logs": func(s *side) { s.manned(node); logs(s) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			direct, tenant := newSide(t, nil), newSideOf(t, p, inCluster)
			tell(direct)
			tell(tenant)
			same(t, direct, tenant)
			for _, o := range *tenant.record {
				if strings.Contains(o.Stdout+o.Stderr, inCluster) {
					t.Errorf("kubectl %s tells the cluster's name:\n%s%s", o.Command, o.Stdout, o.Stderr)
				}
			}
		})
	}
}
