package h2

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"runtime/debug"
	"slices"
	"time"

	"golang.org/x/net/http2"
)

var (
	errReset    = errors.New("the client has given up the request")
	errAborted  = errors.New("the answer was cut off")
	errReturned = errors.New("the handler has returned")
)

// stream is one request and its answer.
type stream struct {
	c       *conn
	id      uint32
	ctx     context.Context
	cancel  context.CancelFunc
	request *http.Request
	answer  *response
	handler http.Handler
	body    *body // nil if the request has none
	quick   bool  // it is answered where it is read
	expects bool  // the client sends the body when told to
	size    int64 // of the body, as the client says; -1 if it does not

	// conn.mu guards following.
	over     error         // why nothing more can be sent
	wake     chan struct{} // of send
	waits    bool          // for another's handler to return
	listed   bool          // among those that are ready or parked
	offer    *offer
	window   int64 // how much the client takes
	in       inflow
	got      int64 // of the body
	empty    int   // frames with nothing in them
	gotEnd   bool
	sentEnd  bool
	seen     bool // by inspect, when nothing but the end was to be sent
	deadline deadlines
}

// deadlines are timers, nil while none was set.
type deadlines struct{ read, write *time.Timer }

func (d *deadlines) stop() {
	for _, t := range []*time.Timer{d.read, d.write} {
		if t != nil {
			t.Stop()
		}
	}
}

// awake tells send to look again.
func (s *stream) awake() {
	select {
	case s.wake <- struct{}{}: // never, while it is nil
	default:
	}
}

// reset gives up s and tells the client. The caller holds mu.
func (c *conn) reset(s *stream, code http2.ErrCode, why error) {
	if c.streams[s.id] == nil {
		return
	}
	c.noteClosed(s.id)
	_ = c.frames.WriteRSTStream(s.id, code)
	c.drop(s, why)
}

// drop gives up s. The caller holds mu.
func (c *conn) drop(s *stream, why error) {
	s.over, s.offer = why, nil
	if s.waits {
		s.request, s.answer = nil, nil // it keeps its place, and not its size
	}
	s.cancel()
	c.forget(s)
	s.awake()
}

// forget takes s out of what the client may refer to. The caller holds mu.
func (c *conn) forget(s *stream) {
	delete(c.streams, s.id)
	if s.listed {
		is := func(other *stream) bool { return other == s }
		c.ready, c.parked = slices.DeleteFunc(c.ready, is), slices.DeleteFunc(c.parked, is)
		s.listed = false
	}
	s.deadline.stop()
	if s.body != nil && !s.gotEnd {
		c.refund(nil, s.body.drop(cmpErr(s.over, errReturned)))
	}
	if len(c.streams) == 0 {
		c.resting()
	}
}

func cmpErr(err, otherwise error) error {
	if err != nil {
		return err
	}
	return otherwise
}

// noteClosed remembers that the client may still send something for id, which it
// has not yet been told is closed.
func (c *conn) noteClosed(id uint32) {
	c.closed[c.nClosed%len(c.closed)] = id
	c.nClosed++
}

func (c *conn) isClosedHere(id uint32) bool { return slices.Contains(c.closed[:], id) }

// begin runs the handler of s: here, if what it returns is not nil, and else in a
// goroutine of its own, once there may be another. The caller holds mu.
func (c *conn) begin(s *stream, quick bool) (*stream, error) {
	if c.handlers >= c.server.streams {
		// Streams that are reset at once leave their handlers behind.
		if len(c.waiting) >= 4*int(c.server.streams) {
			return nil, errCalm
		}
		s.waits = true
		c.waiting = append(c.waiting, s)
		return nil, nil
	}
	c.handlers++
	if !quick {
		c.wg.Go(func() { c.run(s) })
		return nil, nil
	}
	if c.turn.patient > 0 {
		c.turn.patient--
		c.wg.Go(func() { c.run(s) })
		return nil, nil
	}
	s.quick, c.turn.away = true, true
	return s, nil
}

// run answers s.
func (c *conn) run(s *stream) {
	returned := false
	defer func() {
		if !returned {
			c.panicked(s, recover())
		}
		c.returned(s)
	}()
	s.handler.ServeHTTP(s.answer, s.request)
	s.answer.finish()
	returned = true
}

// panicked is called when the handler of s did not return.
func (c *conn) panicked(s *stream, p any) {
	if p != nil && p != http.ErrAbortHandler {
		c.log.Printf("http2: panic serving %s: %v\n%s", c.remote, p, debug.Stack())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reset(s, http2.ErrCodeInternal, errAborted)
	c.flush()
}

// returned lets the next handler run.
func (c *conn) returned(s *stream) {
	s.answer.close()
	s.cancel()
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.body != nil {
		c.refund(nil, s.body.close())
	}
	if s.over == nil {
		s.over = errReturned
	}
	s.deadline.stop()
	c.handlers--
	for len(c.waiting) > 0 && c.over == nil {
		next := c.waiting[0]
		c.waiting[0] = nil
		c.waiting = c.waiting[1:]
		if next.over == nil {
			next.waits = false
			c.handlers++
			c.wg.Go(func() { c.run(next) })
			break
		}
		c.skipped(next)
	}
	c.flush()
}

// skipped is called for a request that was given up before its handler ran. The
// caller holds mu.
func (c *conn) skipped(s *stream) {
	if s.body != nil {
		c.refund(nil, s.body.close())
	}
}

// setDeadline has late be called at t, which may be zero for never. The caller
// holds mu.
func setDeadline(timer **time.Timer, t time.Time, late func()) {
	if *timer != nil {
		(*timer).Stop()
		*timer = nil
	}
	if !t.IsZero() {
		*timer = time.AfterFunc(time.Until(t), late)
	}
}

// bound has late called at t, or at once if that has passed, unless the stream is
// over by then.
func (s *stream) bound(timer **time.Timer, t time.Time, late func()) {
	if !t.IsZero() && !t.After(time.Now()) {
		late()
		return
	}
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if s.over == nil {
		setDeadline(timer, t, late)
	}
}

// SetReadDeadline bounds how long the request's body may take. What is late
// cannot be read.
func (w *response) SetReadDeadline(t time.Time) error {
	s := w.s
	if s.body == nil {
		return nil
	}
	s.bound(&s.deadline.read, t, func() { s.body.fail(fmt.Errorf("read the request's body: %w", os.ErrDeadlineExceeded)) })
	return nil
}

// SetWriteDeadline bounds how long the answer may take. The client is told by
// RST_STREAM that it is cut off, if it reads.
func (w *response) SetWriteDeadline(t time.Time) error {
	s := w.s
	s.bound(&s.deadline.write, t, func() {
		s.c.mu.Lock()
		defer s.c.mu.Unlock()
		s.c.reset(s, http2.ErrCodeInternal, fmt.Errorf("write the answer: %w", os.ErrDeadlineExceeded))
		s.c.hurry(s.c.stall)
		s.c.flushAside()
	})
	return nil
}

// EnableFullDuplex does nothing: HTTP/2 is.
func (w *response) EnableFullDuplex() error { return nil }
