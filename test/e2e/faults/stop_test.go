package faults

import (
	"bytes"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"io"
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
