// Package tiers has proxies of nodes behind proxies of an area, and takes either
// away.
package tiers

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"

	"github.com/portico-proxy/portico/test/controlplane"
	"github.com/portico-proxy/portico/test/proxy"
)

// TestEitherTierCanBeTakenAway kills the proxies of areas, those of nodes and the
// API server, one after another, and informers at all nodes go on. Before that it
// measures how long changes take to all readers: through the areas' proxies alone,
// through those of nodes alone, and through both tiers.
func TestEitherTierCanBeTakenAway(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute; -short was given")
	}
	w := newWorld(t, sizeOf(t))
	for n := range w.services {
		w.add(name(n))
	}
	own := w.watches()
	few := func(when string) {
		t.Helper()
		until(t, fmt.Sprintf("at most %d watches %s", len(w.areas), when), func() bool { return w.watches()-own <= len(w.areas) })
	}
	w.areasAlone()
	w.nodesAlone()
	w.addNodes()
	w.copies, w.readers, _ = w.inform(w.nodes)
	w.heard("first")
	few("at first")
	w.tell("both tiers", w.deliver(w.readers))
	few("while they were at work")
	t.Logf("an area's proxy has %d MiB in memory, a node's %d", resident(w.areas), resident(w.nodes))

	stop := w.disturb()
	for n := range w.areas {
		w.without(fmt.Sprintf("area-%d", n), w.areas[n:n+1])
	}
	few("after the areas were gone")
	kill(w.nodes)
	start(w.nodes)
	w.heard("after-nodes")
	if err := w.plane.Kill(controlplane.APIServer); err != nil {
		t.Fatal(err)
	}
	if err := w.plane.Restart(t.Context(), controlplane.APIServer); err != nil {
		t.Fatal(err)
	}
	w.heard("after-server")
	stop()
	w.allEqual()
	few("in the end")
	w.tellBeginnings()
}

// areasAlone measures the areas' proxies, with as many readers.
func (w *world) areasAlone() {
	w.t.Helper()
	readers, stop := w.read(w.areas, w.size.nodes*w.perNode/w.size.areas)
	defer stop()
	w.equal("at first", readers)
	w.tell("the areas' proxies alone", w.deliver(readers))
}

// nodesAlone measures what the areas' proxies are put before: one of the API server's
// watches for each node.
func (w *world) nodesAlone() {
	w.t.Helper()
	nodes := w.nodesBehind(w.plane.KubeconfigPath())
	_, readers, stop := w.inform(nodes)
	w.equal("at first", readers)
	w.tell("the nodes' proxies alone", w.deliver(readers))
	stop()
	kill(nodes)
}

// without kills some proxies, has a change go round, and starts them again.
func (w *world) without(what string, some []*proxy.Proxy) {
	w.t.Helper()
	kill(some)
	w.heard("without-" + what)
	start(some)
}

func kill(all []*proxy.Proxy) {
	for _, p := range all {
		p.Kill()
	}
}

func start(all []*proxy.Proxy) {
	for _, p := range all {
		p.Start()
	}
}

func (w *world) tell(what string, d []time.Duration) {
	w.t.Helper()
	w.t.Logf("%s: %d deliveries of %d changes, p50 %s, p90 %s, p99 %s, last %s", what, len(d), w.changes, part(d, 0.5), part(d, 0.9), part(d, 0.99), part(d, 1))
	if len(d) == 0 {
		w.t.Error("nothing was delivered")
	}
}

// tellBeginnings says how often readers had to begin anew.
func (w *world) tellBeginnings() {
	w.t.Helper()
	anew := 0
	for _, r := range w.readers {
		r.mu.Lock()
		anew += r.begun - 1
		r.mu.Unlock()
	}
	w.t.Logf("%d readers began anew %d times", len(w.readers), anew)
}

// TestTokensPassBothTiers asks as somebody whom only the API server knows.
func TestTokensPassBothTiers(t *testing.T) {
	w := newWorld(t, size{areas: 2, nodes: 1})
	w.addNodes()
	for token, want := range map[string]int{w.plane.Token("admin").Token: http.StatusOK, "nobody's": http.StatusUnauthorized} {
		cred := controlplane.Credential{Token: token}
		client, err := kubernetes.NewForConfig(w.nodes[0].Config(cred))
		if err != nil {
			t.Fatal(err)
		}
		code := 0
		res := client.CoreV1().RESTClient().Get().Namespace("default").Resource("services").Do(t.Context()).StatusCode(&code)
		if code != want {
			t.Errorf("got %d (%v), want %d", code, res.Error(), want)
		}
	}
}
