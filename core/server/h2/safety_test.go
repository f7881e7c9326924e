package h2

import (
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// TestTrailersComeWithTheEnd has trailers come while the handler looks at the
// request's, which only reading the body's end may change.
func TestTrailersComeWithTheEnd(t *testing.T) {
	begun, come := make(chan struct{}), make(chan struct{})
	srv := serving(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
		close(begun)
		for last := false; ; {
			for name, values := range r.Trailer {
				if values != nil {
					t.Errorf("%s is there before the body is read", name)
				}
			}
			if last {
				break
			}
			select {
			case <-come:
				last = true
			default:
			}
		}
		_, err := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, len(r.Trailer), r.Trailer["T7"], r.Trailer["Undeclared"], err)
	})
	p := dial(t, srv)
	var names, fields []string
	for n := range 100 {
		names, fields = append(names, fmt.Sprint("t", n)), append(fields, fmt.Sprint("t", n), "value")
	}
	p.ask(1, false, post("/", "trailer", strings.Join(names, ","))...)
	within(t, "the request", begun)
	p.ask(1, true, append(fields, "undeclared", "value")...)
	p.must(p.WritePing(false, [8]byte{1}))
	p.await("PING", func(f http2.Frame) bool { return f.Header().Type == http2.FramePing })
	close(come)
	f := p.await("data", func(f http2.Frame) bool { return f.Header().Type == http2.FrameData }).(*http2.DataFrame)
	if got := string(f.Data()); got != "100 [value] [] <nil>" {
		t.Errorf("got %s", got)
	}
}

// stalled is a connection whose client does not read what a handler is writing.
func stalled(t *testing.T, o Options, stall time.Duration) (p *peer, c *conn, w http.ResponseWriter, wrote, other <-chan error) {
	t.Helper()
	writer, errs, ended := make(chan http.ResponseWriter, 1), make(chan error, 1), make(chan error, 1)
	begun := make(chan struct{})
	var s *server
	p = dialPipe(t, serving(t, o, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/other":
			close(begun)
			<-r.Context().Done()
			ended <- r.Context().Err()
		case "/large":
			writer <- w
			_, err := io.WriteString(w, long(1<<20))
			errs <- err
		}
	}, func(srv *http.Server) { s = configure(srv, o); s.stall = stall }))
	p.must(p.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: math.MaxInt32}))
	p.must(p.WriteWindowUpdate(0, 1<<30))
	p.ask(1, true, get("/other")...)
	within(t, "the other request", begun)
	p.must(p.WritePing(false, [8]byte{1}))
	p.await("PING", func(f http2.Frame) bool { return f.Header().Type == http2.FramePing })
	p.ask(3, true, get("/large")...)
	p.awaitStatus(3, "200") // and no further
	return p, only(s), <-writer, errs, ended
}

// TestWriteDeadlinesFreeWhoWrites has the deadline of a handler pass while it
// writes to a client that does not read.
func TestWriteDeadlinesFreeWhoWrites(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		_, _, w, wrote, other := stalled(t, o, time.Millisecond)
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(-time.Second))
		if err := <-wrote; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the handler is told %v", err)
		}
		if <-other == nil {
			t.Error("the connection is gone, and a handler on it goes on")
		}
	})
}

// TestWhoReadsAfterADeadlineKeepsTheConnection has the client read in time.
func TestWhoReadsAfterADeadlineKeepsTheConnection(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		p, c, w, wrote, _ := stalled(t, o, time.Hour)
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(-time.Second))
		c.mu.Lock()
		hurried := c.hurried
		c.mu.Unlock()
		if !hurried {
			t.Error("the client has for ever")
		}
		p.awaitReset(3, http2.ErrCodeInternal)
		if err := <-wrote; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the handler is told %v", err)
		}
		p.alive(5)
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.hurried || c.over != nil {
			t.Errorf("what comes later is bounded too: %v", c.over)
		}
	})
}

// TestLargeLimits has more than HTTP/2 can say.
func TestLargeLimits(t *testing.T) {
	srv := serving(t, Options{}, echo, func(srv *http.Server) {
		srv.HTTP2 = &http.HTTP2Config{
			MaxConcurrentStreams: math.MaxInt, MaxReadFrameSize: 1 << 30,
			MaxReceiveBufferPerStream: math.MaxInt, MaxReceiveBufferPerConnection: 32768 << 16,
		}
	})
	p := dial(t, srv)
	p.ask(1, false, post("/")...)
	p.must(p.WriteData(1, true, []byte("body")))
	p.awaitEnd(1)
	if p.body[1] != 4 {
		t.Errorf("got %v", p.body)
	}
}

// TestPanicWhileReadingCostsOneConnection has a reader panic that is not net/http's
// goroutine, which would recover.
func TestPanicWhileReadingCostsOneConnection(t *testing.T) {
	release := make(chan struct{})
	var s *server
	srv := serving(t, Options{Quick: always}, func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			<-release
		}
	}, func(srv *http.Server) { s = configure(srv, Options{Quick: always}) })
	other, p := dial(t, srv), dial(t, srv)
	other.alive(1)
	p.ask(1, true, get("/wait")...)
	p.alive(3) // another goroutine reads
	var told logged
	s.log.SetOutput(&told)
	s.mu.Lock()
	for c := range s.conns {
		c.mu.Lock()
		if c.turn.turn > 0 { // a stream that is to have a body, and has not
			c.streams[5] = &stream{c: c, id: 5, size: -1, in: inflow{avail: 9}, cancel: func() {}}
		}
		c.mu.Unlock()
	}
	s.mu.Unlock()
	p.must(p.WriteData(5, true, []byte("x")))
	close(release)
	for {
		if _, err := p.ReadFrame(); err != nil {
			break
		}
	}
	other.alive(3)
	if !strings.Contains(told.String(), "panic reading") {
		t.Errorf("logged %q", told.String())
	}
}

func TestWhatWaitsInVainIsSmall(t *testing.T) {
	release := make(chan struct{})
	var s *server
	srv := serving(t, Options{}, func(http.ResponseWriter, *http.Request) { <-release }, func(srv *http.Server) {
		srv.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: 1}
		s = configure(srv, Options{})
	})
	defer close(release)
	p := dial(t, srv)
	for _, id := range []uint32{1, 3} {
		p.ask(id, true, get("/")...)
		p.must(p.WriteRSTStream(id, http2.ErrCodeCancel))
	}
	p.must(p.WritePing(false, [8]byte{1}))
	p.await("PING", func(f http2.Frame) bool { return f.Header().Type == http2.FramePing })
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.mu.Lock()
		defer c.mu.Unlock()
		if len(c.waiting) != 1 || c.waiting[0].request != nil {
			t.Errorf("%d requests wait, the first with %v", len(c.waiting), c.waiting[0].request)
		}
	}
}
