//go:build linux

package bpf

import (
	"bufio"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func mustEnder(tb testing.TB, r *Redirector) *Ender {
	tb.Helper()
	e, err := r.NewEnder()
	if errors.Is(err, ErrNotSupported) {
		tb.Skip(err)
	}
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := e.Close(); err != nil {
			tb.Error(err)
		}
	})
	return e
}

func mustEnd(tb testing.TB, e *Ender, dead ...Frontend) []Ending {
	tb.Helper()
	ended, err := e.End(dead)
	if err != nil {
		tb.Fatal(err)
	}
	return ended
}

// holdVariable makes a process of this test binary live until its input ends.
const holdVariable = "PORTICO_TEST_HOLD"

// inhabit puts a process into the namespace, as every pod has one: a thread
// alone is not to be found.
func (n *netns) inhabit(tb testing.TB) {
	tb.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), holdVariable+"=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		tb.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	n.do(func() { err = cmd.Start() })
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		in.Close()
		_ = cmd.Wait()
	})
	if !bufio.NewScanner(out).Scan() {
		tb.Fatal("the namespace's process has ended")
	}
}

func hold() {
	_, _ = io.WriteString(os.Stdout, "here\n")
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// Resolvers that connect once would write to a dead backend for ever. Only they
// are ended, in a pod's network namespace as well.
func TestConnectedSocketsToDeadBackendsEnd(t *testing.T) {
	n := newNetns(t)
	n.inhabit(t)
	dead, alive := n.echo(t, "127.0.0.5:0", "dead"), n.echo(t, "127.0.0.6:0", "alive")
	r := steer(t, Table{
		front("10.96.0.10:53", UDP): service("dns", dead),
		front("10.96.0.11:53", UDP): service("other", alive),
	})
	e := mustEnder(t, r)

	stale := n.socket(t, unix.AF_INET, unix.SOCK_DGRAM, 0)
	stale.connect(t, "10.96.0.10", 53)
	mapped := n.socket(t, unix.AF_INET6, unix.SOCK_DGRAM, 0)
	mapped.connect(t, "::ffff:10.96.0.10", 53)
	bystanders := map[string]*raw{}
	bystander := func(name string) *raw {
		s := n.socket(t, unix.AF_INET, unix.SOCK_DGRAM, 0)
		bystanders[name] = s
		return s
	}
	bystander("other").connect(t, "10.96.0.11", 53)
	bystander("direct").connect(t, dead.Addr().String(), int(dead.Port()))
	unconnected := bystander("unconnected")
	unconnected.sendto(t, "who", "10.96.0.10", 53)
	unconnected.recvfrom(t)
	again := bystander("reconnected")
	again.connect(t, "10.96.0.10", 53)
	again.connect(t, "10.96.0.11", 53)
	before := map[string]string{}
	for name, s := range bystanders {
		before[name] = s.own(t)
	}

	if ended := mustEnd(t, e); len(ended) != 0 {
		t.Errorf("ended %v, and nobody is dead", ended)
	}
	want := Ending{front("10.96.0.10:53", UDP), Frontend{dead, UDP}}
	if ended := mustEnd(t, e, Frontend{dead, UDP}); !slices.Equal(ended, []Ending{want, want}) {
		t.Errorf("ended %v, want %v twice", ended, want)
	}
	for _, s := range []*raw{stale, mapped} {
		if _, err := unix.Write(s.fd, []byte("who")); err == nil {
			t.Error("a socket to a dead backend can still write")
		}
	}
	for name, s := range bystanders {
		if after := s.own(t); after != before[name] {
			t.Errorf("the %s socket was %s and is %s", name, before[name], after)
		}
	}
	unconnected.sendto(t, "who", "10.96.0.11", 53)
	if got, _ := unconnected.recvfrom(t); got != "alive" {
		t.Errorf("%s answers the unconnected socket", got)
	}
	if ended := mustEnd(t, e, Frontend{dead, UDP}); len(ended) != 0 {
		t.Errorf("ended %v a second time", ended)
	}
}

func TestTCPConnectionsToDeadBackendsEnd(t *testing.T) {
	n := newNetns(t)
	n.inhabit(t)
	dead := n.silent(t, "127.0.0.5:0")
	r := steer(t, Table{front("10.96.0.1:443", TCP): service("web", dead)})
	e := mustEnder(t, r)
	s, direct := n.socket(t, unix.AF_INET, unix.SOCK_STREAM, 0), n.socket(t, unix.AF_INET, unix.SOCK_STREAM, 0)
	s.connect(t, "10.96.0.1", 443)
	direct.connect(t, dead.Addr().String(), int(dead.Port()))
	if ended := mustEnd(t, e, Frontend{dead, UDP}); len(ended) != 0 {
		t.Errorf("ended %v, which do not speak UDP", ended)
	}
	if ended := mustEnd(t, e, Frontend{dead, TCP}); len(ended) != 1 {
		t.Errorf("ended %v, want one", ended)
	}
	if _, err := unix.Read(s.fd, make([]byte, 1)); err == nil || errors.Is(err, unix.EAGAIN) {
		t.Errorf("reading gives %v", err)
	}
	direct.write(t, "still here")
}

func TestEndingNeedsWhatTheKernelHas(t *testing.T) {
	r := steer(t, Table{})
	if _, err := r.NewEnder(); err != nil && (!errors.Is(err, ErrNotSupported) || strings.Contains(err.Error(), "\n")) {
		t.Errorf("the error is %v; want one line that says what is missing", err)
	}
}
