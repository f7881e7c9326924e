package h2

import (
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

func TestShutdownEndsRequestsFirst(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		begun, release := make(chan struct{}), make(chan struct{})
		srv := serving(t, o, func(w http.ResponseWriter, _ *http.Request) {
			close(begun)
			<-release
			_, _ = io.WriteString(w, "whole")
		})
		idle := dial(t, srv)
		p := dial(t, srv)
		p.ask(1, true, get("/")...)
		within(t, "the request", begun)
		down := make(chan error, 1)
		go func() { down <- srv.Config.Shutdown(t.Context()) }()
		idle.awaitQuit(http2.ErrCodeNo)
		f := p.await("GOAWAY", func(f http2.Frame) bool { return f.Header().Type == http2.FrameGoAway }).(*http2.GoAwayFrame)
		if f.LastStreamID != 1 || f.ErrCode != http2.ErrCodeNo {
			t.Errorf("got %v", f)
		}
		p.ask(3, true, get("/")...) // which will be made elsewhere
		close(release)
		p.awaitEnd(1)
		if p.body[1] != 5 || p.body[3] != 0 {
			t.Errorf("got %v", p.body)
		}
		if err := <-down; err != nil {
			t.Error(err)
		}
	})
}

func TestCloseEndsHandlers(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		begun, ended := make(chan struct{}), make(chan struct{})
		srv := serving(t, o, func(_ http.ResponseWriter, r *http.Request) {
			close(begun)
			<-r.Context().Done()
			close(ended)
		})
		p := dial(t, srv)
		p.ask(1, true, get("/")...)
		within(t, "the request", begun)
		if err := srv.Config.Close(); err != nil {
			t.Error(err)
		}
		within(t, "the end", ended)
	})
}

func TestAnswersMayEndTheConnection(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		srv := serving(t, o, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Connection", "close")
			_, _ = io.WriteString(w, "last")
		})
		p := dial(t, srv)
		p.ask(1, true, get("/")...)
		f := p.await("GOAWAY", func(f http2.Frame) bool { return f.Header().Type == http2.FrameGoAway }).(*http2.GoAwayFrame)
		if f.LastStreamID != 1 || f.ErrCode != http2.ErrCodeNo {
			t.Errorf("got %v", f)
		}
		p.awaitEnd(1)
		for {
			if _, err := p.ReadFrame(); err != nil {
				break
			}
		}
		// Go's client goes on elsewhere.
		c := client(t)
		for range 3 {
			res, err := c.Get(srv.URL)
			if got := read(t, res, err); got != "last" {
				t.Errorf("got %q", got)
			}
		}
	})
}

// TestConnectionsEndAfterTheLastOfAnAnswer has a client not yet read that when the
// time to leave has come.
func TestConnectionsEndAfterTheLastOfAnAnswer(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		const size = heldSize / 2
		var s *server
		p := dialPipe(t, serving(t, o, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Connection", "close")
			_, _ = io.WriteString(w, strings.Repeat("x", size))
		}, func(srv *http.Server) { s = configure(srv, o) }))
		p.ask(1, true, get("/")...)
		p.awaitStatus(1, "200") // and no further
		c := only(s)
		c.leave() // as the timer does
		c.mu.Lock()
		hurried := c.hurried
		c.mu.Unlock()
		if !hurried {
			t.Error("the client has for ever")
		}
		if p.awaitEnd(1); p.body[1] != size {
			t.Errorf("got %d bytes", p.body[1])
		}
		for {
			if _, err := p.ReadFrame(); err != nil {
				break
			}
		}
	})
}

func TestIdleConnectionsEnd(t *testing.T) {
	srv := serving(t, Options{}, say("ok"), func(srv *http.Server) { srv.IdleTimeout = time.Millisecond })
	p := dialRaw(t, srv.Listener.Addr())
	_, _ = io.WriteString(p.conn, http2.ClientPreface)
	_ = p.WriteSettings()
	p.awaitQuit(http2.ErrCodeNo)
}

func TestConnectionsWithRequestsAreNotIdle(t *testing.T) {
	release := make(chan struct{})
	var s *server
	srv := serving(t, Options{}, func(w http.ResponseWriter, _ *http.Request) {
		_ = http.NewResponseController(w).Flush()
		<-release
	}, func(srv *http.Server) { srv.IdleTimeout = time.Hour }, func(srv *http.Server) { s = configure(srv, Options{}) })
	p := dial(t, srv)
	p.ask(1, true, get("/")...)
	p.awaitStatus(1, "200")
	c := only(s)
	late := func() (leaving bool) { // as the timer is, when an hour has passed
		c.mu.Lock()
		c.quiet = time.Now().Add(-2 * time.Hour)
		c.mu.Unlock()
		c.overIdle()
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.leaving
	}
	if late() {
		t.Error("a connection with a request was taken for idle")
	}
	close(release)
	p.awaitEnd(1)
	if !late() {
		t.Error("an idle connection goes on")
	}
	p.awaitQuit(http2.ErrCodeNo)
}

func TestClientsMayLeave(t *testing.T) {
	release := make(chan struct{})
	srv := serving(t, Options{}, func(_ http.ResponseWriter, _ *http.Request) { <-release })
	p := dial(t, srv)
	p.ask(1, true, get("/")...)
	p.must(p.WriteGoAway(0, http2.ErrCodeNo, nil))
	close(release)
	p.awaitEnd(1)
	for {
		if _, err := p.ReadFrame(); err != nil {
			return
		}
	}
}

func TestWeakCiphersAreRefused(t *testing.T) {
	srv := serving(t, Options{}, say("ok"))
	c, err := tls.Dial("tcp", srv.Listener.Addr().String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"},
		MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	p := &peer{Framer: http2.NewFramer(c, c), t: t, conn: c, body: map[uint32]int{}}
	p.awaitQuit(http2.ErrCodeInadequateSecurity)
}

func TestHandlersOutliveNothing(t *testing.T) {
	var kept http.ResponseWriter
	srv := serving(t, Options{Quick: always}, func(w http.ResponseWriter, _ *http.Request) { kept = w })
	p := dial(t, srv)
	p.ask(1, true, get("/")...)
	p.awaitEnd(1)
	p.ask(3, true, get("/")...) // the handler of 1 has returned
	p.awaitEnd(3)
	srv.Close() // waits for all of it
	if _, err := kept.Write([]byte("x")); !errors.Is(err, errReturned) {
		t.Errorf("got %v", err)
	}
}

// TestRequestsThatCrossWithGoAwayAreNotServed has the connection begin to end after
// the reader has seen that it does not: the client will make the request elsewhere.
func TestRequestsThatCrossWithGoAwayAreNotServed(t *testing.T) {
	var s *server
	served := make(chan string, 2)
	srv := serving(t, Options{}, func(_ http.ResponseWriter, r *http.Request) { served <- r.URL.Path }, func(srv *http.Server) {
		s = configure(srv, Options{Quick: func(r *http.Request) (*http.Request, bool) {
			if r.URL.Path == "/crossing" {
				s.shutDown()
			}
			return r, false
		}})
	})
	p := dial(t, srv)
	p.ask(1, true, get("/before")...)
	p.awaitEnd(1)
	p.ask(3, true, get("/crossing")...)
	f := p.await("GOAWAY", func(f http2.Frame) bool { return f.Header().Type == http2.FrameGoAway }).(*http2.GoAwayFrame)
	if f.LastStreamID != 1 {
		t.Errorf("got %v", f)
	}
	for {
		if _, err := p.ReadFrame(); err != nil {
			break
		}
	}
	srv.Close() // waits for handlers
	if close(served); len(served) != 1 {
		t.Errorf("%d requests were served, of which the client was told of one", len(served))
	}
}
