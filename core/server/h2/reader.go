package h2

import (
	"errors"
	"runtime/debug"
	"time"

	"golang.org/x/net/http2"
)

// reading is whose turn it is to read. A reader that answers a request itself is
// away meanwhile. Whoever takes its place counts turn up, and so the one that
// comes back knows that it no longer reads.
type reading struct {
	turn    uint64
	away    bool
	late    *time.Timer // runs while the reader is away
	patient int         // how many requests are not tried where they are read, after one that waited
}

// patientFor is that many.
const patientFor = 16

// read reads frames until the connection ends, or another has its turn.
func (c *conn) read(turn uint64) {
	defer c.abandoned(turn)
	for {
		f, err := c.readFrame()
		var s *stream
		if err == nil {
			s, err = c.process(f)
		}
		if err != nil {
			if err = c.forgive(err); err != nil {
				c.finish(err)
				return
			}
		}
		if s != nil {
			c.answer(s)
		} else {
			c.flushControl()
		}
		if !c.isBack(turn) {
			return
		}
	}
}

// readFrame reads a frame, or all frames of headers.
func (c *conn) readFrame() (http2.Frame, error) {
	h, err := c.framer.ReadFrameHeader()
	if err != nil {
		return nil, err
	}
	if h.Type != http2.FrameHeaders || h.Flags.Has(http2.FlagHeadersEndHeaders) && h.Length <= leastFrame {
		return c.framer.ReadFrameForHeader(h)
	}
	c.readUntil(time.Now().Add(c.headTime))
	defer c.readUntil(noDeadline)
	return c.framer.ReadFrameForHeader(h)
}

// readUntil bounds how long the reader waits for the client.
func (c *conn) readUntil(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over == nil && !c.quitting {
		_ = c.tls.SetReadDeadline(t)
	}
}

// abandoned ends the connection if a handler has ended its reader. A panic while
// reading is a fault of ours, and may cost a client its connection, but not all
// others theirs.
func (c *conn) abandoned(turn uint64) {
	p := recover()
	if p != nil {
		c.log.Printf("http2: panic reading %s: %v\n%s", c.remote, p, debug.Stack())
	}
	c.mu.Lock()
	mine := c.turn.turn == turn
	c.mu.Unlock()
	if mine || p != nil {
		c.close(errGone)
	}
}

// forgive resets the stream that err is about and returns nil, or returns err if
// it is about the connection.
func (c *conn) forgive(err error) error {
	var fault http2.StreamError
	if !errors.As(err, &fault) {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	// These may have crossed with what the client was told.
	if fault.Code != http2.ErrCodeRefusedStream && fault.Code != http2.ErrCodeStreamClosed {
		c.faults++
	}
	if c.faults > enoughFaults {
		return errCalm
	}
	c.last = max(c.last, fault.StreamID|1)
	if s := c.streams[fault.StreamID]; s != nil {
		c.reset(s, fault.Code, fault)
		return nil
	}
	c.noteClosed(fault.StreamID)
	_ = c.frames.WriteRSTStream(fault.StreamID, fault.Code)
	return nil
}

// finish ends the connection for a reason that reading it gave.
func (c *conn) finish(err error) {
	if errors.Is(err, http2.ErrFrameTooLarge) {
		err = http2.ConnectionError(http2.ErrCodeFrameSize)
	}
	if fault, ok := errors.AsType[http2.ConnectionError](err); ok {
		c.quit(fault)
		return
	}
	c.close(errors.Join(errGone, err))
}

// answer runs the handler of s in place of reading.
func (c *conn) answer(s *stream) {
	c.turn.late.Reset(c.Patience)
	c.run(s)
}

// flushControl sends what the reader has to say. If the client does not read,
// somebody else must: it may be waiting for us to.
func (c *conn) flushControl() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.hasControl() {
		return
	}
	c.turn.away = true
	c.turn.late.Reset(c.Patience)
	c.flush()
}

// isBack reports whether the turn is still the caller's, who reads again then.
func (c *conn) isBack(turn uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.turn.turn != turn {
		return false
	}
	if c.turn.away {
		c.turn.away = false
		c.turn.late.Stop()
	}
	return true
}

// overdue has another goroutine read in place of one that is away for too long.
func (c *conn) overdue() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.replace()
}

// replace is called for a reader that is about to wait, or does. The caller
// holds mu.
func (c *conn) replace() {
	if !c.turn.away || c.over != nil {
		return
	}
	c.turn.away = false
	c.turn.patient = patientFor
	c.turn.turn++
	turn := c.turn.turn
	c.wg.Go(func() { c.read(turn) })
}
