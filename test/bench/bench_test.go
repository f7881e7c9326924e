// Package bench measures requests sent directly and through the proxy, side by
// side in the same run.
package bench

import (
	"os"
	"testing"

	"github.com/portico-proxy/portico/test/controlplane"
	"github.com/portico-proxy/portico/test/proxy"
)

// BenchmarkOverhead asks one API server both ways, in turns, so that whatever
// else the machine does hits both. A loop is one round of each benchmark; what
// is reported are medians over rounds. CPU time is what the processes took, and
// that of the measuring process is in none of it.
func BenchmarkOverhead(b *testing.B) {
	bed := newBed(b)
	b.Run("get", bed.get)
	b.Run("get-cpu", bed.getCPU)
	b.Run("watch", bed.watch)
	b.Run("list", bed.list)
	b.Run("list-memory", bed.listMemory)
	bed.table.print(os.Stdout)
}

// A bed is a control plane, a proxy in front of it and what was measured.
type bed struct {
	cp              *controlplane.ControlPlane
	direct, proxied road
	objects         objects
	table           table
}

func newBed(b *testing.B) *bed {
	b.Helper()
	cp := controlplane.New(b, controlplane.Options{
		// Pods need a ServiceAccount only because of this plugin, and then a
		// controller-manager to make one.
		Flags: map[controlplane.Part][]string{controlplane.APIServer: {"--disable-admission-plugins=ServiceAccount"}},
	})
	p := proxy.New(b, proxy.Options{Kubeconfig: cp.KubeconfigPath(), Flags: []string{"--watch-cache=false"}})
	token := cp.Token("admin")
	t := &bed{cp: cp, objects: objects{config: cp.ConfigFor(token)}}
	t.direct = newRoad(b, "direct", cp.ConfigFor(token))
	t.proxied = newRoad(b, "proxied", p.Config(token))
	t.direct.server = apiServer(b, cp)
	t.proxied.server, t.proxied.behind = process(p.Pid()), t.direct.server
	t.objects.first(b)
	t.table.machine = machine(b, cp)
	return t
}

func apiServer(b *testing.B, cp *controlplane.ControlPlane) process {
	b.Helper()
	pid, err := cp.Pid(controlplane.APIServer)
	if err != nil {
		b.Fatal(err)
	}
	return process(pid)
}
