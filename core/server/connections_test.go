package server

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"github.com/google/go-cmp/cmp"
)

// pipeFrom is a connection from an address.
type pipeFrom struct {
	net.Conn
	address string
	closed  *[]string
}

func (p pipeFrom) RemoteAddr() net.Addr {
	host, port := p.address[:len(p.address)-2], p.address[len(p.address)-1]
	return &net.TCPAddr{IP: net.ParseIP(strings.Trim(host, "[]")), Port: int(port - '0')}
}

func (p pipeFrom) Close() error {
	*p.closed = append(*p.closed, p.address)
	return nil
}

func TestWhoHasMostConnectionsLosesSome(t *testing.T) {
	var closed, told []string
	s := newCrowd(4, funcr.New(func(_, args string) { told = append(told, args) }, funcr.Options{}))
	enter := func(address string) bool {
		c, ok := s.enter(pipeFrom{address: address, closed: &closed})
		if ok {
			c.(*counted).settle()
		}
		return ok
	}
	for _, step := range []struct {
		address string
		enters  bool
		closed  string
	}{
		{"10.0.0.1:1", true, ""}, {"10.0.0.1:2", true, ""}, {"10.0.0.1:3", true, ""}, {"10.0.0.1:4", true, ""},
		{"10.0.0.1:5", false, ""},
		{"10.0.0.2:1", true, "10.0.0.1:4"},
		{"10.0.0.3:1", true, "10.0.0.1:3"},
		{"10.0.0.3:2", false, ""}, // two each would be as many as the one with most has
		{"10.0.0.4:1", true, "10.0.0.1:2"},
		{"10.0.0.5:1", false, ""},
	} {
		closed = nil
		if got := enter(step.address); got != step.enters || strings.Join(closed, " ") != step.closed {
			t.Errorf("%s: let in %v, closed %v; want %v, %s", step.address, got, closed, step.enters, step.closed)
		}
	}
	if len(told) != 1 || !strings.Contains(told[0], "--max-connections") || !strings.Contains(told[0], "10.0.0.1") {
		t.Errorf("the log was told %q, want one line that names the flag and the address", told)
	}
}

// TestWhoSaysNothingMakesRoom has somebody open connections for nothing, and others
// of the same address make requests.
func TestWhoSaysNothingMakesRoom(t *testing.T) {
	var closed []string
	s := newCrowd(3, logr.Discard())
	enter := func(address string) *counted {
		c, ok := s.enter(pipeFrom{address: address, closed: &closed})
		if !ok {
			return nil
		}
		return c.(*counted)
	}
	enter("10.0.0.1:1").settle()
	enter("10.0.0.1:2")
	enter("10.0.0.1:3")
	for _, step := range []struct {
		address string
		settles bool
		closed  string
	}{
		{"10.0.0.1:4", true, "10.0.0.1:2"},
		{"10.0.0.1:5", false, "10.0.0.1:3"},
		{"[2001:db8::1]:1", false, "10.0.0.1:5"},
		{"[2001:db8::2]:2", false, "[2001:db8::1]:1"}, // is of the same network
		{"10.0.0.1:6", false, ""},
	} {
		closed = nil
		if c := enter(step.address); c != nil && step.settles {
			c.settle()
		}
		if got := strings.Join(closed, " "); got != step.closed {
			t.Errorf("%s: closed %s, want %s", step.address, got, step.closed)
		}
	}
	if s.total != 3 {
		t.Errorf("%d are counted, want 3", s.total)
	}
}

func TestClosedConnectionsMakeRoomOnce(t *testing.T) {
	var closed []string
	s := newCrowd(1, logr.Discard())
	first, _ := s.enter(pipeFrom{address: "10.0.0.1:1", closed: &closed})
	_ = first.Close()
	_ = first.Close()
	if s.total != 0 || len(s.from) != 0 {
		t.Errorf("%d remain: %v", s.total, s.from)
	}
	if _, ok := s.enter(pipeFrom{address: "10.0.0.2:1", closed: &closed}); !ok {
		t.Error("no room for the next")
	}
	if diff := cmp.Diff([]string{"10.0.0.1:1", "10.0.0.1:1"}, closed); diff != "" {
		t.Error(diff)
	}
}

func TestConnectionsAreBounded(t *testing.T) { eachServer(t, testConnectionsAreBounded) }

func testConnectionsAreBounded(t *testing.T, o Options) {
	o.Handler, o.MaxConnections = say("ok"), 2
	s, client, _ := running(t, o)
	pool := client.Transport.(*http.Transport).TLSClientConfig.RootCAs
	dial := func() (*tls.Conn, error) {
		return tls.Dial("tcp", s.Addr().String(), &tls.Config{RootCAs: pool, ServerName: "127.0.0.1", MinVersion: tls.VersionTLS13})
	}
	var open []*tls.Conn
	for range 2 {
		c, err := dial()
		if err != nil {
			t.Fatal(err)
		}
		// Who has had an answer keeps its place.
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
	}
	if c, err := dial(); err == nil {
		t.Error("a third connection was served")
		_ = c.Close()
	}
	_ = open[0].Close()
	// That it is gone the server learns when it reads.
	for {
		if _, err := client.Get(url(s)); err == nil {
			break
		}
		if t.Context().Err() != nil {
			t.Fatal("no room was made")
		}
	}
	_ = open[1].Close()
	res, err := client.Get(url(s))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if body, err := io.ReadAll(res.Body); err != nil || string(body) != "ok" {
		t.Errorf("got %q, %v", body, err)
	}
}

func TestDefaultOfConnectionsIsBounded(t *testing.T) {
	if n := (Options{}).mostConnections(); n < 1 || n > 20000 {
		t.Errorf("got %d", n)
	}
	if n := (Options{MaxConnections: 7}).mostConnections(); n != 7 {
		t.Errorf("got %d, want 7", n)
	}
}
