package faults

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os/exec"
	"syscall"
	"testing"

	"github.com/portico-proxy/portico/test/proxy"
)

func certificatePEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

const protobuf = "application/vnd.kubernetes.protobuf;stream=watch"

// framesIn counts the events of a whole stream.
func framesIn(stream []byte, accept string) (n int, err error) {
	if accept != protobuf {
		if len(stream) > 0 && stream[len(stream)-1] != '\n' {
			return 0, errors.New("the last event has no end")
		}
		return bytes.Count(stream, []byte("\n")), nil
	}
	for len(stream) > 0 {
		if len(stream) < 4 || uint64(len(stream)-4) < uint64(binary.BigEndian.Uint32(stream)) {
			return n, errors.New("the last event is not whole")
		}
		stream = stream[4+binary.BigEndian.Uint32(stream):]
		n++
	}
	return n, nil
}

func TestStoppedProxyEndsWatchesCleanly(t *testing.T) {
	t.Parallel()
	p := before(t)
	type ending struct {
		accept string
		stream []byte
		err    error
	}
	endings := make(chan ending)
	watches := 0
	for _, accept := range []string{"application/json", protobuf} {
		for _, h2 := range []bool{false, true} {
			res := watchOf(t.Context(), t, newCaller(t, p.URL, p.CA, h2), "/api/v1/namespaces", accept)
			begun := make([]byte, 1) // there is something in flight
			if _, err := io.ReadFull(res.Body, begun); err != nil {
				t.Fatal(err)
			}
			watches++
			go func() {
				rest, err := io.ReadAll(res.Body)
				endings <- ending{accept, append(begun, rest...), err}
			}()
		}
	}
	p.Signal(syscall.SIGTERM)
	for range watches {
		e := <-endings
		n, err := framesIn(e.stream, e.accept)
		if err = errors.Join(e.err, err); err != nil || n == 0 {
			t.Errorf("%s: %d events, then %v", e.accept, n, err)
		}
	}
	expectExit(t, p)
}

// expectExit waits for the end of a proxy that was asked for it.
func expectExit(t *testing.T, p *proxy.Proxy) {
	t.Helper()
	<-p.Exited()
	if err := p.Err(); err != nil {
		var exit *exec.ExitError
		t.Errorf("the proxy ended with %v (%v)", err, errors.As(err, &exit))
	}
}

func TestStoppingProxyRefusesAndThenCuts(t *testing.T) {
	t.Parallel()
	o := newOrigin(t)
	p := beforeOrigin(t, o, "--shutdown-timeout=3s")
	c := newCaller(t, p.URL, p.CA, true)
	// One connection that is open already, and idle.
	c.get(t, "/livez")
	silent := make(chan error, 1)
	go func() {
		_, err := newCaller(t, p.URL, p.CA, true).do(t.Context(), http.MethodGet, "/silent", "")
		silent <- err
	}()
	<-o.begun
	conn := dialUpgrade(t, p)
	<-o.begun
	p.Signal(syscall.SIGTERM)
	eventually(t, "unready", func() bool { return !p.Ready() })
	eventually(t, "new requests are refused", func() bool {
		a, err := newCaller(t, p.URL, p.CA, true).do(t.Context(), http.MethodGet, "/livez", "")
		return err != nil || a.isUnavailable()
	})
	if err := <-silent; err == nil {
		t.Error("a request that was cut looks whole")
	}
	if _, err := io.Copy(io.Discard, conn); err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Logf("the upgraded connection ended with %v", err)
	}
	expectExit(t, p)
}

// dialUpgrade opens a connection that is no longer HTTP, as exec does.
func dialUpgrade(t *testing.T, p *proxy.Proxy) net.Conn {
	t.Helper()
	u, err := url.Parse(p.URL)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := tls.Dial("tcp", u.Host, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if _, err := io.WriteString(conn, "GET /upgrade HTTP/1.1\r\nHost: portico\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(conn)
	res, err := http.ReadResponse(in, nil)
	if err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("upgrade: %v, %v", res, err)
	}
	if _, err := io.WriteString(conn, "ping"); err != nil {
		t.Fatal(err)
	}
	echo := make([]byte, 4)
	if _, err := io.ReadFull(in, echo); err != nil || string(echo) != "ping" {
		t.Fatalf("got %q, %v", echo, err)
	}
	return conn
}
