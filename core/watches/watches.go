// Package watches knows which watches are open, and ends those whose callers would
// be shown something else by the policies that have come into force since.
package watches

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/portico-proxy/portico/core/pipeline"
	"github.com/portico-proxy/portico/core/view"
)

const (
	// patience is how long it may take to find out whose a watch is.
	patience = 10 * time.Second
	// atOnce is how many watches are judged at the same time: most take no time, and
	// some a question to the API server.
	atOnce = 8
)

// A Watch is one that is open.
type Watch struct {
	// Request is what has been asked for, as it goes on to whoever answers it. Its
	// context does not end.
	Request *http.Request

	ctx context.Context // ends with the watch
	end func()
	by  []any // what has narrowed it on its way
}

// End ends the watch with 410, so that its client lists again.
func (w *Watch) End() { w.end() }

// Context ends with the watch.
func (w *Watch) Context() context.Context { return w.ctx }

// A Judge says what is shown under one configuration.
type Judge struct {
	// Who finds out whose a request is, of which nobody had to know as it began.
	Who func(*http.Request) *http.Request
	// Sees returns what narrows what a watch shows: values that are equal for as long
	// as that shows the same. What cannot be told narrows.
	Sees func(*Watch) []any
	// Met returns those of them that a watch that begins has met on its way, whatever
	// has come into force since it did.
	Met func(*Watch) []any
}

// Open are the watches that are open. It outlives every configuration. A nil one
// knows none.
type Open struct {
	log   logr.Logger
	woken chan struct{} // has room for one

	mu    sync.Mutex // guards following
	judge *Judge     // by the configuration that is in force
	all   map[*Watch]bool
	due   map[*Watch]bool // to be judged
}

// New returns an Open that judges once it has been started.
func New(log logr.Logger) *Open {
	return &Open{log: log, woken: make(chan struct{}, 1), all: map[*Watch]bool{}, due: map[*Watch]bool{}}
}

// Before returns a filter that does what f does, and before that takes note of
// watches. All that are open are judged again by j, and none later by another before
// it.
func (o *Open) Before(f pipeline.Filter, j *Judge) pipeline.Filter {
	if o == nil {
		return f
	}
	o.mu.Lock()
	o.judge = j
	o.mu.Unlock()
	o.Again()
	return &noting{f, o, j}
}

// Again has all watches judged again: policies have not changed, but what they
// depend on has.
func (o *Open) Again() {
	o.mu.Lock()
	for w := range o.all {
		o.due[w] = true
	}
	o.mu.Unlock()
	o.wake()
}

func (o *Open) wake() {
	select {
	case o.woken <- struct{}{}:
	default: // it has been said
	}
}

// enter takes note of a watch that began under j.
func (o *Open) enter(w *Watch, j *Judge) (leave func()) {
	o.mu.Lock()
	o.all[w] = true
	if o.judge != j { // all have been judged, but this one
		o.due[w] = true
	}
	o.mu.Unlock()
	o.wake()
	return func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		delete(o.all, w)
		delete(o.due, w)
	}
}

// Start judges watches until ctx ends.
func (o *Open) Start(ctx context.Context) error {
	for {
		select {
		case <-o.woken:
			o.judgeDue(ctx)
		case <-ctx.Done():
			return nil
		}
	}
}

func (o *Open) judgeDue(ctx context.Context) {
	o.mu.Lock()
	due, judge := o.due, o.judge
	o.due = map[*Watch]bool{}
	o.mu.Unlock()
	var judging sync.WaitGroup
	free := make(chan struct{}, atOnce)
	ended := make(chan struct{}, len(due))
	for w := range due {
		free <- struct{}{}
		judging.Go(func() {
			if judge.ends(ctx, w) {
				w.End()
				ended <- struct{}{}
			}
			<-free
		})
	}
	judging.Wait()
	if len(ended) > 0 {
		o.log.Info("watches ended, as policies show their callers something else", "watches", len(ended))
	}
}

// ends reports whether w would be narrowed by something that it has not met.
func (j *Judge) ends(ctx context.Context, w *Watch) bool {
	if _, known := request.UserFrom(w.Request.Context()); !known {
		w.Request = j.named(ctx, w.Request)
	}
	return slices.ContainsFunc(j.Sees(w), func(one any) bool { return !slices.Contains(w.by, one) })
}

// named returns r with its caller, if that can be found out.
func (j *Judge) named(ctx context.Context, r *http.Request) *http.Request {
	asking, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), patience)
	defer cancel()
	defer context.AfterFunc(ctx, cancel)()
	named := j.Who(r.WithContext(asking))
	if caller, known := request.UserFrom(named.Context()); known {
		return r.WithContext(request.WithUser(r.Context(), caller))
	}
	return r
}

// noting takes note of watches.
type noting struct {
	pipeline.Filter
	open  *Open
	judge *Judge
}

func (n *noting) ServeHTTP(w http.ResponseWriter, r *http.Request, next pipeline.Handler) error {
	if info, ok := request.RequestInfoFrom(r.Context()); !ok || info.Verb != "watch" {
		return n.Filter.ServeHTTP(w, r, next)
	}
	ctx, end := view.WithEnd(r.Context())
	one := &Watch{Request: headOf(r), ctx: r.Context(), end: end}
	one.by = n.judge.Met(one)
	defer n.open.enter(one, n.judge)()
	return n.Filter.ServeHTTP(w, r.WithContext(ctx), next)
}

// headOf is r without what cannot be kept: others write to its header.
func headOf(r *http.Request) *http.Request {
	head := r.WithContext(context.WithoutCancel(r.Context()))
	head.Header, head.Body = r.Header.Clone(), http.NoBody
	return head
}

var _ pipeline.Filter = (*noting)(nil)
