package upstream

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apiserver/pkg/endpoints/request"
)

const (
	// readConnections bounds the connections of one leg that reads have to
	// themselves. Further ones share a connection with other requests.
	readConnections = 32
	// readsIdle is how long such a connection is kept unused. It is less than
	// pingAfter, so that the API server is not asked about those.
	readsIdle = 10 * time.Second
	// readAhead is how much is read from such a connection at once, in bytes, and
	// longAhead how much of a long answer.
	readAhead = 64 << 10
	longAhead = 512 << 10
	// pace is how long a long answer may gather before more of it is read, and
	// paceAfter from how many bytes on an answer is long.
	pace      = 6 * time.Millisecond
	paceAfter = 1 << 20
)

// reads is a pool of HTTP/1.1 connections. HTTP/2 cuts an answer into frames,
// counts each against two windows and takes each from goroutine to goroutine,
// here and in the API server; for a list of a hundred megabytes that is most of
// what either does.
type reads struct {
	http.RoundTripper
	open atomic.Int32
}

// enter takes one of the connections, if there is one left.
func (p *reads) enter() bool {
	if p.open.Add(1) > readConnections {
		p.leave()
		return false
	}
	return true
}

func (p *reads) leave() { p.open.Add(-1) }

// RoundTrip sends r on the connection that enter took.
func (p *reads) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := p.RoundTripper.RoundTrip(r)
	if err != nil {
		p.leave()
		return nil, err
	}
	res.Body = &leaving{ReadCloser: res.Body, leave: p.leave}
	return res, nil
}

// leaving is the body of an answer. Its end sets the connection free.
type leaving struct {
	io.ReadCloser
	leave func()
	once  sync.Once
}

func (b *leaving) Close() error {
	defer b.once.Do(b.leave)
	return b.ReadCloser.Close()
}

// isRead reports requests for objects as they are. They are answered soon and
// may be sent again.
func isRead(r *http.Request) bool {
	info, ok := request.RequestInfoFrom(r.Context())
	return ok && r.Method == http.MethodGet && info.IsResourceRequest && info.Subresource == "" &&
		(info.Verb == "get" || info.Verb == "list") && (r.Body == nil || r.Body == http.NoBody)
}

// fitsHTTP1 reports whether r means over HTTP/1.1 what it means over HTTP/2,
// where a query may be anything and nobody looks at Expect.
func fitsHTTP1(r *http.Request) bool {
	return len(r.Header["Expect"]) == 0 &&
		strings.IndexFunc(r.URL.RawQuery, func(c rune) bool { return c <= ' ' || c >= 0x7f }) < 0
}

// isObject reports answers that are of use only when they are complete.
func isObject(h http.Header) bool {
	mediaType, parameters, _ := mime.ParseMediaType(h.Get("Content-Type"))
	switch mediaType {
	case "application/json", "application/yaml", "application/cbor", "application/vnd.kubernetes.protobuf":
		return parameters["stream"] == "" && len(h["Trailer"]) == 0
	}
	return false
}

// gathered fills the buffer it is given, so that what follows is done once for
// many small pieces.
type gathered struct {
	io.ReadCloser
	err error
}

func (g *gathered) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) && g.err == nil {
		var more int
		more, g.err = g.ReadCloser.Read(p[n:])
		n += more
	}
	if n > 0 {
		return n, nil
	}
	return 0, g.err
}

// attentive is a connection whose other side does not stay silent for ever.
// HTTP/1.1 has no pings: where nothing comes for pingAfter, the API server is
// asked for another connection.
type attentive struct {
	*paced
	buffered *bufio.Reader
	patience time.Duration
	ask      func() error

	armed time.Time // when the deadline was set; the reader's
}

func (c *attentive) Read(p []byte) (int, error) {
	for {
		if err := c.arm(); err != nil {
			return 0, err
		}
		n, err := c.reader().Read(p)
		if n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
		c.armed = time.Time{}
		if err := c.ask(); err != nil {
			return 0, fmt.Errorf("nothing came for %v: %w", c.patience, err)
		}
	}
}

// reader grows with the first long answer.
func (c *attentive) reader() *bufio.Reader {
	if c.isLong() && c.buffered.Buffered() == 0 && c.buffered.Size() < longAhead {
		c.buffered = bufio.NewReaderSize(c.paced, longAhead)
	}
	return c.buffered
}

func newAttentive(conn net.Conn, ask func() error) *attentive {
	far := &paced{Conn: conn}
	// TLS asks for a record at a time, which is no more than 16 KiB.
	return &attentive{paced: far, buffered: bufio.NewReaderSize(far, readAhead), patience: pingAfter, ask: ask}
}

// arm sets the deadline, but not for each of the many reads that a list is.
func (c *attentive) arm() error {
	now := time.Now()
	if now.Sub(c.armed) < c.patience/16 {
		return nil
	}
	c.armed = now
	return c.SetReadDeadline(now.Add(c.patience))
}

// paced is a connection whose long answers are read much at a time. The API
// server writes them slower than we read, a few kilobytes at a time, and waking
// for each would cost more than all else that is done with it.
type paced struct {
	net.Conn
	asked atomic.Bool // something has been written since the last Read
	got   int         // bytes read since; the reader's
	short bool        // the last Read got less than it could have; the reader's
}

func (c *paced) Write(p []byte) (int, error) {
	c.asked.Store(true)
	return c.Conn.Write(p)
}

func (c *paced) isLong() bool { return c.got > paceAfter }

func (c *paced) Read(p []byte) (int, error) {
	if c.asked.Swap(false) {
		c.got = 0
	}
	if c.short && c.isLong() {
		<-time.After(pace)
	}
	n, err := c.Conn.Read(p)
	c.got += n
	c.short = n < len(p)/2
	return n, err
}

var (
	_ http.RoundTripper = (*reads)(nil)
	_ net.Conn          = (*attentive)(nil)
)
