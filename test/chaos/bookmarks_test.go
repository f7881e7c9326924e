package chaos

import (
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// throughTheFirst has clients write and read through the first proxy and read through no
// other, of a large collection, while disturb does its own.
func (w *world) throughTheFirst(t *testing.T, round int, disturb func()) *history {
	t.Helper()
	h := w.newHistory(t, 2*round+1)
	h.doors = w.doors[:1]
	h.run(uint64(round), func(time.Time) { disturb() })
	return h
}

// TestReadsWithoutBookmarksAreAnswered has every bookmark lost, or late, that could prove
// a collection current.
func TestReadsWithoutBookmarksAreAnswered(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute; -short was given")
	}
	w := newWorld(t, keep, make([][]string, 1))
	for round, f := range w.bookmarkFaults() {
		h := w.throughTheFirst(t, round, func() {
			if err := f.begin(); err != nil {
				t.Error(err)
			}
		})
		if err := f.end(); err != nil {
			t.Error(err)
		}
		h.check()
		if h.unanswered > 0 {
			t.Errorf("%s: %d lists were not answered", f.what, h.unanswered)
		}
	}
	if w.proxies[0].Gauge("portico_watch_cache_answers_total") == 0 {
		t.Error("nothing was answered from memory")
	}
}

// TestProgressWithoutProofIsFoundOut has bookmarks overtake the events that they speak
// of: what follows is what a proxy would do that took progress for granted.
func TestProgressWithoutProofIsFoundOut(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute; -short was given")
	}
	w := newWorld(t, keep, make([][]string, 1))
	for _, one := range w.watches {
		one.Delay(0, lateBookmarks)
	}
	// On a machine that is busy, what is lost may have come another way before.
	for round := range 5 {
		if w.throughTheFirst(t, round, func() {}).verdict() == porcupine.Illegal {
			return
		}
	}
	t.Error("nothing was found out")
}
