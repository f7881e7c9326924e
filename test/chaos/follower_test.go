package chaos

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"testing"

	"github.com/portico-proxy/portico/core/cache/cachetest"
)

// collection is what followers follow: all that clients write, of all rounds.
const collection = "/api/v1/configmaps?labelSelector=chaos"

// follower keeps a copy of the collection as an informer does: it lists, watches
// from there, goes on elsewhere where a watch ends, and lists again only if it is
// told that its resourceVersion is too old.
type follower struct {
	doors []door
	r     *rand.Rand

	mu       sync.Mutex // guards following
	state    map[string]uint64
	segments []*segment
	wrong    []string
}

// segment is what a follower heard between two lists.
type segment struct {
	from, to uint64
	events   []uint64 // their resourceVersions
}

// follow begins to follow until the test ends.
func (w *world) follow(r *rand.Rand) *follower {
	f := &follower{doors: w.doors, r: r}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			f.once(ctx)
		}
	})
	w.t.Cleanup(func() { cancel(); wg.Wait() })
	return f
}

// once lists, or watches until the watch ends.
func (f *follower) once(ctx context.Context) {
	d := f.doors[f.r.IntN(len(f.doors))]
	if len(f.segments) == 0 {
		f.list(ctx, d)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	s := f.segments[len(f.segments)-1]
	code := d.watch(ctx, fmt.Sprintf("%s&watch=true&allowWatchBookmarks=true&timeoutSeconds=%d&resourceVersion=%d", collection, 3+f.r.IntN(10), s.to),
		func(kind string, o answer) bool {
			f.hear(kind, o)
			return true
		})
	if code == http.StatusGone {
		f.list(ctx, d)
	}
}

func (f *follower) list(ctx context.Context, d door) {
	a, code := d.do(ctx, http.MethodGet, collection, "", "")
	if code != http.StatusOK {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := len(f.segments); n > 0 && a.rv() < f.segments[n-1].to {
		f.complain("a list at %d, after %d", a.rv(), f.segments[n-1].to)
	}
	f.state = map[string]uint64{}
	for _, o := range a.Items {
		f.state[nameOf(o)] = o.rv()
	}
	f.segments = append(f.segments, &segment{from: a.rv(), to: a.rv()})
}

func nameOf(o answer) string { return o.Metadata.Namespace + "/" + o.Metadata.Name }

func (f *follower) complain(format string, args ...any) {
	f.wrong = append(f.wrong, fmt.Sprintf(format, args...))
}

// hear takes one event and notes what cannot be.
func (f *follower) hear(kind string, o answer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.segments[len(f.segments)-1]
	if kind == "BOOKMARK" {
		if o.rv() < s.to {
			f.complain("a bookmark at %d, after %d", o.rv(), s.to)
		}
		s.to = max(s.to, o.rv())
		return
	}
	name := nameOf(o)
	_, there := f.state[name]
	if o.rv() <= s.to {
		f.complain("%s %s at %d, after %d", kind, name, o.rv(), s.to)
	}
	if there != (kind != "ADDED") {
		f.complain("%s %s at %d, there before: %t", kind, name, o.rv(), there)
	}
	s.to = max(s.to, o.rv())
	s.events = append(s.events, o.rv())
	if kind == "DELETED" {
		delete(f.state, name)
		return
	}
	f.state[name] = o.rv()
}

// holds reports whether the follower's copy is like want.
func (f *follower) holds(want map[string]uint64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Equal(f.state, want)
}

// settle waits for all followers to have what there is in the end.
func (w *world) settle(t *testing.T, crowd []*follower) {
	t.Helper()
	w.calm(t)
	var want map[string]uint64
	until(t, "a last list", func() bool {
		a, code := w.direct.do(t.Context(), http.MethodGet, collection, cachetest.JSON, "")
		want = map[string]uint64{}
		for _, o := range a.Items {
			want[nameOf(o)] = o.rv()
		}
		return code == http.StatusOK
	})
	for i, f := range crowd {
		until(t, fmt.Sprintf("follower %d to have %d objects", i, len(want)), func() bool { return f.holds(want) })
	}
}

// compare says what followers heard that cannot be, and what one missed that
// another heard.
func compare(crowd []*follower) []string {
	var all []uint64
	var wrong []string
	for i, f := range crowd {
		f.mu.Lock()
		for _, complaint := range f.wrong {
			wrong = append(wrong, fmt.Sprintf("follower %d: %s", i, complaint))
		}
		for _, s := range f.segments {
			all = append(all, s.events...)
		}
		f.mu.Unlock()
	}
	slices.Sort(all)
	all = slices.Compact(all)
	for i, f := range crowd {
		f.mu.Lock()
		for _, s := range f.segments {
			for _, rv := range s.missed(all) {
				wrong = append(wrong, fmt.Sprintf("follower %d missed the event at %d", i, rv))
			}
		}
		f.mu.Unlock()
	}
	return wrong
}

// missed are those of all that are within s and that it has not.
func (s *segment) missed(all []uint64) []uint64 {
	var missed []uint64
	for _, rv := range all {
		if _, heard := slices.BinarySearch(s.events, rv); rv > s.from && rv <= s.to && !heard {
			missed = append(missed, rv)
		}
	}
	return missed
}
