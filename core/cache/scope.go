package cache

import (
	"cmp"
	"slices"
	"time"

	"github.com/portico-proxy/portico/core/cache/internal/stream"
	"github.com/portico-proxy/portico/core/cache/wire"
)

// A question that can only select objects of one namespace, of one node or of
// one name needs no more than that part of a collection in memory, and the proxy may be allowed
// to read no more than it.

// maxParts is how many parts of one collection are kept before the whole is
// tried instead.
const maxParts = 3

// maxAlone is how many are kept where the whole is not to be had.
const maxAlone = 100

// indexed returns the part that the API server's index leads to, if q selects
// by the field that it indexes.
func (q *question) indexed() stream.Scope {
	field := wire.PartField(q.gvr.GroupResource())
	if field == "" || q.verb == get {
		return stream.Scope{}
	}
	value, ok := q.fields.RequiresExactMatch(field)
	if !ok {
		return stream.Scope{}
	}
	return stream.Scope{Field: field, Value: value}
}

// parts returns the parts that have all that q can select, the smallest first.
func (q *question) parts() []stream.Scope {
	var parts []stream.Scope
	if part := q.indexed(); !part.IsWhole() {
		parts = append(parts, part)
	}
	if q.namespace != "" {
		return append(parts, stream.Scope{Namespace: q.namespace})
	}
	name, named := q.fields.RequiresExactMatch("metadata.name")
	if q.verb == get {
		name, named = q.name, true
	}
	if named {
		parts = append(parts, stream.Scope{Field: "metadata.name", Value: name})
	}
	return parts
}

// use returns a collection that can answer q, begun if need be, or nil if there
// is none to be had now. Nobody would drop one that began under a definition that
// has been dropped before. The caller calls release when done.
func (s *streams) use(q *question, format wire.Format, known *wire.Schema) *entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	keys := s.keys(q, format)
	e := s.opened(keys)
	if e == nil {
		k, ok := s.worthBeginning(keys)
		if r := s.resources[q.gvr]; !ok || s.ctx.Err() != nil || r == nil || r.schema != known {
			return nil
		}
		e = s.begin(k, known)
	}
	e.users.Add(1)
	e.used.Store(time.Now().UnixNano())
	return e
}

// keys are those of the whole and then of the parts that can answer q. What a
// session waits for may have happened elsewhere in the collection: of a part it
// would have to be proven. The caller holds s.mu.
func (s *streams) keys(q *question, format wire.Format) []streamKey {
	var keys []streamKey
	if whole := (streamKey{gvr: q.gvr, format: format}); !q.inParts {
		keys = append(keys, whole)
		if q.session && !s.isRefused(whole) {
			return keys
		}
	}
	for _, part := range q.parts() {
		keys = append(keys, streamKey{q.gvr, format, part})
	}
	return keys
}

// opened returns the newest stream that has something to answer from, so that
// who has been answered from one finds nothing older in another, or else the
// first that will have. The caller holds s.mu.
func (s *streams) opened(keys []streamKey) *entry {
	var newest, loading *entry
	for _, k := range keys {
		e, ok := s.open[k]
		switch {
		case !ok || e.Err() != nil: // it is about to end
		case e.State() == nil:
			loading = cmp.Or(loading, e)
		case newest == nil || e.State().Applied > newest.State().Applied:
			newest = e
		}
	}
	return cmp.Or(newest, loading)
}

// worthBeginning returns which of keys to begin: the smallest part, or the whole
// where that has been asked for or several parts have. The caller holds s.mu.
func (s *streams) worthBeginning(keys []streamKey) (streamKey, bool) {
	for _, k := range keys {
		opened := s.openParts(k)
		switch {
		case !s.canBegin(k):
		case k.scope.IsWhole():
			if len(keys) == 1 || opened >= maxParts {
				return k, true
			}
		case opened < maxAlone:
			return k, true
		}
	}
	return streamKey{}, false
}

// openParts is how many parts of k's collection are in memory.
func (s *streams) openParts(k streamKey) int {
	n := 0
	for other := range s.open {
		if other.gvr == k.gvr && other.format == k.format && !other.scope.IsWhole() {
			n++
		}
	}
	return n
}

func (s *streams) canBegin(k streamKey) bool {
	_, ok := s.open[k]
	return !ok && !s.isRefused(k)
}

// isRefused reports whether k is known not to be had for now.
func (s *streams) isRefused(k streamKey) bool { return time.Now().Before(s.closed[k]) }

// isClosed reports whether nothing that could answer q is to be had for now.
func (s *streams) isClosed(q *question, format wire.Format) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ctx == nil || !slices.ContainsFunc(s.keys(q, format), func(k streamKey) bool { return !s.isRefused(k) })
}
