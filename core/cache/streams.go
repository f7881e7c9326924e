package cache

import (
	"context"
	"errors"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/portico-proxy/portico/core/cache/internal/stream"
	"github.com/portico-proxy/portico/core/cache/wire"
)

// How long to leave alone what could not be cached.
const (
	retryTransient = 2 * time.Second
	retryRefused   = 30 * time.Second
	retryTooLarge  = 5 * time.Minute
)

// streams are the collections in memory, or parts of them. They begin when somebody asks and end
// when nobody has for a while.
type streams struct {
	source *stream.Source
	budget *stream.Budget
	// recordings is what coalesced answers may take together.
	recordings *stream.Budget
	idle       time.Duration
	log        logr.Logger
	// restored is told of resources whose revisions went backwards.
	restored func(schema.GroupResource)
	ended    tally // by reason
	forms    forms

	wg sync.WaitGroup
	mu sync.Mutex // guards following
	// ctx is nil before the cache has been started.
	ctx       context.Context
	serial    uint64 // of the newest entry
	resources map[schema.GroupVersionResource]*resource
	open      map[streamKey]*entry
	counts    map[collection]*counts
	closed    map[streamKey]time.Time // until when not to try again
	// definitions are followed once a custom resource has been asked for.
	definitions *stream.Stream
}

type streamKey struct {
	gvr    schema.GroupVersionResource
	format wire.Format
	scope  stream.Scope
}

// resource is what is known about a resource once learned is closed.
type resource struct {
	learned chan struct{}
	schema  *wire.Schema // nil if it cannot be cached
	until   time.Time    // when to ask again, if so
	// passing are reads that upstream answers because nothing is in memory yet.
	passing atomic.Int32 // 0 or 1
	// definition is that of a custom resource, guarded by streams.mu.
	definition *definition
}

// entry is one collection and its use.
type entry struct {
	*stream.Stream
	serial  uint64 // of no other entry
	counts  *counts
	writers map[form]*wire.Writer
	// flights holds a stream.Flights[*recorded] for each coalesced question, and
	// recordings is what all streams' may take together.
	flights    sync.Map
	recordings *stream.Budget
	users      atomic.Int64
	watchers   atomic.Int64 // of the users
	used       atomic.Int64 // when last, Unix nanoseconds
	// beside is how many others keep some of the same objects.
	beside atomic.Int64
	// slow says that somebody has waited for the load, which was under way, in vain.
	slow atomic.Bool
}

func newStreams(o Options) *streams {
	return &streams{
		source: &stream.Source{Transport: o.Upstream, Base: o.Base}, budget: &stream.Budget{Limit: o.MemoryBudget},
		recordings: &stream.Budget{Limit: maxRecordings}, idle: o.IdleStop, log: o.Log,
		resources: map[schema.GroupVersionResource]*resource{}, open: map[streamKey]*entry{}, closed: map[streamKey]time.Time{},
		counts: map[collection]*counts{},
	}
}

// run keeps streams until ctx ends and all of them have.
func (s *streams) run(ctx context.Context) {
	s.mu.Lock()
	s.ctx = ctx
	s.mu.Unlock()
	tick := time.NewTicker(min(max(s.idle/4, time.Second), staleAge/3))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			s.wg.Wait()
			return
		case <-tick.C:
			s.stopIdle()
			s.forgetClosed()
			s.checkStale()
		}
	}
}

// resource returns what is known about gvr, and begins to learn it if nothing is.
func (s *streams) resource(gvr schema.GroupVersionResource) *resource {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.resources[gvr]
	if s.ctx == nil || s.ctx.Err() != nil || (ok && !r.isStale()) {
		return r
	}
	// Without the request that it was read from.
	gvr = schema.GroupVersionResource{Group: strings.Clone(gvr.Group), Version: strings.Clone(gvr.Version), Resource: strings.Clone(gvr.Resource)}
	r = &resource{learned: make(chan struct{})}
	s.resources[gvr] = r
	s.wg.Go(func() { s.learn(s.ctx, gvr, r) })
	return r
}

// known returns how to read r's objects, nil if they cannot be cached or it is not
// known yet.
func (r *resource) known() *wire.Schema {
	select {
	case <-r.learned:
		return r.schema
	default:
		return nil
	}
}

// await waits for it to be known.
func (r *resource) await(ctx context.Context) *wire.Schema {
	select {
	case <-r.learned:
		return r.schema
	case <-ctx.Done():
		return nil
	}
}

// isStale reports whether r was found unfit long enough ago to ask again.
func (r *resource) isStale() bool {
	select {
	case <-r.learned:
		return r.schema == nil && time.Now().After(r.until)
	default:
		return false
	}
}

func (s *streams) learn(ctx context.Context, gvr schema.GroupVersionResource, r *resource) {
	defer close(r.learned)
	known, crd, err := s.read(ctx, gvr)
	if err != nil {
		r.until = time.Now().Add(retryRefused)
		if isTransient(err) {
			r.until = time.Now().Add(retryTransient)
		}
		s.log.V(1).Info("resource is not cached", "resource", gvr.String(), "reason", err.Error())
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if crd != nil && !s.isCurrent(gvr.GroupResource().String(), crd) {
		r.until = time.Now() // ask again
		return
	}
	r.schema, r.definition = known, crd
}

func (e *entry) release() {
	e.used.Store(time.Now().UnixNano())
	e.users.Add(-1)
}

// begin starts a stream. The caller holds s.mu.
func (s *streams) begin(k streamKey, known *wire.Schema) *entry {
	delete(s.closed, k)
	// It outlives the request that it was read from.
	k.gvr, k.scope.Namespace, k.scope.Value = known.Resource, strings.Clone(k.scope.Namespace), strings.Clone(k.scope.Value)
	s.serial++
	e := &entry{serial: s.serial, counts: s.count(k), writers: writersOf(known, k.format), recordings: s.recordings}
	e.Stream = stream.New(s.ctx, stream.Options{
		Schema: known, Format: k.format, Scope: k.scope, Source: s.source, Budget: s.budget, Counts: &e.counts.Counts, Log: s.log,
	})
	e.beside.Store(s.meet(k, 1))
	s.open[k] = e
	s.wg.Go(func() { e.giveBack(s.ctx) })
	s.wg.Go(func() {
		e.Run()
		e.land()
		s.end(k, e)
	})
	return e
}

// meet has n more be beside those that keep some of the same objects as k does: in
// another format or version, or in another part. It returns n for each of them. The
// caller holds s.mu.
func (s *streams) meet(k streamKey, n int64) (met int64) {
	for other, e := range s.open {
		if other != k && other.gvr.GroupResource() == k.gvr.GroupResource() && !other.scope.IsApart(k.scope) {
			e.beside.Add(n)
			met += n
		}
	}
	return met
}

// largeLoad is from how many bytes on what loading took is given back at once.
const largeLoad = 16 << 20

// giveBack returns memory that loading took and keeping does not. It would be
// used again only when the next large collection is loaded.
func (e *entry) giveBack(ctx context.Context) {
	st := e.Loaded(ctx)
	if st == nil {
		return
	}
	if objects, _ := st.Bytes(); objects > largeLoad {
		debug.FreeOSMemory()
	}
}

// writersOf returns what can be made of objects kept in format.
func writersOf(known *wire.Schema, format wire.Format) map[form]*wire.Writer {
	writers := map[form]*wire.Writer{
		{Format: format}:                known.NewWriter(format),
		{Format: format, partial: true}: known.NewPartialWriter(format),
	}
	if known.Custom {
		writers[form{Format: wire.Protobuf, partial: true}] = known.NewPartialWriter(wire.Protobuf)
	}
	return writers
}

// errIdle ends a stream that nobody uses.
var errIdle = errors.New("nobody asks for it")

func (s *streams) end(k streamKey, e *entry) {
	err := e.Err()
	s.ended.add(reasonFor(err))
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, k)
	s.meet(k, -1)
	switch {
	case errors.Is(err, errIdle), errors.Is(err, errRedefined), errors.Is(err, context.Canceled):
	case errors.Is(err, stream.ErrRestored):
		s.restored(k.gvr.GroupResource())
	case errors.Is(err, stream.ErrOverBudget):
		s.closed[k] = time.Now().Add(retryTooLarge)
		s.sayTooLarge(k)
	default:
		s.closed[k] = time.Now().Add(retryRefused)
		// A refusal is about a part only, or about us.
		if !apierrors.IsForbidden(err) && !apierrors.IsUnauthorized(err) {
			s.drop(k.gvr) // it may come back as another
		}
	}
	s.log.V(1).Info("stream ended", "resource", k.gvr.String(), "format", k.format.String(), "scope", k.scope.String(), "reason", err.Error())
}

// sayTooLarge logs once of each collection that there is no room for it: it is
// tried again and again. The caller holds s.mu.
func (s *streams) sayTooLarge(k streamKey) {
	if n := s.count(k); !n.tooLarge {
		n.tooLarge = true
		s.log.Info("collection does not fit into memory, and is read from the API server: see --cache-memory-limit", "resource", k.gvr.String(), "format", k.format.String())
	}
}

// forgetClosed drops what may be tried again, for callers can name any number of
// parts, and of resources that there are not.
func (s *streams) forgetClosed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, until := range s.closed {
		if time.Now().After(until) {
			delete(s.closed, k)
		}
	}
	for gvr, r := range s.resources {
		if r.isStale() {
			delete(s.resources, gvr)
		}
	}
}

func (s *streams) stopIdle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.open {
		if e.users.Load() == 0 && time.Since(time.Unix(0, e.used.Load())) > s.idle {
			e.Fail(errIdle)
		}
	}
}
