package h2

import (
	"bytes"
	"encoding/binary"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const (
	// batch is about how much is written at once, in bytes.
	batch = 64 << 10
	// tableSize is how much of headers each side remembers, in bytes.
	tableSize = 4096
	// enoughControl is how much may be left to say to a client that does not
	// listen, in bytes.
	enoughControl = 64 << 10
)

// sending is what is to be sent.
type sending struct {
	writing bool      // somebody is
	hurried bool      // and has only so long
	stopped sync.Cond // broadcast when nobody is any more
	out     outgoing  // what is next, in order
	frames  *http2.Framer
	block   bytes.Buffer // of headers, encoded
	encoder *hpack.Encoder

	window    int64 // how much the client takes, on all streams together
	initial   int32 // and on a new one
	mostFrame int   // and in one frame
	in        inflow

	ready  []*stream // have something to send, in turns
	parked []*stream // too, once the client takes more on the connection
}

// An offer is what a handler wants to have sent. Whoever writes takes it, in as
// many frames as it needs.
type offer struct {
	head    []hpack.HeaderField // nil once it is sent
	data    []byte
	trailer []hpack.HeaderField
	end     bool // nothing comes after it
}

// outgoing is bytes for the client.
type outgoing struct{ buf *[]byte }

var buffers = sync.Pool{New: func() any {
	b := make([]byte, 0, 16<<10)
	return &b
}}

func (o *outgoing) Write(p []byte) (int, error) {
	if o.buf == nil {
		o.buf = buffers.Get().(*[]byte)
	}
	*o.buf = append(*o.buf, p...)
	return len(p), nil
}

func (o *outgoing) len() int {
	if o.buf == nil {
		return 0
	}
	return len(*o.buf)
}

// release gives b back, unless it has become too large to keep.
func release(b *[]byte) {
	if cap(*b) <= 2*batch {
		*b = (*b)[:0]
		buffers.Put(b)
	}
}

func newSending() sending {
	return sending{window: leastWindow, initial: leastWindow, mostFrame: leastFrame}
}

// prepare makes what refers to s itself.
func (s *sending) prepare() {
	s.frames = http2.NewFramer(&s.out, nil)
	s.encoder = hpack.NewEncoder(&s.block)
}

// send returns once o is sent, or cannot be. What it returns is why.
func (c *conn) send(s *stream, o *offer) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.over != nil {
		return s.over
	}
	s.offer = o
	c.enlist(s)
	for s.offer != nil {
		if !c.writing && len(c.ready) > 0 {
			c.write(s)
			continue
		}
		c.await(s)
	}
	c.passOn() // this one may have been waken to write, and is gone
	return s.over
}

// await waits for s to be waken. The caller holds mu.
func (c *conn) await(s *stream) {
	if s.quick {
		c.replace()
	}
	if s.wake == nil {
		s.wake = make(chan struct{}, 1)
	}
	ending := s.isEnding()
	c.mu.Unlock()
	if ending {
		c.endSlowly(s)
	} else {
		<-s.wake
	}
	c.mu.Lock()
}

// enlist gives s its turn, if it may send. The caller holds mu.
func (c *conn) enlist(s *stream) {
	if s.offer == nil || s.listed || s.offer.head == nil && len(s.offer.data) > 0 && s.window <= 0 {
		return
	}
	s.listed = true
	c.ready = append(c.ready, s)
}

// write sends until own has nothing left that can be, and leaves the rest to
// whoever waits. The caller holds mu, and nobody is writing.
func (c *conn) write(own *stream) {
	c.writing = true
	for c.over == nil {
		c.fill()
		if c.out.len() == 0 {
			break
		}
		b := c.out.buf
		c.out.buf = nil
		c.mu.Unlock()
		_, err := c.tls.Write(*b)
		release(b)
		c.mu.Lock()
		if err != nil {
			c.fail(err)
			_ = c.tls.NetConn().Close()
		}
		c.relax()
		if (own == nil || own.offer == nil) && len(c.ready) > 0 || own != nil && own.over != nil {
			break
		}
	}
	c.writing = false
	c.stopped.Broadcast()
	if c.late {
		c.late = false
		c.resting() // the client has its time from now on
	}
	if len(c.ready) == 0 {
		c.flushAside() // of what own, whose time is up, leaves
	}
	c.passOn()
}

// hurry bounds how long what is being written may take: the handler that writes
// may be one whose time is up, or all have returned. Nothing can be sent on TLS
// after half a record, so a client that does not read as much loses the connection,
// and handlers of other requests on it learn that by their contexts. The caller
// holds mu.
func (c *conn) hurry(most time.Duration) {
	if c.writing && !c.hurried && !c.quitting && c.over == nil {
		c.hurried = true
		_ = c.tls.SetWriteDeadline(time.Now().Add(most))
	}
}

// relax undoes hurry once something was written. The caller holds mu.
func (c *conn) relax() {
	if c.hurried && !c.quitting && c.over == nil {
		_ = c.tls.SetWriteDeadline(noDeadline)
	}
	c.hurried = false
}

// passOn has the next one that waits write, if nobody does. The caller holds mu.
func (c *conn) passOn() {
	if !c.writing && len(c.ready) > 0 {
		c.ready[0].awake()
	}
}

func (c *conn) pop() *stream {
	s := c.ready[0]
	c.ready[0] = nil
	if c.ready = c.ready[1:]; len(c.ready) == 0 {
		c.ready = nil
	}
	s.listed = false
	return s
}

// flush sends what is to be sent, or leaves it to whoever is sending. The caller
// holds mu.
func (c *conn) flush() {
	if !c.writing && c.out.len() > 0 {
		c.write(nil)
	}
}

// flushAside does it without waiting. The caller holds mu.
func (c *conn) flushAside() {
	if c.writing || c.out.len() == 0 || c.over != nil {
		return
	}
	c.wg.Go(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.flush()
	})
}

// hasControl reports whether there is something that nobody is sending.
func (c *conn) hasControl() bool { return !c.writing && c.out.len() > 0 }

// fill takes what is offered, a frame of each in turns. The caller holds mu.
func (c *conn) fill() {
	for c.out.len() < batch && len(c.ready) > 0 {
		s := c.pop()
		c.cut(s)
		switch {
		case s.offer == nil:
			s.awake()
		case s.window <= 0: // the client enlists it
		case c.window <= 0:
			s.listed = true
			c.parked = append(c.parked, s)
		default:
			c.enlist(s)
		}
	}
}

// cut takes a frame of data off what s offers, and what goes with it. The caller
// holds mu.
func (c *conn) cut(s *stream) {
	o := s.offer
	if o.head != nil {
		c.writeHeaders(s.id, o.head, o.end && len(o.data) == 0 && o.trailer == nil)
		o.head = nil
		if o.end && len(o.data) == 0 && o.trailer == nil {
			c.sent(s)
			return
		}
	}
	if len(o.data) > 0 {
		n := min(len(o.data), c.mostFrame, int(min(s.window, c.window)))
		if n <= 0 {
			return
		}
		c.writeData(s.id, o.data[:n], o.end && n == len(o.data) && o.trailer == nil)
		s.window -= int64(n)
		c.window -= int64(n)
		if o.data = o.data[n:]; len(o.data) > 0 {
			return
		}
	} else if o.end && o.trailer == nil {
		c.writeData(s.id, nil, true)
	}
	if o.trailer != nil {
		c.writeHeaders(s.id, o.trailer, true)
	}
	c.sent(s)
}

// sent is called when all of an offer is. The caller holds mu.
func (c *conn) sent(s *stream) {
	end := s.offer.end
	s.offer = nil
	if !end {
		return
	}
	s.sentEnd = true
	if !s.gotEnd {
		// Nobody is there to read the rest of the request.
		c.noteClosed(s.id)
		_ = c.frames.WriteRSTStream(s.id, http2.ErrCodeNo)
	}
	c.forget(s)
}

func (c *conn) writeData(id uint32, p []byte, end bool) {
	head := [9]byte{byte(len(p) >> 16), byte(len(p) >> 8), byte(len(p)), byte(http2.FrameData)}
	if end {
		head[4] = byte(http2.FlagDataEndStream)
	}
	binary.BigEndian.PutUint32(head[5:], id)
	_, _ = c.out.Write(head[:])
	_, _ = c.out.Write(p)
}

func (c *conn) writeHeaders(id uint32, fields []hpack.HeaderField, end bool) {
	c.block.Reset()
	for _, f := range fields {
		_ = c.encoder.WriteField(f)
	}
	for first := true; first || c.block.Len() > 0; first = false {
		p := c.block.Next(c.mostFrame)
		if first {
			_ = c.frames.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: p, EndStream: end, EndHeaders: c.block.Len() == 0})
		} else {
			_ = c.frames.WriteContinuation(id, c.block.Len() == 0, p)
		}
	}
}
