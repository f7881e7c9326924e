package throttle

import (
	"container/list"
	"math"
	"time"

	"github.com/portico-proxy/portico/core/limit"
)

// patience is how many seconds of its rate a bucket may owe at most: who was
// answered with more than anybody expected is not locked out for an hour.
const patience = 60

// rounding is what a token may lack.
const rounding = 1e-9

// forever is how long tokens take that do not come within longest.
const (
	forever = time.Duration(math.MaxInt64)
	longest = 24 * time.Hour
)

// A bucket counts the requests that share a limit's key. It is guarded by its
// limiter's lock.
type bucket struct {
	key    string
	place  *list.Element // in the order of use
	limit  *limit.Limit  // as the last request had it
	tokens float64
	at     time.Time // when tokens was true
	// running are requests that are being answered.
	running int
	// refused counts refusals since somebody was let in.
	refused int
	queue   queue
	timer   *time.Timer // set while somebody waits for tokens
}

// shape makes b keep l from now on: a policy may have changed.
func (b *bucket) shape(l *limit.Limit, now time.Time) {
	b.refill(now)
	if l.Tokens != nil && (b.limit == nil || b.limit.Tokens == nil) {
		b.tokens = l.Tokens.Burst
	}
	b.limit = l
}

func (b *bucket) refill(now time.Time) {
	if b.limit != nil && b.limit.Tokens != nil {
		t := b.limit.Tokens
		b.tokens = min(t.Burst, b.tokens+t.Rate*now.Sub(b.at).Seconds())
	}
	b.at = now
}

// idle reports that nobody is in b, or waits to be.
func (b *bucket) idle() bool { return b.running == 0 && b.queue.length == 0 }

// need is what a request has to find in its bucket. None costs more than the
// burst: it would wait for ever.
func need(l *limit.Limit) float64 {
	if l.Tokens == nil || l.Cost.From != "" {
		return 0
	}
	return min(l.Cost.Fixed, l.Tokens.Burst)
}

// taken is what a request takes: of a share, more than it has to find there.
func taken(l *limit.Limit) float64 {
	if l.Scope == limit.ClusterShare && l.Tokens != nil && l.Cost.From == "" {
		return l.Cost.Fixed
	}
	return need(l)
}

// wait returns how long it takes until b has room for a request that is to keep
// l. Where others must leave first nobody knows, and it is 0.
func (b *bucket) wait(l *limit.Limit) (_ time.Duration, room bool) {
	if f := l.InFlight; f != nil && b.running >= f.Max {
		if f.Max == 0 {
			return forever, false
		}
		return 0, false
	}
	if l.Tokens == nil || l.Cost.From == "" && l.Cost.Fixed == 0 {
		return 0, true
	}
	// What is measured will cost who knows what, but nothing may be owed.
	missing := need(l) - b.tokens - rounding
	switch {
	case l.Tokens.Burst == 0, missing > 0 && missing/max(l.Tokens.Rate, 1e-9) > longest.Seconds():
		return forever, false
	case missing > 0:
		return max(1, time.Duration(missing/l.Tokens.Rate*float64(time.Second))), false
	}
	return 0, true
}

// enter takes what a request needs. One for which there was no room, and which
// passes all the same, takes nothing.
func (b *bucket) enter(l *limit.Limit, room bool) {
	b.running++
	if room {
		b.refused = 0
		b.tokens -= taken(l)
	}
}

// charge takes what has turned out to be the cost of a request.
func (b *bucket) charge(tokens float64) {
	if t := b.limit.Tokens; t != nil {
		b.tokens = max(b.tokens-tokens, -max(t.Burst, t.Rate*patience))
	}
}

// retryAfter is what a refused client is told, in whole seconds: net/http's
// dates are not understood by client-go. Whoever keeps on asking is told more
// and more, as kube-apiserver does.
func (b *bucket) retryAfter(wait time.Duration) int {
	const most = 32
	b.refused++
	seconds := min(math.Ceil(wait.Seconds()), 2*most)
	return int(max(seconds, float64(min(most, int(1)<<min(b.refused/3, 5)))))
}
