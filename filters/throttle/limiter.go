package throttle

import (
	"container/list"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/portico-proxy/portico/core/limit"
)

// Outcomes of limits, as metrics name them.
const (
	admitted     = "admitted"
	delayed      = "delayed"
	rejected     = "rejected"
	servedCached = "served_cached"
	warned       = "warned"
	audited      = "audited"
)

// Options bound what a Limiter keeps. The zero value works.
type Options struct {
	// Buckets is how many keys are remembered; 0 means 20000. The one that was
	// used longest ago is forgotten first, and with it what it owes.
	Buckets int
	// Waiting is how many requests may wait at a time; 0 means 2000.
	Waiting int
	// Count is told of each limit that was asked. It may be nil.
	Count func(policy, id, outcome string)
	// Proxies is how many proxies share what is to be shared; 0 is not known. It may
	// be nil.
	Proxies func() int
	// Now is the time; nil means [time.Now]. With another, use only
	// [Limiter.Replay]: nobody waits for it.
	Now func() time.Time
}

// A Limiter counts requests. It outlives policies, so that a change of one
// forgives nothing.
type Limiter struct {
	options Options
	jitter  func(n int) int // below n

	mu      sync.Mutex // guards following, and what is in buckets
	buckets map[string]*bucket
	order   *list.List // of buckets; the last used first
	waiting int
}

// NewLimiter returns a Limiter that has counted nothing.
func NewLimiter(o Options) *Limiter {
	if o.Buckets <= 0 {
		o.Buckets = 20000
	}
	if o.Waiting <= 0 {
		o.Waiting = 2000
	}
	if o.Count == nil {
		o.Count = func(string, string, string) {}
	}
	if o.Proxies == nil {
		o.Proxies = func() int { return 0 }
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Limiter{options: o, jitter: rand.IntN, buckets: map[string]*bucket{}, order: list.New()}
}

// A claim is what a request wants of one bucket.
type claim struct {
	limit  *limit.Limit
	bucket *bucket
	room   bool // the last time somebody looked
	wait   time.Duration
	late   bool // others were refused before it
}

// enter takes what the request needs.
func (c *claim) enter() {
	c.late = c.room && c.bucket.refused > 0
	c.bucket.enter(c.limit, c.room)
}

// A waiter is a request, and, if it has to, waits at a bucket.
type waiter struct {
	flow   string
	claims []claim

	at   *bucket // where it waits
	done chan struct{}
	err  error // set before done is closed, if it is refused
}

// A pass is a request that was let in. Its holder calls leave.
type pass struct {
	limiter *Limiter
	claims  []claim
	// warnings are for the client.
	warnings []string
	// fromMemory says that memory is to answer, or nobody.
	fromMemory *limit.Limit
}

// enter lets a request of a flow in when all limits have room for it. It takes
// from none of them before all have. The error is for the client, or ctx's.
func (l *Limiter) enter(ctx context.Context, limits []limit.Limit, flow string) (*pass, error) {
	l.mu.Lock()
	w := &waiter{flow: flow, claims: l.claims(limits)}
	blocked := l.try(w, nil)
	if blocked == nil {
		p := l.admit(w, admitted)
		l.mu.Unlock()
		return p, nil
	}
	if blocked.limit.OnExceed != limit.Delay || !l.enqueue(w, blocked) {
		err := l.refuse(blocked)
		l.mu.Unlock()
		return nil, err
	}
	l.mu.Unlock()
	return l.await(ctx, w, blocked)
}

// claims finds the buckets of limits. A key that is named twice counts once.
func (l *Limiter) claims(limits []limit.Limit) []claim {
	now := l.options.Now()
	claims := make([]claim, 0, len(limits))
	for i := range limits {
		b := l.bucket(&limits[i])
		if slices.ContainsFunc(claims, func(c claim) bool { return c.bucket == b }) {
			continue
		}
		kept := &limits[i]
		if kept.Scope == limit.ClusterShare {
			share := kept.Of(l.options.Proxies())
			kept = &share
		}
		b.shape(kept, now)
		claims = append(claims, claim{limit: kept, bucket: b})
	}
	return claims
}

// maxKey is the longest key that is kept as it is, in bytes.
const maxKey = 256

func keyOf(l *limit.Limit) string {
	key := l.Policy + "\x00" + l.ID + "\x00" + strings.Join(l.Key, "\x00")
	if len(key) <= maxKey {
		return key
	}
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:])
}

func (l *Limiter) bucket(of *limit.Limit) *bucket {
	key := keyOf(of)
	if b, ok := l.buckets[key]; ok {
		l.order.MoveToFront(b.place)
		return b
	}
	if len(l.buckets) >= l.options.Buckets {
		l.forget()
	}
	b := &bucket{key: key, at: l.options.Now()}
	b.place = l.order.PushFront(b)
	l.buckets[key] = b
	return b
}

// forget drops the bucket that was used longest ago. Those with requests stay:
// there are no more of them than requests.
func (l *Limiter) forget() {
	for e := l.order.Back(); e != nil; e = e.Prev() {
		if b := e.Value.(*bucket); b.idle() {
			l.order.Remove(e)
			delete(l.buckets, b.key)
			return
		}
	}
}

// Len is how many keys are remembered.
func (l *Limiter) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.buckets)
}

// try returns the claim that keeps w out, or nil. Who has waited at a bucket
// passes those who wait at others; nobody else passes anybody.
func (l *Limiter) try(w *waiter, waited *bucket) *claim {
	now := l.options.Now()
	var blocked *claim
	for i := range w.claims {
		c := &w.claims[i]
		c.bucket.refill(now)
		c.wait, c.room = c.bucket.wait(c.limit)
		if waited == nil && c.bucket.queue.length > 0 {
			c.room = false
		}
		if !c.room && rank(c) > rank(blocked) {
			blocked = c
		}
	}
	return blocked
}

// rank says how much a limit without room has to say.
func rank(c *claim) int {
	switch {
	case c == nil || c.limit.Audit || c.limit.OnExceed == limit.Warn || c.limit.OnExceed == limit.ServeCached:
		return 0
	case c.limit.OnExceed == limit.Delay:
		return 1
	}
	return 2
}

// admit takes from all of w's buckets.
func (l *Limiter) admit(w *waiter, outcome string) *pass {
	p := &pass{limiter: l, claims: w.claims}
	for i := range w.claims {
		c := &w.claims[i]
		c.enter()
		l.options.Count(c.limit.Policy, c.limit.ID, p.note(c, outcome))
	}
	return p
}

// note remembers what c says of a request that is let in, and returns its outcome.
func (p *pass) note(c *claim, outcome string) string {
	if c.late {
		// client-go tries again by itself, and tells its user only of warnings
		// that come with an answer.
		p.warnings = append(p.warnings, say(c.limit))
	}
	switch {
	case c.room && (c.limit.OnExceed == limit.Delay || outcome == admitted):
		return outcome
	case c.room:
		return admitted
	case c.limit.Audit:
		return audited
	case c.limit.OnExceed == limit.ServeCached:
		p.fromMemory = c.limit
		p.warnings = append(p.warnings, say(c.limit)+"; this may be older than what is asked for")
		return servedCached
	}
	p.warnings = append(p.warnings, say(c.limit))
	return warned
}

// refuse is what the client is told for whom c has no room.
func (l *Limiter) refuse(c *claim) error {
	seconds := c.bucket.retryAfter(c.wait)
	// Who is refused at once must not come back at once.
	seconds += l.jitter(seconds/2 + 1)
	l.options.Count(c.limit.Policy, c.limit.ID, rejected)
	return tooMany(c.limit, seconds)
}

// leave is called when a request has been answered.
func (p *pass) leave(u usage) {
	p.limiter.mu.Lock()
	defer p.limiter.mu.Unlock()
	for i := range p.claims {
		p.claims[i].bucket.running--
	}
	p.chargeLocked(u)
	for i := range p.claims {
		p.limiter.dispatch(p.claims[i].bucket)
	}
}

// charge takes what a request has cost since the last charge.
func (p *pass) charge(u usage) {
	p.limiter.mu.Lock()
	defer p.limiter.mu.Unlock()
	p.chargeLocked(u)
}

func (p *pass) chargeLocked(u usage) {
	now := p.limiter.options.Now()
	for i := range p.claims {
		c := &p.claims[i]
		if c.limit.Cost.From != "" {
			c.bucket.refill(now)
			c.bucket.charge(u.of(c.limit.Cost.From) / c.limit.Cost.Per)
		}
	}
}

// measures reports whether some cost is known only in the end.
func (p *pass) measures(m ...limit.Measure) bool {
	return slices.ContainsFunc(p.claims, func(c claim) bool { return slices.Contains(m, c.limit.Cost.From) })
}
