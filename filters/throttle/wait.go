package throttle

import (
	"context"
	"time"

	"github.com/portico-proxy/portico/core/limit"
)

// enqueue lets w wait where it is blocked. It does not where that is in vain.
func (l *Limiter) enqueue(w *waiter, blocked *claim) bool {
	first := blocked.bucket.queue.length == 0
	if l.waiting >= l.options.Waiting || first && blocked.wait > blocked.limit.MaxDelay || !blocked.bucket.queue.push(w) {
		return false
	}
	l.waiting++
	w.at, w.done = blocked.bucket, make(chan struct{})
	if first {
		l.wake(blocked.bucket, blocked.wait)
	}
	return true
}

// wake looks after b's queue in a while. A wait of 0 is one for others to leave.
func (l *Limiter) wake(b *bucket, wait time.Duration) {
	if b.timer != nil {
		b.timer.Stop()
		b.timer = nil
	}
	if b.queue.length == 0 || wait == 0 || wait == forever {
		return
	}
	// A nanosecond more, as the wait was rounded.
	b.timer = time.AfterFunc(wait+1, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.dispatch(b)
	})
}

// dispatch lets in those who wait at b, in their turn, as far as there is room.
func (l *Limiter) dispatch(b *bucket) {
	for w := b.queue.next(); w != nil; w = b.queue.next() {
		blocked := l.try(w, b)
		switch {
		case blocked == nil:
			l.dismiss(w, nil)
			continue
		case blocked.bucket == b:
			l.wake(b, blocked.wait)
			return
		case blocked.limit.OnExceed == limit.Delay && l.move(w, blocked):
			continue
		}
		l.dismiss(w, l.refuse(blocked))
	}
	l.wake(b, 0)
}

// dismiss ends w's waiting: it is let in, or refused.
func (l *Limiter) dismiss(w *waiter, err error) {
	w.at.queue.served(w)
	l.waiting--
	if w.err = err; err == nil {
		for i := range w.claims {
			// Those behind it must find what it has left.
			w.claims[i].enter()
		}
	}
	close(w.done)
}

// move lets w wait elsewhere, as it is another bucket that keeps it out now.
func (l *Limiter) move(w *waiter, blocked *claim) bool {
	if !blocked.bucket.queue.push(w) {
		return false
	}
	w.at.queue.served(w)
	w.at = blocked.bucket
	if w.at.queue.length == 1 {
		l.wake(w.at, blocked.wait)
	}
	return true
}

// await waits until w is let in or refused, its time is over, or ctx ends.
func (l *Limiter) await(ctx context.Context, w *waiter, blocked *claim) (*pass, error) {
	over := time.NewTimer(blocked.limit.MaxDelay)
	defer over.Stop()
	select {
	case <-w.done:
	case <-over.C:
	case <-ctx.Done():
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-w.done:
		if w.err != nil {
			return nil, w.err
		}
		return l.passOf(w), nil
	default:
	}
	w.at.queue.remove(w)
	l.waiting--
	l.dispatch(w.at)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return nil, l.refuse(blocked)
}

// passOf is the pass of somebody who was let in already.
func (l *Limiter) passOf(w *waiter) *pass {
	p := &pass{limiter: l, claims: w.claims}
	for i := range w.claims {
		c := &w.claims[i]
		l.options.Count(c.limit.Policy, c.limit.ID, p.note(c, delayed))
	}
	return p
}
