package server

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"testing"

	"golang.org/x/net/nettest"
)

// socketPair is a connection as the server has it, and its client.
func socketPair(t *testing.T) (served, client net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var d net.Dialer
	if client, err = d.DialContext(t.Context(), "tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	served = perConnection(accepted)
	t.Cleanup(func() { served.Close() })
	return served, client
}

func TestSocketsAreConnections(t *testing.T) {
	nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
		served, client := socketPair(t)
		return served, client, func() { served.Close(); client.Close() }, nil
	})
}

func TestSocketsWriteMoreThanTheKernelTakes(t *testing.T) {
	for name, size := range map[string]int{"in-pieces": 30 << 10, "at-once": 16 << 20} {
		t.Run(name, func(t *testing.T) {
			served, client := socketPair(t)
			sent := make([]byte, 16<<20)
			_, _ = rand.Read(sent)
			wrote := make(chan error, 1)
			go func() {
				defer served.Close()
				for rest := sent; len(rest) > 0; {
					n, err := served.Write(rest[:min(size, len(rest))])
					if err != nil {
						wrote <- err
						return
					}
					rest = rest[n:]
				}
				wrote <- nil
			}()
			got, err := io.ReadAll(client)
			if err := errors.Join(err, <-wrote); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, sent) {
				t.Errorf("of %d bytes %d came, or others", len(sent), len(got))
			}
		})
	}
}

func TestSocketsTellWhatIsWrong(t *testing.T) {
	served, client := socketPair(t)
	if err := client.(*net.TCPConn).SetLinger(0); err != nil {
		t.Fatal(err)
	}
	client.Close() // which resets it
	_, err := served.Read(make([]byte, 1))
	fault := (*net.OpError)(nil)
	if !errors.As(err, &fault) || fault.Op != "read" || fault.Addr == nil {
		t.Errorf("read: got %v, want what net tells", err)
	}
	if _, err := served.Write([]byte("late")); !errors.As(err, &fault) || fault.Op != "write" {
		t.Errorf("write: got %v, want what net tells", err)
	}
	if err := served.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := served.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("read after closing: got %v", err)
	}
	if _, err := served.Write([]byte("later")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("write after closing: got %v", err)
	}
}

func TestSocketsReadAndWriteWithoutAllocating(t *testing.T) {
	served, client := socketPair(t)
	p := make([]byte, 100)
	n := testing.AllocsPerRun(100, func() {
		if _, err := client.Write(p); err != nil {
			t.Error(err)
		}
		if _, err := io.ReadFull(served, p); err != nil {
			t.Error(err)
		}
		if _, err := served.Write(p); err != nil {
			t.Error(err)
		}
		if _, err := io.ReadFull(client, p); err != nil {
			t.Error(err)
		}
	})
	if n > 0 {
		t.Errorf("%.1f allocations", n)
	}
}
