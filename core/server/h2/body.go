package h2

import (
	"errors"
	"io"
	"net/http"
	"sync"
)

// inflow is how much more the client may send. What is read is given back, but
// not in drops.
type inflow struct{ avail, unsent int32 }

// leastRefund is the least that is worth a frame, in bytes.
const leastRefund = 4 << 10

// take counts n bytes that came, and reports false if they were too many.
func (f *inflow) take(n int) bool {
	if int64(n) > int64(f.avail) {
		return false
	}
	f.avail -= int32(n)
	return true
}

// add counts n bytes that were read, and returns for how many more to ask.
func (f *inflow) add(n int) int32 {
	f.unsent += int32(n)
	if f.unsent < leastRefund && f.unsent < f.avail {
		return 0
	}
	n, f.unsent = int(f.unsent), 0
	f.avail += int32(n)
	return int32(n)
}

// body is what has come of a request's body and was not read. The windows bound it.
type body struct {
	s *stream

	mu     sync.Mutex // guards following
	more   sync.Cond
	buf    []byte
	read   int // of buf
	end    error
	closed bool
	asked  bool // for the body, if the client waits for that

	// The trailer goes where the request has it when somebody reads the end, in
	// the goroutine that does: handlers look at the request's all the time before.
	trailer, into http.Header
}

func newBody(s *stream, trailer http.Header) *body {
	b := &body{s: s, into: trailer}
	b.more.L = &b.mu
	return b
}

// put appends what came, and reports false if nobody will read it.
func (b *body) put(p []byte) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed || b.end != nil {
		return false
	}
	if b.read == len(b.buf) || len(b.buf)+len(p) > cap(b.buf) {
		b.buf, b.read = b.buf[:copy(b.buf, b.buf[b.read:])], 0
	}
	b.buf = append(b.buf, p...)
	b.more.Signal()
	return true
}

// fail has those who read learn err.
func (b *body) fail(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.end == nil {
		b.end = err
		b.more.Broadcast()
	}
}

// drop has those who read learn err, and returns how much was not read.
func (b *body) drop(err error) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := len(b.buf) - b.read
	b.buf, b.read, b.into = nil, 0, nil
	if b.end == nil {
		b.end = err
	}
	b.more.Broadcast()
	return n
}

// Read reads what has come, or waits for it.
func (b *body) Read(p []byte) (int, error) {
	b.ask()
	n, err := b.take(p)
	if n > 0 {
		b.s.c.readBody(b.s, n)
	}
	return n, err
}

// ask has the client send the body, if it waits for that.
func (b *body) ask() {
	b.mu.Lock()
	ask := b.s.expects && !b.asked
	b.asked = true
	b.mu.Unlock()
	if ask {
		b.s.answer.proceed()
	}
}

var errBodyClosed = errors.New("the request's body is closed")

func (b *body) take(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for !b.closed && b.read == len(b.buf) && b.end == nil && len(p) > 0 {
		b.more.Wait()
	}
	switch {
	case b.closed:
		return 0, errBodyClosed
	case len(p) == 0:
		return 0, nil
	case b.read < len(b.buf) && (b.end == nil || errors.Is(b.end, io.EOF)):
		n := copy(p, b.buf[b.read:])
		if b.read += n; b.read == len(b.buf) && b.end != nil {
			return n, b.ended()
		}
		return n, nil
	}
	return 0, b.ended()
}

// ended is why nothing more can be read. The caller holds mu.
func (b *body) ended() error {
	if errors.Is(b.end, io.EOF) {
		for name, values := range b.trailer {
			if _, declared := b.into[name]; declared {
				b.into[name] = values
			}
		}
		b.trailer = nil
	}
	return b.end
}

// Close has what comes after be dropped.
func (b *body) Close() error {
	b.s.c.readBody(b.s, b.close())
	return nil
}

// close returns how much was not read.
func (b *body) close() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := len(b.buf) - b.read
	b.closed, b.buf, b.read = true, nil, 0
	b.more.Broadcast()
	return n
}

// readBody lets the client send n bytes more.
func (c *conn) readBody(s *stream, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refund(s, n)
	if s.over != nil {
		c.flushAside() // whose time is up is not to wait for the client
		return
	}
	c.flush()
}

// refund lets the client send n bytes more, on s too if it is not nil and goes
// on. The caller holds mu.
func (c *conn) refund(s *stream, n int) {
	if n == 0 || c.over != nil {
		return
	}
	if more := c.in.add(n); more > 0 {
		_ = c.frames.WriteWindowUpdate(0, uint32(more))
	}
	if s == nil || s.gotEnd || c.streams[s.id] == nil {
		return
	}
	if more := s.in.add(n); more > 0 {
		_ = c.frames.WriteWindowUpdate(s.id, uint32(more))
	}
}

var _ http.Flusher = (*response)(nil)
