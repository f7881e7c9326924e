package body

import (
	"context"
	"net/http"
	"sync"
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

	mu   sync.Mutex // guards following
	each map[string]*corner
}

// maxCorner is what one caller's objects take together, in bytes: the largest
// object fits in, and two such callers leave room for others.
const maxCorner = reading * Max

// A corner is what one caller may have of a room.
type corner struct {
	*semaphore.Weighted
	// taken is in bytes. Once nobody has any of it or waits for it, it is forgotten.
	taken   int64
	waiting int
}

// NewRooms returns rooms of the usual size.
func NewRooms() *Rooms {
	return &Rooms{
		Known: semaphore.NewWeighted(maxRoom), Anonymous: semaphore.NewWeighted(maxAnonymousRoom), Wait: maxWait, Reading: maxReading,
	}
}

// A Room is what one request takes. The zero one is none.
type Room struct {
	in    *semaphore.Weighted
	taken int64
	leave func(n int64) // gives n back to the caller's corner
}

// Enter gives the request of a caller room for its object, unless it has it.
func (s *Rooms) Enter(room *Room, r *http.Request, caller user.Info) error {
	need := max(reading*SizeOf(r), 1)
	if info, ok := request.RequestInfoFrom(r.Context()); ok && Changes(r, info) {
		need = 2 * (SizeOf(r) + Max) // what comes of it is no smaller for that
	}
	return s.Take(r.Context(), room, caller, need)
}

// Take makes a caller's room no smaller than need bytes.
func (s *Rooms) Take(ctx context.Context, room *Room, caller user.Info, need int64) error {
	more := need - room.taken
	if more <= 0 {
		return nil
	}
	in := s.Known
	if caller.GetName() == user.Anonymous {
		in = s.Anonymous
	}
	ctx, cancel := context.WithTimeout(ctx, s.Wait)
	defer cancel()
	leave, ok := s.enterCorner(ctx, caller.GetName(), more)
	if ok && in.Acquire(ctx, more) != nil {
		leave(more)
		ok = false
	}
	if !ok {
		err := apierrors.NewServiceUnavailable("too many objects are being judged")
		err.ErrStatus.Details = &metav1.StatusDetails{RetryAfterSeconds: 1}
		return err
	}
	room.in, room.taken, room.leave = in, need, leave
	return nil
}

// enterCorner takes n of what one caller may have. The function it returns gives
// some of it back.
func (s *Rooms) enterCorner(ctx context.Context, name string, n int64) (leave func(n int64), ok bool) {
	own := s.corner(name)
	err := own.Acquire(ctx, n)
	s.mu.Lock()
	defer s.mu.Unlock()
	if own.waiting--; err == nil {
		own.taken += n
	}
	s.forget(name, own)
	return func(n int64) {
		s.mu.Lock()
		defer s.mu.Unlock()
		own.Release(n)
		own.taken -= n
		s.forget(name, own)
	}, err == nil
}

// corner is a caller's, with somebody who waits in it.
func (s *Rooms) corner(name string) *corner {
	s.mu.Lock()
	defer s.mu.Unlock()
	own := s.each[name]
	if own == nil {
		own = &corner{Weighted: semaphore.NewWeighted(maxCorner)}
		if s.each == nil {
			s.each = map[string]*corner{}
		}
		s.each[name] = own
	}
	own.waiting++
	return own
}

// forget drops an empty corner. The caller holds mu.
func (s *Rooms) forget(name string, own *corner) {
	if own.taken == 0 && own.waiting == 0 {
		delete(s.each, name)
	}
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
		r.leave(back)
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
