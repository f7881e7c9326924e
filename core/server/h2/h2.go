// Package h2 serves HTTP/2, and answers what needs not wait on the goroutine
// that reads the connection.
package h2

import (
	"cmp"
	"context"
	"crypto/tls"
	"log"
	"math"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Options says which requests are answered where they are read.
type Options struct {
	// Quick reports whether r will most probably be answered without waiting for
	// anybody, and returns the request to go on with. It must be cheap. What it is
	// wrong about is slower, and nothing else. nil says so of no request.
	Quick func(r *http.Request) (*http.Request, bool)
	// Patience is how long such an answer may take before another goroutine reads
	// the connection. 0 means a millisecond.
	Patience time.Duration
}

const (
	// prefaceTime bounds how long a client may take to begin.
	prefaceTime = 10 * time.Second
	// lingerTime is how long a client may take to read the last of what it is sent.
	lingerTime = time.Second
	// stallTime is how long a client may take to read what holds up a handler that is
	// out of time.
	stallTime = 10 * time.Second
	// headTime is how long a client may take to send headers that come in several
	// frames, or in a large one: they are unpacked, and kept, as they come.
	headTime = 10 * time.Second
	// leastWindow is the window that a client gives, and is given, until told otherwise.
	leastWindow = 65535
	// leastFrame is the size of a frame that anybody takes, in bytes.
	leastFrame = 16 << 10
	// mostFrame is the largest that there can be.
	mostFrame = 1<<24 - 1
)

// limits are what one connection may have.
type limits struct {
	streams                  uint32
	frame, headers           uint32 // in bytes
	streamWindow, connWindow int32  // in bytes
	idle, stall              time.Duration
	headTime, unreadTime     time.Duration
	mostUnread               int64 // answers, on all connections
}

// limitsOf are those of srv, where it has any, and else those of net/http.
func limitsOf(srv *http.Server) limits {
	var c http.HTTP2Config
	if srv.HTTP2 != nil {
		c = *srv.HTTP2
	}
	headers := cmp.Or(srv.MaxHeaderBytes, http.DefaultMaxHeaderBytes)
	return limits{
		streams: uint32(min(cmp.Or(c.MaxConcurrentStreams, 250), math.MaxInt32)),
		frame:   uint32(min(max(leastFrame, cmp.Or(c.MaxReadFrameSize, 1<<20)), mostFrame)),
		// The 32 bytes that HTTP/2 counts for each field are not in the operator's bound.
		headers:      uint32(headers) + 10*32,
		streamWindow: window(c.MaxReceiveBufferPerStream),
		connWindow:   window(c.MaxReceiveBufferPerConnection),
		idle:         srv.IdleTimeout,
		stall:        stallTime,
		headTime:     headTime,
		unreadTime:   unreadTime,
		mostUnread:   mostUnread,
	}
}

// window is size, or what comes nearest to it that HTTP/2 allows.
func window(size int) int32 {
	return int32(min(max(leastWindow, cmp.Or(size, 1<<20)), math.MaxInt32))
}

// server is what connections of one http.Server share.
type server struct {
	Options
	limits
	log    *log.Logger
	second atomic.Pointer[second]
	ends   unread

	mu     sync.Mutex // guards following
	conns  map[*conn]struct{}
	ending bool
}

// Configure has srv serve HTTP/2 with this package, within srv's own limits. It
// must be called before srv serves. Shutdown, Close, BaseContext, ConnContext,
// IdleTimeout, MaxHeaderBytes, ErrorLog and HTTP2 of srv work as they do without;
// ConnState is not told of idle connections, and ReadTimeout and WriteTimeout do
// not concern HTTP/2.
func Configure(srv *http.Server, o Options) { configure(srv, o) }

func configure(srv *http.Server, o Options) *server {
	o.Patience = cmp.Or(o.Patience, time.Millisecond)
	s := &server{Options: o, limits: limitsOf(srv), log: srv.ErrorLog, conns: map[*conn]struct{}{}}
	if s.log == nil {
		s.log = log.Default()
	}
	srv.RegisterOnShutdown(s.shutDown)
	srv.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){
		"h2": func(_ *http.Server, c *tls.Conn, h http.Handler) { s.serve(c, h) },
	}
	return s
}

// serve returns when c is closed and its handlers have returned.
func (s *server) serve(t *tls.Conn, h http.Handler) {
	ctx := context.Background() //nolint:forbidigo // net/http hands over the connection's context as follows
	if b, ok := h.(interface{ BaseContext() context.Context }); ok {
		ctx = b.BaseContext()
	}
	c := newConn(s, t, h)
	c.base, c.cancel = context.WithCancel(ctx)
	defer c.cancel()
	if !s.enter(c) {
		_ = t.Close()
		return
	}
	defer s.leave(c)
	c.serve()
}

func (s *server) enter(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ending {
		return false
	}
	s.conns[c] = struct{}{}
	return true
}

func (s *server) leave(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

// shutDown has connections end once their requests have.
func (s *server) shutDown() {
	s.mu.Lock()
	s.ending = true
	conns := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		conns = append(conns, c)
	}
	s.mu.Unlock()
	for _, c := range conns {
		c.end()
	}
}
