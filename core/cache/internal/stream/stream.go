package stream

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/client-go/tools/cache"

	"github.com/portico-proxy/portico/core/cache/wire"
)

var (
	// ErrOverBudget says that a collection does not fit into memory.
	ErrOverBudget = errors.New("collection exceeds the memory budget")
	// ErrRestored says that the API server's revision went backwards.
	ErrRestored = errors.New("the API server's revision went backwards")
)

// Options says what to keep and where from. All fields but Scope, Counts and Log
// are required.
type Options struct {
	Schema *wire.Schema
	Format wire.Format
	// Scope is the part of the collection to keep.
	Scope Scope
	// Source is where the collection comes from.
	Source *Source
	// Budget is shared by all streams.
	Budget *Budget
	// Counts are shared by the streams of one collection; nil counts for nobody.
	Counts *Counts
	Log    logr.Logger
}

// A Stream keeps one collection or a part of it. Use [Stream.Run] to keep it going.
type Stream struct {
	Schema *wire.Schema
	Format wire.Format
	Scope  Scope

	source *Source
	budget *Budget
	counts *Counts
	log    logr.Logger
	now    func() time.Time

	state    atomic.Pointer[State]
	bookmark atomic.Pointer[wire.Bookmark]
	warnings atomic.Pointer[[]string]
	heard    atomic.Int64 // when upstream last proved that we are current, Unix nanoseconds
	onDemand atomic.Bool  // whether upstream proves that to whoever asks
	barren   atomic.Bool  // whether it was waited for in vain when it was wanted last

	mu        sync.Mutex // guards following and the order of states
	dead      int        // events dropped from the array's front
	holes     int64      // bytes in packs that nobody reads
	accounted int64      // bytes reported to budget
	ended     bool       // they have been given back

	packer  wire.Packer   // of the list that is being read; the reflector's
	asked   uint64        // where the collection was when that was asked for; the reflector's
	early   delays        // of watches that came to nothing
	loading atomic.Int64  // bytes received before the first state
	loaded  chan struct{} // closed with the first state
	cancel  context.CancelCauseFunc
	ctx     context.Context
	refusal atomic.Pointer[refusal]
	arrives atomic.Bool   // what was asked for last does
	waiting atomic.Int64  // who wants the first state
	wanted  chan struct{} // has one of them who came lately
	probes  Flights[uint64]
	chase   chase
}

// New prepares a stream. It lives until ctx ends or it fails.
func New(ctx context.Context, o Options) *Stream {
	if o.Counts == nil {
		o.Counts = &Counts{}
	}
	s := &Stream{
		Schema: o.Schema, Format: o.Format, Scope: o.Scope, source: o.Source, budget: o.Budget, counts: o.Counts, log: o.Log,
		now: time.Now, loaded: make(chan struct{}), wanted: make(chan struct{}, 1),
	}
	s.ctx, s.cancel = context.WithCancelCause(ctx)
	return s
}

// Run keeps the collection equal to upstream's. It returns when the stream's
// context ends and nothing of it runs any more.
func (s *Stream) Run() {
	lw := &cache.ListWatch{ListWithContextFunc: s.list, WatchFuncWithContext: s.watch}
	log := s.log
	r := cache.NewReflectorWithOptions(lw, &item{}, (*store)(s), cache.ReflectorOptions{
		Name: s.Schema.Resource.Resource, TypeDescription: s.Schema.Kind, Logger: &log,
	})
	r.RunWithContext(logr.NewContext(s.ctx, s.log))
	s.probes.End()
	s.chase.end()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.budget.Add(-s.accounted)
	s.accounted, s.ended = 0, true
}

// Fail ends the stream for a reason that trying again would not mend soon.
func (s *Stream) Fail(err error) { s.cancel(err) }

// Done is closed when the stream has ended.
func (s *Stream) Done() <-chan struct{} { return s.ctx.Done() }

// Err is why the stream has ended.
func (s *Stream) Err() error { return context.Cause(s.ctx) }

// State is the collection now, nil before it has been loaded.
func (s *Stream) State() *State { return s.state.Load() }

// Bookmark returns what bookmarks of this resource look like, nil if upstream
// has not shown one yet.
func (s *Stream) Bookmark() *wire.Bookmark { return s.bookmark.Load() }

// Warnings are those that upstream sends with every answer of this resource: it
// is deprecated, say.
func (s *Stream) Warnings() []string {
	if w := s.warnings.Load(); w != nil {
		return *w
	}
	return nil
}

// hear notes that upstream has proven at a time that we were current then.
func (s *Stream) hear(at time.Time) {
	for now := at.UnixNano(); ; {
		if last := s.heard.Load(); now <= last || s.heard.CompareAndSwap(last, now) {
			return
		}
	}
}

// Age is how long ago upstream last proved that the collection is current.
func (s *Stream) Age() time.Duration {
	return max(0, s.now().Sub(time.Unix(0, s.heard.Load())))
}

// Loaded waits for the first state. It returns nil if ctx or the stream ends
// before that.
func (s *Stream) Loaded(ctx context.Context) *State {
	select {
	case <-s.loaded:
	case <-ctx.Done():
	case <-s.ctx.Done():
	}
	return s.State()
}

// Reach waits until the collection is known as it was at rv or later.
func (s *Stream) Reach(ctx context.Context, rv uint64) (*State, error) {
	for {
		st := s.State()
		if st.Reached() >= rv {
			return st, nil
		}
		select {
		case <-st.Changed():
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-s.ctx.Done():
			return nil, s.Err()
		}
	}
}

// store is how the reflector sees a stream.
type store Stream

func (s *store) Add(o any) error    { return (*Stream)(s).onEvent(o, false) }
func (s *store) Update(o any) error { return (*Stream)(s).onEvent(o, false) }
func (s *store) Delete(o any) error { return (*Stream)(s).onEvent(o, true) }
func (s *store) Resync() error      { return nil }

func (s *store) Replace(items []any, resourceVersion string) error {
	rv, err := wire.ParseResourceVersion(resourceVersion)
	if err != nil {
		return err
	}
	objects := make([]*wire.Object, 0, len(items))
	for _, i := range items {
		objects = append(objects, i.(*item).object)
	}
	if !(*Stream)(s).reset(objects, rv) && rv < s.asked {
		// A list is never of less than upstream had when it was asked for; a catch-up may
		// have come further since, which the watch goes on from. The reflector must not
		// be told of an error: it would leave its watch open.
		(*Stream)(s).Fail(ErrRestored)
	}
	return nil
}

func (s *store) Bookmark(resourceVersion string) error {
	rv, err := wire.ParseResourceVersion(resourceVersion)
	if err != nil {
		return err
	}
	(*Stream)(s).progress(rv)
	return nil
}

func (s *Stream) onEvent(o any, deleted bool) error {
	s.heard.Store(s.now().UnixNano())
	s.apply(o.(*item).object, deleted)
	return nil
}

var (
	_ cache.ReflectorStore         = (*store)(nil)
	_ cache.ReflectorBookmarkStore = (*store)(nil)
)
