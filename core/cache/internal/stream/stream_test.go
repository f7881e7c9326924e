package stream

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/portico-proxy/portico/core/cache/wire"
)

var pods = wire.Builtin(corev1.SchemeGroupVersion.WithResource("pods"), "Pod", true)

func object(t testing.TB, key string, rv uint64) *wire.Object {
	t.Helper()
	ns, name, _ := strings.Cut(key, "/")
	o, err := pods.Parse(wire.JSON, fmt.Appendf(nil, `{"metadata":{"name":%q,"namespace":%q,"resourceVersion":"%d"}}`, name, ns, rv))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func newStream(t testing.TB) *Stream {
	t.Helper()
	return New(t.Context(), Options{Schema: pods, Budget: &Budget{}, Log: logr.Discard()})
}

func contents(s Snapshot, namespace, from string) []string {
	var out []string
	s.Ascend(namespace, from, func(o *wire.Object) bool {
		out = append(out, o.Key+"@"+strconv.FormatUint(o.ResourceVersion, 10))
		return true
	})
	return out
}

func TestSnapshotsStayAsTheyWere(t *testing.T) {
	s := newStream(t)
	s.reset([]*wire.Object{object(t, "b/x", 2), object(t, "a/y", 3), object(t, "a-b/z", 1)}, 5)
	s.apply(object(t, "a/x", 6), false)
	s.apply(object(t, "a/y", 7), false)
	s.apply(object(t, "b/x", 8), true)
	s.progress(10)
	st := s.State()
	for rv, want := range map[uint64][]string{
		5:  {"a-b/z@1", "a/y@3", "b/x@2"},
		6:  {"a-b/z@1", "a/x@6", "a/y@3", "b/x@2"},
		7:  {"a-b/z@1", "a/x@6", "a/y@7", "b/x@2"},
		8:  {"a-b/z@1", "a/x@6", "a/y@7"},
		10: {"a-b/z@1", "a/x@6", "a/y@7"},
	} {
		at, ok := st.At(rv)
		if d := cmp.Diff(want, contents(at, "", "")); !ok || d != "" {
			t.Errorf("at %d: %v %s", rv, ok, d)
		}
	}
	for _, rv := range []uint64{4, 11} {
		if _, ok := st.At(rv); ok {
			t.Errorf("state at %d should be unknown", rv)
		}
	}
	if d := cmp.Diff([]string{"a/y@7"}, contents(st.Now(), "a", "a/x\x00")); d != "" {
		t.Error(d)
	}
}

func TestEventsAreAppliedOnce(t *testing.T) {
	s := newStream(t)
	s.reset([]*wire.Object{object(t, "a/1", 1), object(t, "a/2", 2)}, 5)
	for range 2 { // the watch and the catch-up watch
		s.apply(object(t, "a/3", 6), false)
		// A lease's revocation deletes two objects in one revision.
		s.apply(object(t, "a/1", 7), true)
		s.apply(object(t, "a/2", 7), true)
	}
	st := s.State()
	if st.Events() != 3 || st.Applied != 7 {
		t.Errorf("%d events, applied %d", st.Events(), st.Applied)
	}
	if d := cmp.Diff([]string{"a/3@6"}, contents(st.Now(), "", "")); d != "" {
		t.Error(d)
	}
}

func TestCursorsReplayAndFallOff(t *testing.T) {
	s := newStream(t)
	s.reset(nil, 5)
	for rv := uint64(6); rv < 9; rv++ {
		s.apply(object(t, "a/x", rv), false)
	}
	c, ok := s.State().From(6)
	if e, on := s.State().Event(c); !ok || !on || e.ResourceVersion != 7 || e.Previous.ResourceVersion != 6 {
		t.Errorf("got %+v %v %v", e, ok, on)
	}
	if e, on := s.State().Event(s.State().End()); e != nil || !on {
		t.Errorf("behind the end: %v %v", e, on)
	}
	if _, ok := s.State().From(4); ok {
		t.Error("a watch from before the list must be refused")
	}
	s.reset(nil, 20)
	if _, on := s.State().Event(c); on {
		t.Error("a cursor survived a new list")
	}
	if _, on := s.State().Event(s.State().End()); !on {
		t.Error("a new cursor fell off")
	}
}

func TestHistoryIsBounded(t *testing.T) {
	s := newStream(t)
	s.reset(nil, 1)
	var rv uint64 = 1
	for range 20_000 {
		rv++
		s.apply(object(t, "a/"+strconv.Itoa(int(rv%50)), rv), false)
	}
	st := s.State()
	if _, history := st.Bytes(); history > historyBytes+1<<20 {
		t.Errorf("history of %d bytes", history)
	}
	if cap(st.events) > 4*len(st.events)+4*compactionSlack {
		t.Errorf("array of %d for %d events", cap(st.events), len(st.events))
	}
	at, ok := st.At(st.Oldest)
	if !ok || at.Len() != 50 {
		t.Errorf("base at %d: %v, %d objects", st.Oldest, ok, at.Len())
	}
	if _, ok := st.At(st.Oldest - 1); ok {
		t.Error("an old state is still there")
	}
}

func TestReadersNeverSeeTornStates(t *testing.T) {
	s := newStream(t)
	s.reset(nil, 1)
	const last = 1500 // few enough for all to be remembered
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			c, _ := s.State().From(1)
			for seen := uint64(1); seen < last; {
				st := s.State()
				if n := st.Now().Len(); uint64(n) != min(st.Applied-1, 100) {
					t.Errorf("%d objects at %d", n, st.Applied)
					return
				}
				e, on := st.Event(c)
				switch {
				case !on:
					t.Error("fell off")
					return
				case e == nil:
					<-st.Changed()
					continue
				case e.ResourceVersion != seen+1:
					t.Errorf("%d after %d", e.ResourceVersion, seen)
					return
				}
				seen = e.ResourceVersion
				c++
			}
		})
	}
	for rv := uint64(2); rv <= last; rv++ {
		s.apply(object(t, "a/"+strconv.Itoa(int(rv%100)), rv), false)
	}
	wg.Wait()
}

func TestMergedSourcesEqualOne(t *testing.T) {
	// Two sources deliver the same ordered events at different speeds.
	r := rand.New(rand.NewPCG(1, 2))
	type step struct {
		o       *wire.Object
		deleted bool
	}
	var steps []step
	live := map[string]bool{}
	for rv := uint64(2); rv < 2000; rv++ {
		key := "a/" + strconv.Itoa(r.IntN(40))
		deleted := live[key] && r.IntN(3) == 0
		live[key] = !deleted
		steps = append(steps, step{object(t, key, rv), deleted})
	}
	one, two := newStream(t), newStream(t)
	one.reset(nil, 1)
	two.reset(nil, 1)
	for _, st := range steps {
		one.apply(st.o, st.deleted)
	}
	for main, other := 0, 0; main < len(steps); {
		if at := &main; r.IntN(2) == 0 || other == len(steps) {
			two.apply(steps[*at].o, steps[*at].deleted)
			main++
		} else {
			two.apply(steps[other].o, steps[other].deleted)
			other++
		}
	}
	if d := cmp.Diff(contents(one.State().Now(), "", ""), contents(two.State().Now(), "", "")); d != "" {
		t.Error(d)
	}
	if one.State().Events() != two.State().Events() {
		t.Errorf("%d events and %d", one.State().Events(), two.State().Events())
	}
}

func TestBudgetEndsTheStream(t *testing.T) {
	s := New(t.Context(), Options{Schema: pods, Budget: &Budget{Limit: 1000}, Log: logr.Discard()})
	s.reset([]*wire.Object{object(t, "a/1", 1)}, 5)
	if s.Err() != nil {
		t.Fatal(s.Err())
	}
	s.apply(object(t, "a/2", 6), false)
	if !errors.Is(s.Err(), ErrOverBudget) {
		t.Errorf("got %v", s.Err())
	}
}

func TestFlightsThatHaveLeftAreNotJoined(t *testing.T) {
	var f Flights[int]
	sent, release := make(chan int), make(chan struct{})
	n := 0
	fetch := func() (int, error) {
		n++
		sent <- n
		<-release
		return n, nil
	}
	results := make(chan int, 10)
	ask := func() { v, _ := f.Do(context.Background(), fetch); results <- v }
	go ask()
	<-sent // the first is on its way
	joined := make(chan struct{})
	for range 5 {
		go func() { joined <- struct{}{}; ask() }()
	}
	for range 5 {
		<-joined
	}
	release <- struct{}{}
	if v := <-results; v != 1 {
		t.Errorf("first got %d", v)
	}
	// However the five arrived, none of them got the first one's answer.
	for got := 0; got < 5; {
		select {
		case <-sent:
			release <- struct{}{}
		case v := <-results:
			got++
			if v == 1 {
				t.Error("joined a flight that had left")
			}
		}
	}
	f.End()
	if _, err := f.Do(t.Context(), fetch); err == nil {
		t.Error("a flight left after the end")
	}
}
