package stream

import (
	"errors"
	"net/http"
	"testing"
)

// loadOnDemand is load from an upstream that proves progress on demand.
func loadOnDemand(t *testing.T, s *Stream, b *breaker) *exchange {
	t.Helper()
	x := b.next()
	x.promise().event("ADDED", "a/1", 3).event("ADDED", "a/2", 4).bookmark(10, true)
	if st := s.Loaded(t.Context()); st.Applied != 10 || !s.IsAsked() {
		t.Fatalf("loaded at %d; asked: %t", st.Applied, s.IsAsked())
	}
	return x
}

// promise says that progress is proven on demand.
func (x *exchange) promise() *exchange {
	x.serve(func() { x.w.Header().Set(ProgressHeader, ProgressOnDemand) })
	return x
}

func TestProgressIsAskedFor(t *testing.T) {
	s, b := startBroken(t, 0, Scope{})
	x := loadOnDemand(t, s, b)
	questions := make(chan http.Header, 1)
	go func() {
		q := b.next()
		questions <- q.r.Header
		q.promise().event("MODIFIED", "a/1", 11).bookmark(12, false).bookmark(12, false).end()
	}()
	if rv, err := s.Current(t.Context()); rv != 12 || err != nil {
		t.Errorf("%d, %v", rv, err)
	}
	if got := (<-questions).Get(ProgressHeader); got != ProgressNow {
		t.Errorf("asked by %q", got)
	}
	if st := s.State(); st.Applied != 12 || st.Events() != 1 {
		t.Errorf("at %d with %d events", st.Applied, st.Events())
	}
	// The watch brings the same, and then more.
	x.event("MODIFIED", "a/1", 11).event("DELETED", "a/2", 13)
	if st := reach(t, s, 13); st.Events() != 2 || st.Len() != 1 {
		t.Errorf("%d events, %d objects", st.Events(), st.Len())
	}
}

// TestObjectsAreKnownAhead has upstream say that they are the same at 20, and then
// tell of what came and went on the way.
func TestObjectsAreKnownAhead(t *testing.T) {
	s, b := startBroken(t, 0, Scope{})
	x := loadOnDemand(t, s, b)
	at := s.State().End()
	go func() { b.next().promise().bookmark(11, false).bookmark(20, false).end() }()
	if rv, err := s.Current(t.Context()); rv != 20 || err != nil {
		t.Errorf("%d, %v", rv, err)
	}
	expect := func(applied, same, now uint64, objects int) {
		t.Helper()
		st := reach(t, s, now)
		got := st.Now()
		if st.Applied != applied || st.Same() != same || got.ResourceVersion != now || got.Len() != objects {
			t.Errorf("at %d, the same at %d, %d objects at %d; want %d, %d, %d at %d", st.Applied, st.Same(), got.Len(), got.ResourceVersion, applied, same, objects, now)
		}
		if exact, ok := st.At(now); !ok || exact.Len() != objects {
			t.Errorf("%d objects at exactly %d: %t", exact.Len(), now, ok)
		}
	}
	heard := func(n int) {
		t.Helper()
		for st := s.State(); st.Events() < n; st = s.State() {
			<-st.Changed()
		}
	}
	expect(11, 20, 20, 2)
	x.event("ADDED", "a/3", 15)
	heard(1)
	expect(15, 15, 20, 2)
	x.event("DELETED", "a/3", 18)
	heard(2)
	expect(18, 18, 20, 2)
	x.event("DELETED", "a/2", 21)
	heard(3)
	expect(21, 21, 21, 1)
	if e, on := s.State().Event(at); !on || e.ResourceVersion != 15 {
		t.Errorf("watchers hear of %+v", e)
	}
}

// TestOvertakenProofsAreNone has something happen before upstream says that objects
// are the same.
func TestOvertakenProofsAreNone(t *testing.T) {
	s, b := startBroken(t, 0, Scope{})
	x := loadOnDemand(t, s, b)
	go func() {
		q := b.next()
		q.promise()
		x.event("ADDED", "a/3", 12)
		q.event("ADDED", "a/3", 12) // so that it has been heard of
		q.bookmark(11, false).bookmark(20, false).end()
		b.next().list(21)
	}()
	if rv, err := s.Current(t.Context()); rv != 21 || err != nil {
		t.Errorf("%d, %v", rv, err)
	}
	if st := s.State(); st.Reached() != 12 {
		t.Errorf("known up to %d", st.Reached())
	}
}

// TestOnlyProofsAreProofs asks an upstream that has been another's place meanwhile:
// an API server's, one that cannot say in time, and one that forgets.
func TestOnlyProofsAreProofs(t *testing.T) {
	for name, answer := range map[string]func(*exchange){
		"a bookmark of an API server's": func(q *exchange) { q.bookmark(12, false).end() },
		"half a proof":                  func(q *exchange) { q.promise().bookmark(11, false).end() },
		"no bookmark":                   func(q *exchange) { q.promise().event("MODIFIED", "a/1", 11).end() },
		"what is forgotten":             func(q *exchange) { q.promise().expire().end() },
		"a failure":                     func(q *exchange) { q.refuse(http.StatusInternalServerError, "InternalError") },
	} {
		t.Run(name, func(t *testing.T) {
			s, b := startBroken(t, 0, Scope{})
			loadOnDemand(t, s, b)
			go func() {
				answer(b.next())
				probe := b.next()
				if got := probe.query.Get("limit"); got != "1" {
					t.Errorf("probed by %v", probe.query)
				}
				probe.list(20)
			}()
			if rv, err := s.Current(t.Context()); rv != 20 || err != nil {
				t.Errorf("%d, %v", rv, err)
			}
			if st := s.State(); st.Applied > 11 {
				t.Errorf("believed to be at %d", st.Applied)
			}
		})
	}
}

// TestAPIServerIsNotAskedAgain has a proxy leave, and an API server answer.
func TestAPIServerIsNotAskedAgain(t *testing.T) {
	s, b := startBroken(t, 0, Scope{})
	loadOnDemand(t, s, b).end()
	b.next().event("ADDED", "a/1", 3).bookmark(11, true)
	reach(t, s, 11)
	if s.IsAsked() {
		t.Error("it is to be asked")
	}
	go func() { b.next().list(5) }()
	if _, err := s.Current(t.Context()); !errors.Is(err, ErrRestored) {
		t.Errorf("got %v", err)
	}
}
