package h2

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// always has every request answered where it is read.
func always(r *http.Request) (*http.Request, bool) { return r, true }

// both runs a test with requests that are answered where they are read, and with
// those that are not.
func both(t *testing.T, run func(t *testing.T, o Options)) {
	t.Run("quick", func(t *testing.T) { run(t, Options{Quick: always}) })
	t.Run("slow", func(t *testing.T) { run(t, Options{}) })
}

// logged is what a server has logged.
type logged struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// serving is a server that answers with h.
func serving(t testing.TB, o Options, h http.HandlerFunc, changes ...func(*http.Server)) *httptest.Server {
	t.Helper()
	srv := httptest.NewUnstartedServer(h)
	srv.Config.ErrorLog = log.New(&logged{}, "", 0)
	for _, change := range changes {
		change(srv.Config)
	}
	if srv.Config.TLSNextProto == nil {
		Configure(srv.Config, o)
	}
	srv.EnableHTTP2 = true
	srv.TLS = &tls.Config{NextProtos: []string{"h2", "http/1.1"}}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return srv
}

// only is the connection of a server that has one.
func only(s *server) (c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c = range s.conns {
	}
	return c
}

// A peer is a client that sends frames as it likes.
type peer struct {
	*http2.Framer
	t       *testing.T
	conn    *tls.Conn
	headers bytes.Buffer
	encoder *hpack.Encoder
	body    map[uint32]int // bytes of answers
}

// dial is a connection whose beginning is over.
func dial(t *testing.T, srv *httptest.Server) *peer {
	t.Helper()
	p := dialRaw(t, srv.Listener.Addr())
	if _, err := io.WriteString(p.conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	p.must(p.WriteSettings())
	p.await("SETTINGS", func(f http2.Frame) bool { return f.Header().Type == http2.FrameSettings })
	return p
}

func dialRaw(t *testing.T, to net.Addr) *peer {
	t.Helper()
	c, err := tls.Dial("tcp", to.String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	return newPeer(t, c)
}

func newPeer(t *testing.T, c *tls.Conn) *peer {
	t.Helper()
	t.Cleanup(func() { _ = c.Close() })
	p := &peer{Framer: http2.NewFramer(c, c), t: t, conn: c, body: map[uint32]int{}}
	p.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	p.encoder = hpack.NewEncoder(&p.headers)
	return p
}

func (p *peer) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

// pipes is a listener of connections that hold nothing: who does not read stops
// who writes.
type pipes struct {
	conns chan net.Conn
	once  sync.Once
}

func (l *pipes) Addr() net.Addr { return &net.TCPAddr{} }

func (l *pipes) Accept() (net.Conn, error) {
	if c, ok := <-l.conns; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}

func (l *pipes) Close() error {
	l.once.Do(func() { close(l.conns) })
	return nil
}

// dialPipe is dial over such a connection.
func dialPipe(t *testing.T, srv *httptest.Server) *peer {
	t.Helper()
	l := &pipes{conns: make(chan net.Conn, 1)}
	near, far := net.Pipe()
	l.conns <- far
	var served sync.WaitGroup
	served.Go(func() { _ = srv.Config.Serve(tls.NewListener(l, srv.TLS)) })
	t.Cleanup(served.Wait)
	t.Cleanup(func() { _ = l.Close() })
	c := tls.Client(near, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	p := newPeer(t, c)
	settled := make(chan struct{})
	go func() { // what the server says first has to be read meanwhile
		defer close(settled)
		_, _ = io.WriteString(c, http2.ClientPreface)
		_ = p.WriteSettings()
	}()
	p.await("SETTINGS", func(f http2.Frame) bool { return f.Header().Type == http2.FrameWindowUpdate })
	<-settled
	return p
}

// get are the fields of a request, and more after them as name and value.
func get(path string, more ...string) []string {
	return append([]string{":method", "GET", ":scheme", "https", ":authority", "example.org", ":path", path}, more...)
}

func post(path string, more ...string) []string {
	fields := get(path, more...)
	fields[1] = "POST"
	return fields
}

func (p *peer) encode(fields []string) []byte {
	p.headers.Reset()
	for i := 0; i < len(fields); i += 2 {
		p.must(p.encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}))
	}
	return bytes.Clone(p.headers.Bytes())
}

// ask sends a request, which ends if it is said to.
func (p *peer) ask(id uint32, end bool, fields ...string) {
	p.t.Helper()
	p.must(p.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: p.encode(fields), EndStream: end, EndHeaders: true}))
}

// await reads up to the first frame that is as wanted, which match says.
func (p *peer) await(what string, match func(http2.Frame) bool) http2.Frame {
	p.t.Helper()
	for {
		f, err := p.ReadFrame()
		if err != nil {
			p.t.Fatalf("wait for %s: %v", what, err)
		}
		if d, ok := f.(*http2.DataFrame); ok {
			p.body[d.StreamID] += len(d.Data())
		}
		if match(f) {
			return f
		}
	}
}

func (p *peer) awaitEnd(id uint32) {
	p.t.Helper()
	p.await(fmt.Sprintf("the end of %d", id), func(f http2.Frame) bool {
		return f.Header().StreamID == id && (f.Header().Type == http2.FrameData || f.Header().Type == http2.FrameHeaders) && f.Header().Flags.Has(http2.FlagDataEndStream)
	})
}

func (p *peer) awaitStatus(id uint32, status string) *http2.MetaHeadersFrame {
	p.t.Helper()
	f := p.await("the answer to "+fmt.Sprint(id), func(f http2.Frame) bool {
		return f.Header().StreamID == id && f.Header().Type == http2.FrameHeaders
	}).(*http2.MetaHeadersFrame)
	if got := f.PseudoValue("status"); got != status {
		p.t.Errorf("stream %d: status %s, want %s", id, got, status)
	}
	return f
}

func (p *peer) awaitReset(id uint32, code http2.ErrCode) {
	p.t.Helper()
	f := p.await(fmt.Sprintf("RST_STREAM of %d", id), func(f http2.Frame) bool {
		return f.Header().StreamID == id && f.Header().Type == http2.FrameRSTStream
	}).(*http2.RSTStreamFrame)
	if f.ErrCode != code {
		p.t.Errorf("stream %d: reset with %v, want %v", id, f.ErrCode, code)
	}
}

// awaitQuit waits for GOAWAY with code and for the end of the connection.
func (p *peer) awaitQuit(code http2.ErrCode) {
	p.t.Helper()
	f := p.await("GOAWAY", func(f http2.Frame) bool { return f.Header().Type == http2.FrameGoAway }).(*http2.GoAwayFrame)
	if f.ErrCode != code {
		p.t.Errorf("GOAWAY with %v, want %v", f.ErrCode, code)
	}
	for {
		if _, err := p.ReadFrame(); err != nil {
			return
		}
	}
}

// alive checks that the connection still serves, by id.
func (p *peer) alive(id uint32) {
	p.t.Helper()
	p.ask(id, true, get("/alive")...)
	p.awaitStatus(id, "200")
}

func say(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) }
}

// client is one of Go's, with one connection.
func client(t *testing.T) *http.Client {
	t.Helper()
	tr := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func read(t *testing.T, res *http.Response, err error) string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// within fails the test if f takes for ever.
func within(t *testing.T, what string, done <-chan struct{}) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	select {
	case <-done:
	case <-ctx.Done():
		t.Fatalf("%s did not happen", what)
	}
}

func long(n int) string { return strings.Repeat("0123456789", n/10) }
