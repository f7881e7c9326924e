package lens

import (
	"sync"

	"golang.org/x/sync/semaphore"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

const (
	// maxShown bounds what one watch has shown and so has to be kept, in bytes, and
	// maxAllShown what all have together.
	maxShown    = 32 << 20
	maxAllShown = 64 << 20
	// shownOverhead is about what one costs besides its bytes.
	shownOverhead = 256
	// retryAfter is when a watch that there was no room for is to be tried again,
	// in seconds.
	retryAfter = 10
)

// allShown is the room for what all watches have shown.
var allShown = semaphore.NewWeighted(maxAllShown)

// memory is what a watch has shown, by key.
type memory struct {
	room *semaphore.Weighted // of all memories
	most int64               // that this one may take

	mu    sync.Mutex // guards following: the watch may be read while it is given up
	shown map[string]shown
	taken int64
	over  bool
}

func newMemory(room *semaphore.Weighted) *memory {
	return &memory{room: room, most: maxShown, shown: map[string]shown{}}
}

// keep keeps one in place of what was kept of it before. Where there is no room for
// it the watch has to end.
func (m *memory) keep(one shown) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	more := one.size() - m.sizeOf(one.key)
	if m.over || m.taken+more > m.most || more > 0 && !m.room.TryAcquire(more) {
		return apierrors.NewTooManyRequests("there is no room to keep what the watch shows: watch less at once, or try again later", retryAfter)
	}
	if more < 0 {
		m.room.Release(-more)
	}
	m.taken += more
	m.shown[one.key] = one
	return nil
}

// of returns what was shown last under a key.
func (m *memory) of(key string) (shown, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	one, was := m.shown[key]
	return one, was
}

// drop forgets one that is not shown any more.
func (m *memory) drop(key string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	size := m.sizeOf(key)
	m.room.Release(size)
	m.taken -= size
	delete(m.shown, key)
}

// sizeOf is what is taken under a key. The caller holds m.mu.
func (m *memory) sizeOf(key string) int64 {
	if one, was := m.shown[key]; was {
		return one.size()
	}
	return 0
}

// giveUp forgets everything, for good.
func (m *memory) giveUp() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.room.Release(m.taken)
	m.shown, m.taken, m.over = nil, 0, true
}

func (s *shown) size() int64 {
	return int64(len(s.key) + len(s.seen) + len(s.cells) + shownOverhead)
}
