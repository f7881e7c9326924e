package cache_test

import (
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/portico-proxy/portico/core/cache"
	"github.com/portico-proxy/portico/core/cache/cachetest"
)

// A door is opened anew for each client.
type opener func(testing.TB) *cachetest.Door

func (p *proxy) open(t testing.TB) *cachetest.Door {
	t.Helper()
	return cachetest.NewDoor(t, p.config)
}

// load is how much is to be done.
type load struct{ clients, each, operations int }

// loadOf is the load that PORTICO_SOAK asks for, which is a number of operations,
// or a small one.
func loadOf(t testing.TB) load {
	t.Helper()
	soak := os.Getenv("PORTICO_SOAK")
	if soak == "" {
		return load{clients: 8, each: 50}
	}
	n, err := strconv.Atoi(soak)
	if err != nil {
		t.Fatalf("PORTICO_SOAK: %v", err)
	}
	return load{clients: 24, each: 250, operations: n}
}

// endure has clients read and write in rounds, and expects nothing to be wrong.
func endure(t *testing.T, p *proxy, writers ...opener) {
	l := loadOf(t)
	begun, requests, operations := time.Now(), 0, 0
	for round := 0; (round < 2 || operations < l.operations) && !t.Failed(); round++ {
		t.Run(fmt.Sprintf("round-%d", round), func(t *testing.T) {
			h := newHistory(t, p, round%2 == 0)
			h.run(l, p.open, writers)
			for _, u := range h.untrue() {
				t.Error(u)
			}
			if got := h.verdict(); got != porcupine.Ok {
				t.Errorf("%d operations: %s", len(h.ops), got)
			}
			requests, operations = requests+int(h.requests.Load()), operations+len(h.ops)
			t.Logf("%d requests and %d operations in %s", requests, operations, time.Since(begun).Round(time.Second))
		})
	}
}

// verdict is whether the operations can have happened one after another.
func (h *history) verdict() porcupine.CheckResult {
	return porcupine.CheckOperationsTimeout(cachetest.Register, h.ops, 2*time.Minute)
}

func TestReadsAreLinearizable(t *testing.T) {
	p := newProxy(t, func(o *cache.Options) { nothingRefused(o); o.Upstream.(*counter).slow.Store(true) })
	endure(t, p, p.open, direct)
}

func TestUnprovenReadsAreFoundOut(t *testing.T) {
	p := newProxy(t, func(o *cache.Options) { nothingRefused(o); o.Upstream.(*counter).slow.Store(true) })
	p.cache.SkipProof()
	h := newHistory(t, p, true)
	h.run(load{clients: 6, each: 40}, p.open, []opener{direct})
	if got := h.verdict(); got != porcupine.Illegal {
		t.Errorf("%d operations: %s", len(h.ops), got)
	}
}

// sessions lets everybody have session reads.
func sessions(o *cache.Options) {
	o.Policies = func(schema.GroupResource) cache.Policy {
		return cache.Policy{Session: func(user.Info) bool { return true }}
	}
}

// TestSessionsSeeTheirWrites holds all clients of one proxy to linearizability:
// while nobody writes past it, a session is as good.
func TestSessionsSeeTheirWrites(t *testing.T) {
	p := newProxy(t, func(o *cache.Options) { sessions(o); o.Upstream.(*counter).slow.Store(true) })
	endure(t, p, p.open)
}

func TestForgottenWritesAreFoundOut(t *testing.T) {
	p := newProxy(t, func(o *cache.Options) { sessions(o); o.Upstream.(*counter).slow.Store(true) })
	p.cache.ForgetWrites()
	h := newHistory(t, p, true)
	h.run(load{clients: 6, each: 40}, p.open, []opener{p.open})
	if got := h.verdict(); got != porcupine.Illegal {
		t.Errorf("%d operations: %s", len(h.ops), got)
	}
}

// TestLostEventsAreFoundOut has the watches that feed memory lose some.
func TestLostEventsAreFoundOut(t *testing.T) {
	p := newProxy(t, func(o *cache.Options) { nothingRefused(o); o.Upstream.(*counter).lossy.Store(true) })
	h := newHistory(t, p, true)
	h.run(load{clients: 6, each: 40}, p.open, []opener{direct})
	if got := h.untrue(); len(got) == 0 {
		t.Errorf("%d snapshots and nothing untrue", len(h.snapshots))
	}
}
