// Package stream keeps one collection of objects equal to the API server's, as
// bytes, and lets any number of readers look at it and follow it without locks.
package stream

import (
	"strings"
	"sync/atomic"

	"github.com/google/btree"

	"github.com/portico-proxy/portico/core/cache/wire"
)

// degree of the trees: an event copies the nodes on one path, so small nodes
// keep history cheap.
const degree = 16

type tree = btree.BTreeG[*wire.Object]

func newTree() *tree {
	return btree.NewG(degree, func(a, b *wire.Object) bool { return a.Key < b.Key })
}

// A State is a collection at one moment. It never changes.
type State struct {
	// Applied is the resourceVersion that the collection has reached: it is
	// exactly what the API server had at it.
	Applied uint64
	// Altered is the resourceVersion of the last change, or of the list that all
	// began with: there is nothing to see that is later.
	Altered uint64
	// Oldest is the earliest resourceVersion that can still be listed at and
	// watched from.
	Oldest uint64

	objects *tree
	ahead   ahead
	base    *tree // objects at Oldest
	bytes   int64 // of objects

	// events lead from Oldest to Applied. States share one array: it is only
	// ever appended to, beyond what any other state can see.
	events  []*Event
	history int64  // bytes that only events keep
	first   uint64 // sequence number of events[0]

	changed chan struct{} // closed once there is a later state
}

// An Event is one change of one object.
type Event struct {
	ResourceVersion uint64
	// Object is what the API server sent: the object as it is now, or, if
	// Deleted, as it was last, under the deletion's resourceVersion.
	Object *wire.Object
	// Previous is the object before, nil for a new one.
	Previous *wire.Object
	Deleted  bool

	after *tree
	bytes int64
	left  atomic.Pointer[[]byte]
}

// Left returns the bytes that a watcher is sent whose selector Previous matched
// and Object does not. All watchers share them.
func (e *Event) Left(f wire.Format) ([]byte, error) {
	if e.Deleted {
		return e.Object.Raw, nil
	}
	if raw := e.left.Load(); raw != nil {
		return *raw, nil
	}
	raw, err := e.Previous.WithResourceVersion(f, e.ResourceVersion)
	if err == nil {
		e.left.Store(&raw)
	}
	return raw, err
}

// A Snapshot is the objects at one resourceVersion.
type Snapshot struct {
	ResourceVersion uint64
	objects         *tree
}

// ahead is what the API server is known to have at a resourceVersion that is later
// than Applied, though not how it came there.
type ahead struct {
	Snapshot
	at Cursor // where the objects were the same
}

// Here returns the objects at Applied.
func (s *State) Here() Snapshot { return Snapshot{ResourceVersion: s.Applied, objects: s.objects} }

// Now returns the latest objects that are known. What led there may not be.
func (s *State) Now() Snapshot {
	if s.ahead.ResourceVersion > s.Applied {
		return s.ahead.Snapshot
	}
	return s.Here()
}

// Reached is the resourceVersion of what Now returns.
func (s *State) Reached() uint64 { return max(s.Applied, s.ahead.ResourceVersion) }

// Same is the latest resourceVersion at which the API server is known to have had the
// objects that are here.
func (s *State) Same() uint64 {
	if s.ahead.at == s.End() {
		return s.Reached()
	}
	return s.Applied
}

// At returns the objects at exactly rv, if that is still known.
func (s *State) At(rv uint64) (Snapshot, bool) {
	if now := s.Now(); rv == now.ResourceVersion {
		return now, true
	}
	if rv < s.Oldest || rv > s.Applied {
		return Snapshot{}, false
	}
	objects := s.base
	if i := s.after(rv); i > 0 {
		objects = s.events[i-1].after
	}
	return Snapshot{ResourceVersion: rv, objects: objects}, true
}

// after returns the index of the first event later than rv.
func (s *State) after(rv uint64) int {
	low, high := 0, len(s.events)
	for low < high {
		if mid := (low + high) / 2; s.events[mid].ResourceVersion <= rv {
			low = mid + 1
		} else {
			high = mid
		}
	}
	return low
}

// since is from where to watch what comes next. What was deleted last may have been one
// of several at one resourceVersion, of which others are still to come: what is known of
// them is sent again.
func (s *State) since() uint64 {
	if n := len(s.events); n > 0 && s.events[n-1].Deleted && s.events[n-1].ResourceVersion == s.Applied {
		return s.Applied - 1
	}
	return s.Applied
}

// Changed is closed once there is a later state.
func (s *State) Changed() <-chan struct{} { return s.changed }

// Bytes is the memory that the objects and the history keep.
func (s *State) Bytes() (objects, history int64) { return s.bytes, s.history }

// Len is the number of objects.
func (s *State) Len() int { return s.objects.Len() }

// Events is the number of events that can be replayed.
func (s *State) Events() int { return len(s.events) }

// Get returns one object or nil.
func (s Snapshot) Get(key string) *wire.Object {
	o, _ := s.objects.Get(&wire.Object{Key: key})
	return o
}

// Ascend calls f for every object of the namespace in the order of keys, from
// key from on, until f returns false. No namespace means all.
func (s Snapshot) Ascend(namespace, from string, f func(*wire.Object) bool) {
	prefix := ""
	if namespace != "" {
		prefix = namespace + "/"
	}
	s.objects.AscendGreaterOrEqual(&wire.Object{Key: max(prefix, from)}, func(o *wire.Object) bool {
		return strings.HasPrefix(o.Key, prefix) && f(o)
	})
}

// Len is the number of all objects.
func (s Snapshot) Len() int { return s.objects.Len() }

// A Cursor is a watcher's place in the history.
type Cursor uint64

// From returns the place right behind rv. There is none if that is older than
// the history. A later one than Applied is a place to wait at.
func (s *State) From(rv uint64) (Cursor, bool) {
	if rv < s.Oldest {
		return 0, false
	}
	return Cursor(s.first + uint64(s.after(rv))), true
}

// End returns the place behind all events.
func (s *State) End() Cursor { return Cursor(s.first + uint64(len(s.events))) }

// Event returns the event at c, nil if there is none yet. It reports false if c
// has fallen off the history, which cannot be mended.
func (s *State) Event(c Cursor) (*Event, bool) {
	if uint64(c) < s.first {
		return nil, false
	}
	if i := uint64(c) - s.first; i < uint64(len(s.events)) {
		return s.events[i], true
	}
	return nil, true
}
