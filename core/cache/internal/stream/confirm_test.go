package stream

import (
	"io"
	"testing"
	"time"

	"github.com/portico-proxy/portico/core/cache/wire"
)

// TestConfirmedStatesAreAsOldAsTheirProof has a listing be compared late.
func TestConfirmedStatesAreAsOldAsTheirProof(t *testing.T) {
	s := newStream(t)
	var later time.Duration
	start := time.Now()
	s.now = func() time.Time { return start.Add(later) }
	s.reset([]*wire.Object{object(t, "a/1", 1)}, 5)
	listed := s.now()
	later = time.Minute
	if !s.Confirm(s.State(), 9, listed) || s.Age() != time.Minute {
		t.Errorf("%s old after a minute", s.Age())
	}
	s.progress(10)
	if later += time.Second; !s.Confirm(s.State(), 9, listed) || s.Age() != time.Second {
		t.Errorf("%s old though a bookmark came a second ago", s.Age())
	}
}

// TestWhatIsLoadedHasAnAge asks as soon as there is something to ask about.
func TestWhatIsLoadedHasAnAge(t *testing.T) {
	s := newStream(t)
	start := time.Now()
	s.now = func() time.Time { return start }
	if s.reset(nil, 5); s.Age() != 0 {
		t.Errorf("%s old", s.Age())
	}
}

// TestNothingIsConfirmedAfterTheEnd has a watcher compare a listing when the stream
// has given its memory back.
func TestNothingIsConfirmedAfterTheEnd(t *testing.T) {
	s := newStream(t)
	s.reset([]*wire.Object{object(t, "a/1", 1)}, 5)
	s.Fail(io.EOF)
	s.Run()
	if s.Confirm(s.State(), 9, s.now()) || s.budget.Used() != 0 {
		t.Errorf("confirmed, and %d bytes of the budget are lost", s.budget.Used())
	}
}
