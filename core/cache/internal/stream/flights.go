package stream

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// A storm is being asked faster than answers come: crowd callers or more wait for
// a flight when it could be sent. It then takes on those who come within linger,
// which one of them loses and upstream gains.
const (
	crowd  = 8
	linger = 10 * time.Millisecond
)

// Flights shares answers among those who ask at the same time. A caller joins
// only a flight that has not been sent: an answer that was on its way when the
// question came may be older than the question. The zero value is ready.
type Flights[T any] struct {
	// Free is called with what a flight brought once all who boarded have landed and
	// done with it. It may be nil.
	Free func(T)
	// Idle is called when all flights have landed and nobody waits for another, and
	// before anybody does. It may be nil.
	Idle func()

	mu    sync.Mutex // guards following
	next  *flight[T]
	aloft bool
	ended bool
	wg    sync.WaitGroup
	// waiting is how many callers have boarded and not landed.
	waiting atomic.Int64
}

type flight[T any] struct {
	boarded int // guarded by Flights.mu
	fetch   func() (T, error)
	landed  chan struct{}
	value   T
	err     error
	// holders are those who have boarded and not done with value, and the flight
	// itself until it has landed.
	holders atomic.Int64
}

// Do returns the answer of the next flight. fetch runs in a goroutine of its
// own; ctx bounds the caller's patience only.
func (f *Flights[T]) Do(ctx context.Context, fetch func() (T, error)) (T, error) {
	mine := f.board(fetch)
	defer f.leave(mine)
	return f.await(ctx, mine)
}

// Hold is Do for what is to be freed: the caller calls done when it has done with
// what it got, whatever that is.
func (f *Flights[T]) Hold(ctx context.Context, fetch func() (T, error)) (value T, done func(), err error) {
	mine := f.board(fetch)
	value, err = f.await(ctx, mine)
	return value, func() { f.leave(mine) }, err
}

func (f *Flights[T]) leave(one *flight[T]) {
	if one.holders.Add(-1) == 0 && one.err == nil && f.Free != nil {
		f.Free(one.value)
	}
}

func (f *Flights[T]) await(ctx context.Context, mine *flight[T]) (T, error) {
	f.waiting.Add(1)
	defer f.waiting.Add(-1)
	select {
	case <-mine.landed:
		return mine.value, mine.err
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}

// board returns the flight that is to be sent next, and sends it if none is on
// its way.
func (f *Flights[T]) board(fetch func() (T, error)) *flight[T] {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.next != nil {
		f.next.boarded++
		f.next.holders.Add(1)
		return f.next
	}
	mine := &flight[T]{boarded: 1, fetch: fetch, landed: make(chan struct{})}
	mine.holders.Store(2)
	if f.ended {
		mine.err = context.Canceled
		close(mine.landed)
		return mine
	}
	if f.aloft {
		f.next = mine
		return mine
	}
	f.aloft = true
	f.wg.Go(func() { f.fly(mine) })
	return mine
}

// fly sends flights one after another until nobody waits.
func (f *Flights[T]) fly(now *flight[T]) {
	for now != nil {
		now.value, now.err = now.fetch()
		close(now.landed)
		f.leave(now)
		if f.isStorm() {
			<-time.After(linger)
		}
		f.mu.Lock()
		now, f.next = f.next, nil
		if f.aloft = now != nil; !f.aloft && f.Idle != nil {
			f.Idle()
		}
		f.mu.Unlock()
	}
}

func (f *Flights[T]) isStorm() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.next != nil && f.next.boarded >= crowd
}

// End refuses further flights and returns when those on their way have landed.
func (f *Flights[T]) End() {
	f.mu.Lock()
	f.ended = true
	f.mu.Unlock()
	f.wg.Wait()
}

// Waiting is how many callers wait for an answer.
func (f *Flights[T]) Waiting() int { return int(f.waiting.Load()) }
