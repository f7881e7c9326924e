package wasm

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
)

// fullPause is how long a collection that did not fit is left alone.
const fullPause = 5 * time.Minute

// follower keeps collections true, each for as long as a module wants it. Modules
// that want the same share it.
type follower struct {
	client dynamic.Interface // nil follows nothing
	memory *memory
	log    logr.Logger
	run    sync.WaitGroup

	mu    sync.Mutex // guards following
	ctx   context.Context
	again func() // something is known, or is not any more
	all   map[v1alpha1.ContextResource]*followed
}

// followed is a collection that is kept true.
type followed struct {
	*collection
	follower *follower
	end      context.CancelFunc // nil until it runs
}

func newFollower(client dynamic.Interface, limit int64, log logr.Logger) *follower {
	return &follower{client: client, memory: &memory{limit: limit}, log: log, all: map[v1alpha1.ContextResource]*followed{}}
}

// start follows what is wanted until ctx ends, and calls again whenever another
// resource is known, or is not any more.
func (f *follower) start(ctx context.Context, again func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ctx, f.again = ctx, again
	for _, one := range f.all {
		f.begin(one)
	}
}

// wait returns when nothing runs any more. The context of start must have ended.
func (f *follower) wait() {
	f.mu.Lock() // whoever had it before has begun what he would
	begun := &f.run
	f.mu.Unlock()
	begun.Wait()
}

// running is called by who holds f.mu.
func (f *follower) running() bool { return f.ctx != nil && f.ctx.Err() == nil }

// begin is called by who holds f.mu.
func (f *follower) begin(one *followed) {
	if !f.running() || f.client == nil {
		return
	}
	var ctx context.Context
	ctx, one.end = context.WithCancel(f.ctx)
	f.run.Go(func() { one.follow(ctx) })
}

// know returns what a module knows that may look these resources up, and begins to
// follow them.
func (f *follower) know(resources []v1alpha1.ContextResource) *Known {
	f.mu.Lock()
	defer f.mu.Unlock()
	return knownOf(resources, func(r v1alpha1.ContextResource) *collection {
		one := f.all[r]
		if one == nil {
			one = &followed{collection: newCollection(r, f.memory), follower: f}
			f.all[r] = one
			f.begin(one)
		}
		return one.collection
	})
}

// keep ends following what is not wanted.
func (f *follower) keep(wanted map[v1alpha1.ContextResource]bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for r, one := range f.all {
		if wanted[r] {
			continue
		}
		if one.end != nil {
			one.end()
		}
		delete(f.all, r)
	}
}

// news has the policies put in force anew. Nobody may hold a lock.
func (f *follower) news() {
	f.mu.Lock()
	again := f.again
	f.mu.Unlock()
	again()
}

// follow keeps the objects true until ctx ends.
func (c *followed) follow(ctx context.Context) {
	defer c.lose(errNotKnown)
	for {
		c.reflect(ctx)
		select { // it did not fit
		case <-ctx.Done():
			return
		case <-time.After(fullPause):
		}
	}
}

// reflect returns when ctx ends, or there is no room for the objects.
func (c *followed) reflect(ctx context.Context) {
	ctx, stop := context.WithCancel(ctx)
	a := &attempt{followed: c, ctx: ctx, stop: stop}
	defer a.forgetRead() // when no page can be counted any more
	defer stop()
	r := cache.NewReflectorWithOptions(a.source(), nil, a, cache.ReflectorOptions{Name: nameOf(c.resource)})
	r.RunWithContext(klog.NewContext(ctx, logr.Discard()))
}

// failed notes why objects cannot be read. A server that does not answer is no
// reason to forget what it said; one that refuses is.
func (a *attempt) failed(err error) {
	if a.ctx.Err() != nil {
		return
	}
	log, was := a.follower.log.WithValues("resource", nameOf(a.resource)), a.err()
	refused := apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) || apierrors.IsNotFound(err) || errors.Is(err, errNoMemory)
	if was == nil && !refused {
		if !a.silent.Swap(true) {
			log.Info("what filters look up is not followed for now; they keep what is known", "reason", err.Error())
		}
		return
	}
	now := fmt.Errorf("%w: %s: %w", errNotKnown, nameOf(a.resource), err)
	if was != nil && was.Error() == now.Error() {
		return
	}
	a.lose(now)
	log.Error(err, "what filters look up is not known")
	a.follower.news()
}
