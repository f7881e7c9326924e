package names

import (
	"bytes"
	"crypto/sha256"
	"sync"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

const (
	// maxTold is how much is remembered before the older is forgotten, in bytes; at
	// most twice as much at a time. What many watchers are sent they are sent at once.
	maxTold = 2 << 20
	// toldOverhead is about what is taken besides bytes.
	toldOverhead = 256
)

// memo remembers how events of objects are told, so that a hundred watchers of one
// view cost one exchange of names.
type memo struct {
	mu         sync.Mutex // guards following
	young, old map[toldKey]*told
	taken      int // by young
}

// toldKey names an event by all that its exchange depends on but the mapping, whose
// memo it is.
type toldKey struct {
	resource schema.GroupResource
	sum      [sha256.Size]byte
}

// told is what is made of an event, once somebody has made it.
type told struct {
	once sync.Once
	out  []byte
	err  error
}

// told returns what exchange makes of an event, which is asked once. What is returned is
// shared: nobody may write to it.
func (m *memo) told(r schema.GroupResource, event []byte, exchange func([]byte) ([]byte, error)) ([]byte, error) {
	t := m.of(toldKey{r, sha256.Sum256(event)}, len(event))
	t.once.Do(func() {
		out, err := exchange(event)
		t.out, t.err = bytes.Clone(out), err // it may be the event itself, which is not ours to keep
	})
	return t.out, t.err
}

func (m *memo) of(k toldKey, size int) *told {
	m.mu.Lock()
	defer m.mu.Unlock()
	if t := m.young[k]; t != nil {
		return t
	}
	t := m.old[k]
	if t == nil {
		t = &told{}
	}
	if m.young == nil || m.taken > maxTold {
		m.young, m.old, m.taken = map[toldKey]*told{}, m.young, 0
	}
	m.young[k] = t
	m.taken += size + toldOverhead
	return t
}
