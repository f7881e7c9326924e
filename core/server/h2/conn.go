package h2

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/portico-proxy/portico/core/limit"
)

var (
	errPreface = errors.New("the client does not begin as HTTP/2 does")
	errGone    = errors.New("the client has closed the connection")
)

// conn is one connection. Any number of goroutines are on it: one that reads,
// and one for each request that is not answered by the reader itself. Whoever has
// something to send becomes the one who writes, if nobody is, and writes what
// others have meanwhile: there is no goroutine for it, and no waiting for one.
type conn struct {
	*server
	tls     *tls.Conn
	state   tls.ConnectionState
	handler http.Handler
	remote  string
	address string       // that remote counts for
	unread  atomic.Int32 // answers whose ends wait for the client
	base    context.Context
	cancel  context.CancelFunc

	// These are the reader's.
	framer *http2.Framer
	early  bool // nothing but the preface has come

	// wg counts readers, writers and handlers. One is added only under mu, while
	// the connection is not over.
	wg sync.WaitGroup

	mu       sync.Mutex // guards following
	over     error      // why nothing can be read or sent any more
	leaving  bool       // GOAWAY was sent, or is about to be
	late     bool       // the time to leave came while something was written
	last     uint32     // the newest request that the client has made
	quitting bool       // for a fault of the client, and soon
	served   uint32     // the newest that is served, once leaving
	streams  map[uint32]*stream
	closed   [128]uint32 // streams reset here, of which more may be on its way
	nClosed  int
	handlers uint32    // that are running
	waiting  []*stream // for one of them to return
	faults   int       // of the client that cost it a stream
	quiet    time.Time // since when there is no stream
	idle     *time.Timer
	look     *time.Timer // for answers that are not read
	turn     reading
	sending
}

// enoughFaults is how many streams a connection may lose to malformed requests.
const enoughFaults = 200

func newConn(s *server, t *tls.Conn, h http.Handler) *conn {
	c := &conn{
		server: s, tls: t, state: t.ConnectionState(), handler: h, remote: t.RemoteAddr().String(),
		streams: map[uint32]*stream{}, early: true, quiet: time.Now(),
	}
	c.address = limit.AddressOf(c.remote)
	c.framer = http2.NewFramer(io.Discard, t)
	c.framer.SetMaxReadFrameSize(s.frame)
	c.framer.SetReuseFrames()
	c.framer.ReadMetaHeaders = hpack.NewDecoder(tableSize, nil)
	c.framer.MaxHeaderListSize = s.headers
	c.sending = newSending()
	c.prepare()
	c.stopped.L = &c.mu
	c.in.avail = s.connWindow
	return c
}

// serve returns when the connection is over and all its goroutines but this one
// have returned.
func (c *conn) serve() {
	c.turn.late = time.AfterFunc(time.Hour, c.overdue)
	c.turn.late.Stop()
	c.wg.Add(1)
	defer c.wg.Wait()
	defer c.wg.Done() // first: a reader counts
	if err := c.greet(); err != nil {
		c.close(err)
		return
	}
	c.mu.Lock()
	if c.server.idle > 0 {
		c.idle = time.AfterFunc(c.server.idle, c.overIdle)
	}
	c.look = time.AfterFunc(c.unreadTime, c.inspect)
	c.mu.Unlock()
	c.read(0)
}

// greet tells the client our limits and reads the words with which it begins.
func (c *conn) greet() error {
	_ = c.tls.SetReadDeadline(time.Now().Add(prefaceTime))
	c.mu.Lock()
	_ = c.frames.WriteSettings(
		http2.Setting{ID: http2.SettingMaxFrameSize, Val: c.frame},
		http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: c.server.streams},
		http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: c.headers},
		http2.Setting{ID: http2.SettingHeaderTableSize, Val: tableSize},
		http2.Setting{ID: http2.SettingInitialWindowSize, Val: uint32(c.streamWindow)})
	if more := c.connWindow - leastWindow; more > 0 {
		_ = c.frames.WriteWindowUpdate(0, uint32(more))
	}
	if !isStrong(c.state) {
		c.goAway(http2.ErrCodeInadequateSecurity)
	}
	c.flush()
	over := c.over
	c.mu.Unlock()
	if over != nil || !isStrong(c.state) {
		return errors.Join(over, errPreface)
	}
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(c.tls, preface); err != nil {
		return err
	}
	if !bytes.Equal(preface, []byte(http2.ClientPreface)) {
		return errPreface
	}
	return nil
}

// isStrong reports whether HTTP/2 may be spoken with this cipher (RFC 9113, 9.2.2).
func isStrong(s tls.ConnectionState) bool {
	return s.Version >= tls.VersionTLS13 || slices.Contains([]uint16{
		tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
		tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
		tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
	}, s.CipherSuite)
}

// close ends the connection, and with it all that is asked on it.
func (c *conn) close(why error) {
	c.mu.Lock()
	c.fail(why)
	c.mu.Unlock()
	_ = c.tls.Close()
}

// fail ends all streams. The caller holds mu.
func (c *conn) fail(why error) {
	if c.over != nil {
		return
	}
	c.over = why
	c.turn.late.Stop()
	if c.idle != nil {
		c.idle.Stop()
	}
	if c.look != nil {
		c.look.Stop()
	}
	for _, s := range c.streams {
		c.drop(s, why)
	}
	c.cancel()
	c.waiting = nil
	// Whoever reads or writes is to notice.
	_ = c.tls.SetDeadline(time.Now().Add(lingerTime))
}

// quit tells the client of its fault and ends the connection.
func (c *conn) quit(fault http2.ConnectionError) {
	c.mu.Lock()
	c.goAway(http2.ErrCode(fault))
	c.quitting = true // so that nobody undoes the following
	_ = c.tls.SetDeadline(time.Now().Add(lingerTime))
	for c.writing && c.over == nil {
		c.stopped.Wait() // it takes GOAWAY with it
	}
	c.flush()
	c.fail(fault)
	c.mu.Unlock()
	c.linger()
}

// linger lets the client read the last of what was sent: what it still sends
// would otherwise have the kernel take that away.
func (c *conn) linger() {
	const most = 4 << 20 // of what nobody reads, in bytes
	_ = c.tls.SetDeadline(time.Now().Add(lingerTime))
	if c.tls.CloseWrite() == nil {
		_, _ = io.CopyN(io.Discard, c.tls.NetConn(), most)
	}
	_ = c.tls.Close()
}

// goAway has the client make no more requests here. The caller holds mu.
func (c *conn) goAway(code http2.ErrCode) {
	if !c.leaving {
		c.leaving, c.served = true, c.last
	} else if code == http2.ErrCodeNo {
		return
	}
	_ = c.frames.WriteGoAway(c.served, code, nil)
}

// end ends the connection once its requests have ended.
func (c *conn) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.goAway(http2.ErrCodeNo)
	c.flushAside()
	c.resting()
}

// resting is called when a stream has ended. The caller holds mu.
func (c *conn) resting() {
	switch {
	case len(c.streams) > 0 || c.over != nil:
	case c.leaving:
		// The client is told by GOAWAY, and has this long to go by itself.
		if c.idle != nil {
			c.idle.Stop()
		}
		c.idle = time.AfterFunc(lingerTime, c.leave)
	default:
		c.quiet = time.Now()
	}
}

// leave closes a connection that has nothing to do. Its reader notices. A client
// that has not yet taken the last of an answer has as long for it as anybody.
func (c *conn) leave() {
	c.mu.Lock()
	busy := len(c.streams) > 0
	if c.over == nil && (c.writing || c.out.len() > 0) {
		busy, c.late = true, true
		c.hurry(c.unreadTime)
		c.idle.Reset(lingerTime)
	}
	c.mu.Unlock()
	if !busy {
		_ = c.tls.Close()
	}
}

// overIdle ends the connection if it has been idle for long enough.
func (c *conn) overIdle() {
	c.mu.Lock()
	left := c.server.idle
	if len(c.streams) == 0 {
		left -= time.Since(c.quiet)
	}
	if c.over != nil || c.leaving {
		c.mu.Unlock()
		return
	}
	if left > 0 {
		c.idle.Reset(left)
		c.mu.Unlock()
		return
	}
	c.mu.Unlock()
	c.end()
}
