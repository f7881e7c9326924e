package wasm

import (
	"context"
	"net/http"
	"time"

	"golang.org/x/sync/semaphore"
	"k8s.io/apiserver/pkg/authentication/user"
)

const (
	// maxRoom bounds what all objects that are being judged take together, in bytes.
	maxRoom = 64 << 20
	// maxAnonymousRoom is the same for callers without a credential, who so take
	// nothing from others. The largest object fits in.
	maxAnonymousRoom = reading * maxObject
	// reading is what it takes to read an object such as a Pod, in its sizes. One
	// of small maps only takes up to seven times that, for a moment.
	reading = 8
	// roomTimeout bounds how long a request waits for room, and bodyTimeout how
	// long its body may take to come, for which it holds the room.
	roomTimeout = 2 * time.Second
	bodyTimeout = 30 * time.Second
)

// rooms is where objects are judged. Nobody knows yet whether their senders may
// send them, so what they take is bounded.
type rooms struct {
	known, anonymous *semaphore.Weighted
	wait, body       time.Duration
}

func newRooms() *rooms {
	return &rooms{semaphore.NewWeighted(maxRoom), semaphore.NewWeighted(maxAnonymousRoom), roomTimeout, bodyTimeout}
}

// A room is what one request takes. The zero one is none.
type room struct {
	in    *semaphore.Weighted
	taken int64
}

// enter gives a request room for its object, unless it has some.
func (s *rooms) enter(facts Facts) error {
	r := facts.room
	if r.in != nil {
		return nil
	}
	in := s.known
	if facts.User.GetName() == user.Anonymous {
		in = s.anonymous
	}
	ctx, cancel := context.WithTimeout(facts.Request.Context(), s.wait)
	defer cancel()
	need := reading * sizeOf(facts.Request)
	if changesObject(facts.Request, facts.Info) {
		need = 2 * (sizeOf(facts.Request) + maxObject) // what comes of it is no smaller for that
	}
	if in.Acquire(ctx, need) != nil {
		return unavailable("too many objects are being judged")
	}
	r.in, r.taken = in, need
	return nil
}

// sizeOf is how long the body of r can be, as far as it is read.
func sizeOf(r *http.Request) int64 {
	if r.ContentLength < 0 {
		return maxObject
	}
	return min(r.ContentLength, maxObject)
}

// keep gives back all but size bytes.
func (r *room) keep(size int64) {
	if back := r.taken - size; r.in != nil && back > 0 {
		r.in.Release(back)
		r.taken -= back
	}
}

// limited makes reading the body of w's request fail once it has taken too long,
// until the function that it returns is called.
func (s *rooms) limited(w http.ResponseWriter) (unlimited func()) {
	c := http.NewResponseController(w)
	_ = c.SetReadDeadline(time.Now().Add(s.body)) // what has no deadlines comes from no connection
	return func() { _ = c.SetReadDeadline(time.Time{}) }
}
