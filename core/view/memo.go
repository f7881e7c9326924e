package view

import (
	"context"
	"crypto/sha256"
	"sync"
	"sync/atomic"
)

// A Memo remembers what views saw, so that an object is looked at once for all
// callers whose views have one key. What has not been asked for lately is forgotten
// when it takes too much room.
type Memo struct {
	// Limit is how much may be remembered, in bytes; 0 means 32 MiB.
	Limit int

	mu         sync.Mutex // guards following
	young, old map[memoKey]*outcome
	taken      int // by young
}

// outcomeOverhead is about what an outcome costs besides bytes that were changed.
const outcomeOverhead = 256

type memoKey struct {
	views [16]byte
	of    uint64
	uid   string
	rv    uint64
}

// outcome is what some views saw of one object, once that is known.
type outcome struct {
	mu    sync.Mutex // guards following; held while somebody looks
	known bool
	same  bool   // nothing was changed
	json  []byte // what was made of it otherwise; nil is nothing

	size int // of json; guarded by Memo.mu
}

// Remembering are views that look at no object twice.
type Remembering struct {
	Views
	memo *Memo
	id   [16]byte
	of   uint64
}

// Of returns v with a memory. It shares what it remembers with all views of the same
// key and the same of: within that, an object's UID and resourceVersion name its bytes.
func (m *Memo) Of(v Views, of uint64) *Remembering {
	sum := sha256.Sum256([]byte(v.Key()))
	return &Remembering{Views: v, memo: m, id: [16]byte(sum[:16]), of: of}
}

// doubts says that a view has not told what it would tell another time.
type doubts struct{ some atomic.Bool }

type doubtsKey struct{}

// Doubt is called by a view that shows an object though it could not look at it, with
// the context of See: what is seen then is not remembered.
func Doubt(ctx context.Context) {
	if d, ok := ctx.Value(doubtsKey{}).(*doubts); ok {
		d.some.Store(true)
	}
}

// See is what is left of o for the caller; see [View]. What could not be told is
// not remembered.
func (r *Remembering) See(ctx context.Context, o Object) ([]byte, error) {
	if o.UID == "" || o.ResourceVersion == 0 {
		return r.Views.See(ctx, o)
	}
	key := memoKey{r.id, r.of, o.UID, o.ResourceVersion}
	known := r.memo.outcome(key)
	known.mu.Lock()
	defer known.mu.Unlock()
	if !known.known {
		in := &doubts{}
		seen, err := r.Views.See(context.WithValue(ctx, doubtsKey{}, in), o)
		if err != nil || in.some.Load() {
			return seen, err
		}
		known.known, known.same = true, Unchanged(o.JSON, seen)
		if !known.same {
			known.json = seen
			r.memo.charge(known, len(seen))
		}
	}
	if known.same {
		return o.JSON, nil
	}
	return known.json, nil
}

// Unchanged reports whether seen is whole itself.
func Unchanged(whole, seen []byte) bool {
	return len(seen) == len(whole) && len(seen) > 0 && &seen[0] == &whole[0]
}

// outcome returns what is known under key, which may still be nothing.
func (m *Memo) outcome(key memoKey) *outcome {
	m.mu.Lock()
	defer m.mu.Unlock()
	if o, ok := m.young[key]; ok {
		return o
	}
	o, ok := m.old[key]
	if !ok {
		o = &outcome{}
	}
	if m.young == nil {
		m.young = map[memoKey]*outcome{}
	}
	m.young[key] = o
	m.take(outcomeOverhead + o.size)
	return o
}

func (m *Memo) charge(o *outcome, n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	o.size = n
	m.take(n)
}

// take notes that young has grown. The caller holds m.mu.
func (m *Memo) take(n int) {
	limit := m.Limit
	if limit == 0 {
		limit = 32 << 20
	}
	if m.taken += n; m.taken > limit/2 {
		m.young, m.old, m.taken = nil, m.young, 0
	}
}
