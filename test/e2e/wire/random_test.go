package wire_test

import (
	"context"
	"flag"
	"math/rand/v2"
	"net/http"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/portico-proxy/portico/test/e2e/wire"
)

var (
	seed     = flag.Uint64("wire.seed", 1, "where random requests begin")
	requests = flag.Uint64("wire.requests", 400, "how many random requests to compare")
)

// atOnce is how many requests are compared at a time.
const atOnce = 4

func TestRandomRequestsAreAnsweredAsDirectly(t *testing.T) {
	road, memory := proxied(newProxy(t, "--watch-cache=false")), proxied(remembering(t))
	compareSeeds(t, func(n uint64) {
		// Most of these are too odd for memory, which has to see that.
		compareRequest(t, []wire.Server{road, memory}[n%2], n, maker.request)
	})
}

func TestRandomReadsAreAnsweredFromMemoryAsDirectly(t *testing.T) {
	p := remembering(t)
	before := answers(p)
	compareSeeds(t, func(n uint64) { compareRequest(t, proxied(p), n, maker.read) })
	n := answers(p) - before
	t.Logf("%v requests were answered from memory", n)
	if n < float64(*requests)/8 {
		t.Error("these are too few to say anything")
	}
}

// TestNetHTTPsServerAnswersAsDirectly does both with Go's server of HTTP/2.
func TestNetHTTPsServerAnswersAsDirectly(t *testing.T) {
	p := remembering(t, "--own-http2=false")
	compareSeeds(t, func(n uint64) {
		compareRequest(t, proxied(p), n, []func(maker) random{maker.request, maker.read}[n%2])
	})
}

// compareSeeds calls compare for every seed, some at a time.
func compareSeeds(t *testing.T, compare func(uint64)) {
	t.Helper()
	before := snapshot(t)
	t.Logf("requests of seeds %d to %d; -wire.seed and -wire.requests choose others", *seed, *seed+*requests-1)
	var group errgroup.Group
	group.SetLimit(atOnce)
	for n := *seed; n < *seed+*requests; n++ {
		group.Go(func() error { compare(n); return nil })
	}
	_ = group.Wait()
	if after := snapshot(t); after != before {
		t.Errorf("the requests have changed what they compare, from\n%s\nto\n%s", before, after)
	}
}

// FuzzRequests does the same for as long as it is let. Each worker has a control
// plane of its own: use -parallel=1.
func FuzzRequests(f *testing.F) {
	s := proxied(remembering(f))
	f.Add(*seed)
	f.Fuzz(func(t *testing.T, n uint64) {
		compareRequest(t, s, n, maker.request)
		compareRequest(t, s, n, maker.read)
	})
}

func compareRequest(t *testing.T, proxied wire.Server, n uint64, draw func(maker) random) {
	t.Helper()
	m := maker{rand.New(rand.NewPCG(n, 0))}
	r := draw(m)
	name, do, sent := "HTTP/1.1", protocol(wire.Server.HTTP1), r.fitHTTP1().Request
	if m.oneIn(2) {
		name, do, sent = "HTTP/2", wire.Server.HTTP2, r.fitHTTP2().Request
	}
	if d := compare(t, proxied, do, sent); d != "" {
		t.Errorf("seed %d over %s: %s\n%s", n, name, sent, d)
	}
}

type protocol func(wire.Server, context.Context, wire.Request) (wire.Response, error)

// compare sends r both ways and says what is different. What the API server
// says about itself changes now and then (a resourceVersion, a lease), so a
// difference counts only if its own answer was the same before and after.
func compare(t *testing.T, proxied wire.Server, do protocol, r wire.Request) string {
	t.Helper()
	send := func(s wire.Server) wire.Response {
		res, err := do(s, t.Context(), r)
		if err != nil {
			t.Errorf("%s: %v", r, err)
		}
		return res
	}
	before := send(direct())
	for range 6 {
		got := send(proxied)
		if gaveUp(before, got) || equal(r, before, got) {
			return ""
		}
		after := send(direct())
		if equal(r, before, after) {
			if got.FromMemory() && takesAnyState(r) {
				return wire.Diff(r, stable(withoutState(before)), stable(withoutState(got)))
			}
			return wire.Diff(r, stable(before), stable(got))
		}
		if equal(r, after, got) {
			return ""
		}
		before = after
	}
	t.Logf("no two answers to this are equal: %s\n%s", r, wire.Diff(r, before, send(direct())))
	return ""
}

// equal compares every byte, and if they differ, those that do not differ
// between any two answers.
func equal(r wire.Request, a, b wire.Response) bool {
	return wire.Diff(r, a, b) == "" || wire.Diff(r, stable(a), stable(b)) == ""
}

// gaveUp is where the API server breaks off without an answer, as it does when
// one of its handlers panics: the proxy then answers for it.
func gaveUp(direct, proxied wire.Response) bool {
	return direct.Code == 0 && proxied.Code == http.StatusServiceUnavailable
}
