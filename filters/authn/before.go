package authn

import (
	"crypto/rand"
	"crypto/sha256"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/util/cache"
	"k8s.io/apiserver/pkg/authentication/user"
)

const (
	// maxBefore bounds how many callers are remembered, and longestBefore for how long.
	maxBefore     = 4096
	longestBefore = time.Hour
)

// Before remembers whose tokens were, for the time that the API server cannot be asked
// and a policy lets reads be stale. It outlives the filter. Of tokens it keeps salted
// hashes. The zero value is ready,
// and nil remembers nobody.
type Before struct {
	once    sync.Once
	salt    string
	callers *cache.LRUExpireCache
}

type caller struct {
	user user.Info
	at   time.Time
}

func (b *Before) begin() {
	b.once.Do(func() { b.salt, b.callers = rand.Text(), cache.NewLRUExpireCache(maxBefore) })
}

func (b *Before) key(token string) [sha256.Size]byte { return sha256.Sum256([]byte(b.salt + token)) }

// note remembers a review: nil says that the token is nobody's.
func (b *Before) note(token string, u user.Info, now time.Time) {
	if b == nil {
		return
	}
	b.begin()
	if u == nil {
		b.callers.Remove(b.key(token))
		return
	}
	b.callers.Add(b.key(token), caller{u, now}, longestBefore)
}

// of returns whose token it was, if that was said within a while.
func (b *Before) of(token string, now time.Time, within time.Duration) (user.Info, bool) {
	if b == nil {
		return nil, false
	}
	b.begin()
	kept, ok := b.callers.Get(b.key(token))
	if c, is := kept.(caller); ok && is && now.Sub(c.at) <= within {
		return c.user, true
	}
	return nil, false
}
