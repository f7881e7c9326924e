package stream

import (
	"slices"
	"strings"
	"time"

	"github.com/portico-proxy/portico/core/cache/wire"
)

// History is bounded by what the collection itself weighs, so that memory stays
// proportional to it.
const (
	historyBytes    = 4 << 20 // and an eighth of the collection
	historyEvents   = 100_000
	eventOverhead   = 1536 // an Event and the copied nodes of the tree
	compactionSlack = 1024
)

// publish makes next the state. The caller holds s.mu.
func (s *Stream) publish(next *State) {
	next.changed = make(chan struct{})
	last := s.state.Swap(next)
	s.account(next)
	if last == nil {
		close(s.loaded)
		return
	}
	close(last.changed)
}

// account tells the budget what the collection weighs now.
func (s *Stream) account(next *State) {
	total := next.bytes + next.history + s.holes
	delta := total - s.accounted
	s.accounted = total
	if !s.budget.Add(delta) && delta > 0 {
		s.Fail(ErrOverBudget)
	}
}

// reset starts anew from a list at rv. Cursors into what was before have fallen
// off: nobody knows what happened in between. It reports false if the collection is
// known at a later one.
func (s *Stream) reset(objects []*wire.Object, rv uint64) bool {
	slices.SortFunc(objects, func(a, b *wire.Object) int { return strings.Compare(a.Key, b.Key) })
	next := &State{Applied: rv, Altered: rv, Oldest: rv, objects: newTree()}
	for _, o := range objects {
		next.objects.ReplaceOrInsert(o)
		next.bytes += int64(o.Size())
	}
	next.base = next.objects
	s.mu.Lock()
	defer s.mu.Unlock()
	if last := s.state.Load(); last != nil {
		if rv < last.Applied {
			return false
		}
		next.first, next.ahead = uint64(last.End())+1, last.aheadOf(rv)
	}
	s.counts.Resets.Add(1)
	s.dead, s.holes = 0, 0
	s.hear(s.now()) // before anybody asks how old it is
	s.publish(next)
	return true
}

// apply moves the collection forward by one event. Events come from two ordered
// and complete sources, the watch and the catch-up watch, so that one that lies
// behind the collection has been applied before.
func (s *Stream) apply(o *wire.Object, deleted bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := s.state.Load()
	if last == nil {
		return
	}
	previous, _ := last.objects.Get(o)
	if isKnown(last, o, previous, deleted) {
		return
	}
	s.counts.Events.Add(1)
	next := &State{Applied: o.ResourceVersion, Altered: o.ResourceVersion, Oldest: last.Oldest, ahead: last.aheadOf(o.ResourceVersion), base: last.base, bytes: last.bytes, first: last.first, history: last.history}
	next.objects = last.objects.Clone()
	e := &Event{ResourceVersion: o.ResourceVersion, Object: o, Previous: previous, Deleted: deleted, bytes: eventOverhead}
	if deleted {
		next.objects.Delete(o)
		e.bytes += int64(o.Size())
	} else {
		next.objects.ReplaceOrInsert(o)
		next.bytes += int64(o.Size())
	}
	if previous != nil {
		next.bytes -= int64(previous.Size())
		e.bytes += int64(previous.Size())
	}
	e.after = next.objects
	next.events = last.events
	if previous != nil || !deleted {
		next.events, next.history = append(last.events, e), last.history+e.bytes
	}
	s.trim(next)
	s.publish(next)
}

// isKnown reports whether an event has been applied before. Several deletions
// may share one resourceVersion: etcd revokes a lease in one transaction.
func isKnown(last *State, o, previous *wire.Object, deleted bool) bool {
	switch {
	case o.ResourceVersion != last.Applied:
		return o.ResourceVersion < last.Applied
	case previous == nil:
		return deleted
	}
	return previous.ResourceVersion >= o.ResourceVersion
}

// trim forgets the oldest events. Those of one resourceVersion go together: a
// watch cannot begin in the middle of a revision.
func (s *Stream) trim(next *State) {
	limit := historyBytes + next.bytes/8
	drop := 0
	for drop < len(next.events)-1 && (next.history > limit || len(next.events)-drop > historyEvents) {
		rv := next.events[drop].ResourceVersion
		for drop < len(next.events)-1 && next.events[drop].ResourceVersion == rv {
			next.history -= next.events[drop].bytes
			next.base, next.Oldest = next.events[drop].after, rv
			s.leave(next, next.events[drop].Previous)
			drop++
		}
	}
	next.events, next.first = next.events[drop:], next.first+uint64(drop)
	// The array keeps what was dropped alive until it is left behind.
	if s.dead += drop; s.dead > len(next.events)+compactionSlack {
		next.events, s.dead = slices.Clone(next.events), 0
	}
}

// leave lets go of an object that only history kept. What else lies in its pack
// moves out once that has become sparse.
func (s *Stream) leave(next *State, o *wire.Object) {
	if o == nil {
		return
	}
	gone, sparse := o.Leave()
	s.holes += int64(gone)
	if sparse == nil {
		return
	}
	for _, key := range sparse.Keys() {
		if o, ok := next.objects.Get(&wire.Object{Key: key}); ok && o.Pack() == sparse {
			next.objects.ReplaceOrInsert(o.Unpacked())
		}
	}
}

// progress notes that nothing happened up to rv.
func (s *Stream) progress(rv uint64) {
	s.heard.Store(s.now().UnixNano())
	s.barren.Store(false)
	s.mu.Lock()
	defer s.mu.Unlock()
	last := s.state.Load()
	if last == nil || rv <= last.Applied {
		return
	}
	next := *last
	next.Applied, next.ahead = rv, last.aheadOf(rv)
	s.publish(&next)
}

// aheadOf is what is ahead of rv.
func (s *State) aheadOf(rv uint64) ahead {
	if s.ahead.ResourceVersion > rv {
		return s.ahead
	}
	return ahead{}
}

// Confirm notes that upstream had the objects of st, as they were Here, at rv as well:
// that is known since at. It reports false if they have changed since, or are known at
// a later one, or the stream has ended.
func (s *Stream) Confirm(st *State, rv uint64, at time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := s.state.Load()
	if s.ended || last == nil {
		return false
	}
	s.hear(at)
	if last.End() != st.End() || last.Applied < st.Applied || rv <= last.Reached() {
		return last.Reached() >= rv
	}
	next := *last
	next.ahead = ahead{Snapshot: Snapshot{ResourceVersion: rv, objects: last.objects}, at: last.End()}
	s.publish(&next)
	return true
}
