package relay

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// echo answers what it is sent.
func echo(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); _, _ = io.Copy(c, c) }()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-ended })
	return l.Addr().String()
}

func dial(t *testing.T, r *Relay) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", r.Address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// says sends a word and reads it back.
func says(t *testing.T, c net.Conn, word string) error {
	t.Helper()
	if _, err := io.WriteString(c, word); err != nil {
		return err
	}
	got := make([]byte, len(word))
	if _, err := io.ReadFull(c, got); err != nil {
		return err
	}
	if string(got) != word {
		t.Errorf("got %q, want %q", got, word)
	}
	return nil
}

func TestLines(t *testing.T) {
	ignore := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, ignore) })
	r := New(t, echo(t))
	c := dial(t, r)
	if err := says(t, c, "hello"); err != nil {
		t.Fatal(err)
	}
	const late = 50 * time.Millisecond
	r.Delay(Back, late)
	begun := time.Now()
	if err := says(t, c, "slowly"); err != nil || time.Since(begun) < late {
		t.Errorf("a slow line took %s: %v", time.Since(begun), err)
	}
	r.Delay(Back, 0)
	r.Hold(There)
	_ = c.SetReadDeadline(time.Now().Add(late))
	if err := says(t, c, "held"); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a line that is held: %v", err)
	}
	_ = c.SetReadDeadline(time.Time{})
	r.Release(There)
	if got := make([]byte, 4); true {
		if _, err := io.ReadFull(c, got); err != nil || string(got) != "held" {
			t.Errorf("what was held: %q %v", got, err)
		}
	}
	r.Cut()
	if err := says(t, c, "cut"); err == nil {
		t.Error("a line that is cut answers")
	}
	r.Mend()
	if err := says(t, dial(t, r), "again"); err != nil {
		t.Error(err)
	}
}
