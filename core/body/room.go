package body

import (
	"context"
	"net/http"
	"time"

	"golang.org/x/sync/semaphore"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"
)

const (
	// maxRoom bounds what all objects that are being judged take together, in bytes.
	maxRoom = 64 << 20
	// maxAnonymousRoom is the same for callers without a credential, who so take
	// nothing from others. The largest object fits in.
	maxAnonymousRoom = reading * Max
	// reading is what it takes to read an object such as a Pod, in its sizes. One
	// of small maps only takes up to seven times that, for a moment.
	reading = 8
	// maxWait bounds how long a request waits for room, and maxReading how long its
	// body may take to come, for which it holds the room.
	maxWait    = 2 * time.Second
	maxReading = 30 * time.Second
)

// Rooms is where objects are judged. Nobody knows yet whether their senders may
// send them, so what they take is bounded.
type Rooms struct {
	// Known and Anonymous are for callers with and without a credential, in bytes.
	Known, Anonymous *semaphore.Weighted
	// Wait bounds how long a request waits for room, and Reading how long its body
	// may take to come.
	Wait, Reading time.Duration
}

// NewRooms returns rooms of the usual size.
func NewRooms() *Rooms {
	return &Rooms{semaphore.NewWeighted(maxRoom), semaphore.NewWeighted(maxAnonymousRoom), maxWait, maxReading}
}

// A Room is what one request takes. The zero one is none.
type Room struct {
	in    *semaphore.Weighted
	taken int64
}

// Enter gives the request of a caller room for its object, unless it has some.
func (s *Rooms) Enter(room *Room, r *http.Request, caller user.Info) error {
	if room.in != nil {
		return nil
	}
	in := s.Known
	if caller.GetName() == user.Anonymous {
		in = s.Anonymous
	}
	ctx, cancel := context.WithTimeout(r.Context(), s.Wait)
	defer cancel()
	need := reading * SizeOf(r)
	if info, ok := request.RequestInfoFrom(r.Context()); ok && Changes(r, info) {
		need = 2 * (SizeOf(r) + Max) // what comes of it is no smaller for that
	}
	if in.Acquire(ctx, need) != nil {
		err := apierrors.NewServiceUnavailable("too many objects are being judged")
		err.ErrStatus.Details = &metav1.StatusDetails{RetryAfterSeconds: 1}
		return err
	}
	room.in, room.taken = in, need
	return nil
}

// SizeOf is how long the body of r can be, as far as it is read.
func SizeOf(r *http.Request) int64 {
	if r.ContentLength < 0 {
		return Max
	}
	return min(r.ContentLength, Max)
}

// Keep gives back all but size bytes.
func (r *Room) Keep(size int64) {
	if back := r.taken - size; r.in != nil && back > 0 {
		r.in.Release(back)
		r.taken -= back
	}
}

// Limit makes reading the body of w's request fail once it has taken too long,
// until the function that it returns is called.
func (s *Rooms) Limit(w http.ResponseWriter) (unlimited func()) {
	c := http.NewResponseController(w)
	_ = c.SetReadDeadline(time.Now().Add(s.Reading)) // what has no deadlines comes from no connection
	return func() { _ = c.SetReadDeadline(time.Time{}) }
}
