package cache

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"sync"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/portico-proxy/portico/core/cache/internal/stream"
	"github.com/portico-proxy/portico/core/cache/wire"
	"github.com/portico-proxy/portico/core/telemetry"
)

// counts are what has been done with one collection. They outlive its streams.
type counts struct {
	stream.Counts
	memory, coalesced atomic.Int64 // answers
	stale             atomic.Int64 // those that upstream could not give
	slow              atomic.Int64 // watchers that fell off the history
	proofs            tally        // of reads of the newest state
	tooLarge          bool         // it has been logged; guarded by streams' mu
}

// answered counts an answer.
func (c *counts) answered(servedBy string) {
	switch servedBy {
	case servedByCoalesced:
		c.coalesced.Add(1)
	case telemetry.ServedByStale:
		c.stale.Add(1)
	default:
		c.memory.Add(1)
	}
}

// saved is how many requests the API server would have had more without us.
// Loading a collection costs some before it saves any.
func (c *counts) saved() int64 { return c.memory.Load() + c.coalesced.Load() - c.Upstream() }

// tally counts by name. The zero value is ready.
type tally struct {
	mu sync.Mutex // guards following
	n  map[string]int64
}

func (t *tally) add(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.n == nil {
		t.n = map[string]int64{}
	}
	t.n[name]++
}

func (t *tally) read() map[string]int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.n)
}

// isRead reports a request that reads objects, whether or not memory could
// answer it.
func isRead(r *http.Request) bool {
	info, ok := request.RequestInfoFrom(r.Context())
	return ok && info.IsResourceRequest && (info.Verb == "get" || info.Verb == "list" || info.Verb == "watch")
}

// ungranted says why a read goes upstream that carries no grant.
func (c *Cache) ungranted(r *http.Request) string {
	q, kept := c.question(r)
	if q == nil {
		return telemetry.PassedUnsupported
	}
	p := c.policy(q.gvr.GroupResource())
	f, ok := c.streams.forms.negotiate(r, q.verb, false)
	switch {
	case !ok:
		return telemetry.PassedUnsupported
	case !kept:
		return telemetry.PassedPolicy
	case q.isNewestGet() && p.Session == nil:
		return telemetry.PassedNewestGet
	case c.streams.isClosed(q, f.Format):
		return telemetry.PassedUnavailable
	}
	return telemetry.PassedNotGranted
}

// reasonFor names why a stream ended.
func reasonFor(err error) string {
	switch {
	case errors.Is(err, errIdle):
		return telemetry.EndedIdle
	case errors.Is(err, errRedefined):
		return telemetry.EndedRedefined
	case errors.Is(err, stream.ErrRestored):
		return telemetry.EndedRestored
	case errors.Is(err, stream.ErrOverBudget):
		return telemetry.EndedOverBudget
	case errors.Is(err, context.Canceled):
		return telemetry.EndedStopped
	}
	return telemetry.EndedRefused
}

// collection is what is counted together: metrics do not tell scopes apart.
type collection struct {
	gvr    schema.GroupVersionResource
	format wire.Format
}

// count returns the counts of k's collection. The caller holds s.mu.
func (s *streams) count(k streamKey) *counts {
	c := collection{k.gvr, k.format}
	n, ok := s.counts[c]
	if !ok {
		n = &counts{}
		s.counts[c] = n
	}
	return n
}

// Figures are what metrics tell of the cache.
func (c *Cache) Figures() telemetry.CacheFigures {
	s := c.streams
	f := telemetry.CacheFigures{Memory: s.budget.Used(), MemoryLimit: s.budget.Limit, Passed: c.passed.read(), Ended: s.ended.read()}
	s.mu.Lock()
	defer s.mu.Unlock()
	for of, n := range s.counts {
		one := n.figures()
		one.Group, one.Version, one.Resource, one.Format = of.gvr.Group, of.gvr.Version, of.gvr.Resource, of.format.String()
		for k, e := range s.open {
			if k.gvr == of.gvr && k.format == of.format {
				e.addTo(&one)
			}
		}
		f.Collections = append(f.Collections, one)
	}
	return f
}

func (c *counts) figures() telemetry.CollectionFigures {
	return telemetry.CollectionFigures{
		Slow: c.slow.Load(), Events: c.Events.Load(), Resets: c.Resets.Load(), Proofs: c.proofs.read(),
		Answers: map[string]int64{telemetry.ServedByCache: c.memory.Load(), telemetry.ServedByCoalesced: c.coalesced.Load(), telemetry.ServedByStale: c.stale.Load()},
		Upstream: map[string]int64{
			telemetry.ForList: c.Lists.Load(), telemetry.ForWatch: c.Watches.Load(), telemetry.ForProbe: c.Probes.Load(), telemetry.ForProgress: c.Asks.Load(),
			telemetry.ForCatchUp: c.CatchUps.Load(), telemetry.ForCoalesced: c.Fetches.Load(),
		},
	}
}

// addTo adds what e keeps. Of several streams the oldest state is told.
func (e *entry) addTo(f *telemetry.CollectionFigures) {
	st := e.State()
	if st == nil {
		return
	}
	if f.Streams == 0 || st.Applied < f.ResourceVersion {
		f.ResourceVersion = st.Applied
	}
	f.Streams++
	f.Watchers += e.watchers.Load()
	f.Age = max(f.Age, e.Age())
	f.Objects, f.History = f.Objects+st.Len(), f.History+st.Events()
	objects, history := st.Bytes()
	f.Bytes, f.HistoryBytes = f.Bytes+objects, f.HistoryBytes+history
}
