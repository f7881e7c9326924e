package server

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// written is a connection that notes what goes to the kernel at once.
type written struct {
	net.Conn
	sizes chan int
	all   bytes.Buffer
	err   error
}

func (w *written) Write(p []byte) (int, error) {
	w.all.Write(p)
	w.sizes <- len(p)
	return len(p), w.err
}

func record(size int) []byte { return bytes.Repeat([]byte{byte(size)}, size) }

func TestFullRecordsGoTogether(t *testing.T) {
	const full = recordSize + 22
	for name, tt := range map[string]struct{ writes, want []int }{
		"small":          {[]int{100, 200}, []int{100, 200}},
		"full-then-end":  {[]int{full, full, 100}, []int{2*full + 100}},
		"frames":         {[]int{full, 31, full, 31, 5000}, []int{2*full + 62 + 5000}},
		"two-small-ends": {[]int{full, 31, 31}, []int{full + 62}},
		"many":           {[]int{full, full, full, full, full, full, full, full, 31}, []int{8 * full, 31}},
		"end-too-large":  {[]int{recordSize, 7*recordSize + 4000}, []int{recordSize, 7*recordSize + 4000}},
	} {
		t.Run(name, func(t *testing.T) {
			w := &written{sizes: make(chan int, len(tt.writes))}
			c := &gatheringConn{Conn: w, patience: time.Hour}
			for _, size := range tt.writes {
				if n, err := c.Write(record(size)); n != size || err != nil {
					t.Fatalf("wrote %d of %d, %v", n, size, err)
				}
			}
			var got []int
			for range tt.want {
				got = append(got, <-w.sizes)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestNothingIsLostAtTheEnd closes after a record that is full.
func TestNothingIsLostAtTheEnd(t *testing.T) {
	certificates := httptest.NewTLSServer(nil)
	defer certificates.Close()
	for _, size := range []int{recordSize, 2 * recordSize, 2*recordSize + 1} {
		served, client := socketPair(t)
		s := tls.Server(&gatheringConn{Conn: served, patience: time.Hour}, certificates.TLS)
		sent := make(chan error, 1)
		go func() {
			_, err := s.Write(record(size))
			sent <- errors.Join(err, s.Close())
		}()
		got, err := io.ReadAll(tls.Client(client, &tls.Config{InsecureSkipVerify: true})) //nolint:gosec // it is a test's own
		if err := errors.Join(err, <-sent); err != nil || len(got) != size {
			t.Errorf("of %d bytes %d came: %v", size, len(got), err)
		}
	}
}

func TestWhatIsHeldGoesByItself(t *testing.T) {
	w := &written{sizes: make(chan int, 1)}
	c := &gatheringConn{Conn: w, patience: time.Millisecond}
	for range 3 {
		if _, err := c.Write(record(recordSize)); err != nil {
			t.Fatal(err)
		}
		if got := <-w.sizes; got != recordSize {
			t.Errorf("%d bytes", got)
		}
	}
}

func TestErrorOfWhatWasHeldIsTold(t *testing.T) {
	broken := errors.New("reset")
	w := &written{sizes: make(chan int, 1), err: broken}
	c := &gatheringConn{Conn: w, patience: time.Millisecond}
	if _, err := c.Write(record(recordSize)); err != nil {
		t.Fatal(err)
	}
	<-w.sizes
	if _, err := c.Write(record(10)); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

func TestGatheredStreamIsTheSame(t *testing.T) {
	near, far := net.Pipe()
	var sent bytes.Buffer
	go func() {
		defer near.Close()
		c := &gatheringConn{Conn: near, patience: time.Millisecond}
		r := rand.New(rand.NewPCG(1, 2))
		for range 500 {
			p := make([]byte, r.IntN(recordSize*5/2))
			for i := range p {
				p[i] = byte(r.Uint32())
			}
			sent.Write(p)
			if _, err := c.Write(p); err != nil {
				t.Error(err)
				return
			}
		}
		_, _ = c.Write([]byte{1}) // the end, as TLS has one
		sent.WriteByte(1)
	}()
	got, err := io.ReadAll(far)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, sent.Bytes()) {
		t.Errorf("%d bytes came of %d, or others", len(got), sent.Len())
	}
}
