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
	bed := newBed(b, "--watch-cache=false")
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

// newBed has a proxy with these flags beside the usual ones.
func newBed(b *testing.B, flags ...string) *bed {
	b.Helper()
	cp := controlplane.New(b, controlplane.Options{
		// Pods need a ServiceAccount only because of this plugin, and then a
		// controller-manager to make one.
		Flags: map[controlplane.Part][]string{controlplane.APIServer: {"--disable-admission-plugins=ServiceAccount"}},
	})
	token := cp.Token("admin")
	t := &bed{cp: cp, objects: objects{config: cp.ConfigFor(token)}}
	t.direct = newRoad(b, "direct", cp.ConfigFor(token))
	t.direct.server = apiServer(b, cp)
	t.proxied = t.another(b, flags...)
	t.objects.first(b)
	t.table.machine = machine(b, cp)
	return t
}

// another is the road through a proxy of its own.
func (t *bed) another(b *testing.B, flags ...string) road {
	b.Helper()
	p := proxy.New(b, proxy.Options{Kubeconfig: t.cp.KubeconfigPath(), Flags: flags})
	r := newRoad(b, "proxied", p.Config(t.cp.Token("admin")))
	r.server, r.behind = process(p.Pid()), t.direct.server
	return r
}

func apiServer(b *testing.B, cp *controlplane.ControlPlane) process {
	b.Helper()
	pid, err := cp.Pid(controlplane.APIServer)
	if err != nil {
		b.Fatal(err)
	}
	return process(pid)
}
