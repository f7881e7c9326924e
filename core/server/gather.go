package server

import (
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// recordSize is what a TLS record holds of a long answer, in bytes. Whoever
	// writes one that is full writes another.
	recordSize = 16 << 10
	// restSize is more than a record takes that holds what a frame of HTTP/2 is
	// larger than a record: the nine bytes of its head.
	restSize = 64
	// gatherSize is how many bytes go to the kernel at once.
	gatherSize = 8 * (recordSize + 256)
	// gatherTime bounds how long a record may wait for the next.
	gatherTime = time.Millisecond
	// closeTime bounds how long the last of an answer may take.
	closeTime = time.Second
)

// gathering is a listener whose connections hand long answers to the kernel
// several records at a time. TLS makes a system call for each, and each wakes the
// client.
type gathering struct {
	net.Listener
	crowd *crowd
	debts *debts
}

func (l gathering) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if known, ok := l.crowd.enter(perConnection(c)); ok {
			return &gatheringConn{Conn: l.debts.admit(known), patience: gatherTime}, nil
		}
		_ = c.Close()
	}
}

// A gatheringConn holds back a record that is full, and the rest of a frame after
// it: more is on its way. Anything else is the last of what there is to send, and
// takes with it what was held back.
type gatheringConn struct {
	net.Conn
	patience time.Duration
	sent     atomic.Int64 // bytes, since others were last let run

	mu    sync.Mutex // guards following
	held  *[]byte    // nil while nothing is
	full  bool       // what was held last is a full record
	late  *time.Timer
	wrong error
}

var gatherBuffers = sync.Pool{New: func() any {
	b := make([]byte, 0, gatherSize)
	return &b
}}

// polite is a connection that lets others run before each read. What reads a
// connection and what answers it hand a processor to each other for ten
// milliseconds before the scheduler looks for anybody else, so that some clients
// who send as fast as they can would be all that is served.
type polite struct{ net.Conn }

func (c polite) Read(p []byte) (int, error) {
	runtime.Gosched()
	return c.Conn.Read(p)
}

// Write lets others run once much was sent: a list that fits into the kernel's
// buffers would otherwise be written as a whole before anybody else has a turn.
func (c *gatheringConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	n, err := c.write(p)
	c.mu.Unlock()
	if c.sent.Add(int64(n)) >= gatherSize/2 {
		c.sent.Store(0)
		runtime.Gosched()
	}
	return n, err
}

// write sends p or holds it. The caller holds mu.
func (c *gatheringConn) write(p []byte) (int, error) {
	switch {
	case c.wrong != nil:
		return 0, c.wrong
	case c.goesOn(p) && c.hold(p):
		return len(p), nil
	case c.held == nil:
		return c.Conn.Write(p)
	case len(*c.held)+len(p) <= cap(*c.held):
		*c.held = append(*c.held, p...)
		return len(p), c.flush()
	}
	if err := c.flush(); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

// goesOn reports whether more comes after p.
func (c *gatheringConn) goesOn(p []byte) bool {
	return len(p) >= recordSize || c.held != nil && c.full && len(p) < restSize
}

// hold keeps p, unless it is too much.
func (c *gatheringConn) hold(p []byte) bool {
	if c.held == nil {
		c.held = gatherBuffers.Get().(*[]byte)
		c.await()
	}
	if len(*c.held)+len(p)+recordSize > cap(*c.held) {
		return false
	}
	*c.held = append(*c.held, p...)
	c.full = len(p) >= recordSize
	return true
}

// Close sends what is held: the last record of an answer may be a full one.
func (c *gatheringConn) Close() error {
	// Who writes sends it all himself, if the client takes it.
	if c.mu.TryLock() {
		if c.held != nil {
			// TLS has set one that is over.
			_ = c.Conn.SetWriteDeadline(time.Now().Add(closeTime))
			_ = c.flush()
		}
		c.mu.Unlock()
	}
	return c.Conn.Close()
}

// await sends what is held in time, whatever comes.
func (c *gatheringConn) await() {
	if c.late == nil {
		c.late = time.AfterFunc(c.patience, c.overdue)
		return
	}
	c.late.Reset(c.patience)
}

func (c *gatheringConn) overdue() {
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.flush() // the next Write tells
}

// flush sends what is held. The caller holds mu.
func (c *gatheringConn) flush() error {
	if c.held == nil {
		return nil
	}
	c.late.Stop()
	_, err := c.Conn.Write(*c.held)
	*c.held = (*c.held)[:0]
	gatherBuffers.Put(c.held)
	c.held = nil
	c.wrong = err
	return err
}
