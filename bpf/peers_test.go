//go:build linux

package bpf

import (
	"errors"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// takePlaces leaves no socket a place of its own.
func takePlaces(tb testing.TB, r *Redirector) {
	tb.Helper()
	keys, places := make([]uint32, r.objects.Peers.MaxEntries()), make([]redirectPeer, r.objects.Peers.MaxEntries())
	for i := range keys {
		keys[i], places[i].Cookie = uint32(i), ^uint64(0)
	}
	if _, err := r.objects.Peers.BatchUpdate(keys, places, nil); err != nil {
		tb.Fatal(err)
	}
}

// places are the sockets' that have one.
func places(tb testing.TB, r *Redirector) []redirectPeer {
	tb.Helper()
	var taken []redirectPeer
	err := each(r.objects.Peers, func(_ uint32, p redirectPeer) {
		if p.Cookie != 0 {
			taken = append(taken, p)
		}
	})
	if err != nil {
		tb.Fatal(err)
	}
	return taken
}

// A socket whose place is taken is remembered at the socket itself.
func TestASocketWithoutAPlaceKnowsItsPeer(t *testing.T) {
	n := newNetns(t)
	n.inhabit(t)
	b := n.silent(t, "127.0.0.5:0")
	r := steer(t, Table{front(vip, TCP): service("s", b)})
	e := mustEnder(t, r)
	takePlaces(t, r)
	s := n.socket(t, unix.AF_INET, unix.SOCK_STREAM, 0)
	s.connect(t, "10.96.0.1", 443)
	if got := s.peer(t).String(); got != vip {
		t.Errorf("the peer seems to be %s, want %s", got, vip)
	}
	if ended := mustEnd(t, e, Frontend{b, TCP}); len(ended) != 1 {
		t.Errorf("ended %v, want one", ended)
	}
}

func TestAPlaceIsFreeWhenItsSocketIs(t *testing.T) {
	n := newNetns(t)
	b, b6 := n.silent(t, "127.0.0.5:0"), n.silent(t, "[::1]:0")
	r := steer(t, Table{front(vip, TCP): service("s", b), front("[fd00::1]:443", TCP): service("s", b6)})
	var fds []int
	for _, c := range []struct {
		family, protocol int
		ip               string
	}{
		{unix.AF_INET, 0, "10.96.0.1"},
		{unix.AF_INET6, 0, "fd00::1"},
		{unix.AF_INET6, 0, "::ffff:10.96.0.1"},
		{unix.AF_INET, unix.IPPROTO_MPTCP, "10.96.0.1"}, // which has none
	} {
		s, err := n.open(c.family, c.protocol)
		if errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.ENOPROTOOPT) {
			continue // no Multipath TCP here
		}
		if err != nil {
			t.Fatal(err)
		}
		s.connect(t, c.ip, 443)
		fds = append(fds, s.fd)
	}
	if got := places(t, r); len(got) != 3 {
		t.Errorf("places are %v, want 3", got)
	}
	for _, fd := range fds {
		unix.Close(fd)
	}
	if got := places(t, r); len(got) != 0 {
		t.Errorf("places are still %v", got)
	}
}

// open makes a TCP socket that the test closes.
func (n *netns) open(family, protocol int) (s *raw, err error) {
	n.do(func() {
		var fd int
		fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, protocol)
		s = &raw{fd, family}
	})
	return s, err
}

// A TCP socket may connect again after it was refused, and by then to the backend
// itself.
func TestConnectingElsewhereForgetsThePlace(t *testing.T) {
	for _, protocol := range []int{0, unix.IPPROTO_MPTCP} {
		n := newNetns(t)
		b, err := n.open(unix.AF_INET, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Bind(b.fd, b.sockaddr("127.0.0.5", 0)); err != nil {
			t.Fatal(err)
		}
		at := netip.MustParseAddrPort(b.own(t))
		r := steer(t, Table{front(vip, TCP): service("s", at)})
		s, err := n.open(unix.AF_INET, protocol)
		if err != nil {
			t.Skip("needs Multipath TCP: ", err)
		}
		if err := unix.Connect(s.fd, s.sockaddr("10.96.0.1", 443)); !errors.Is(err, unix.ECONNREFUSED) {
			t.Fatalf("connecting gives %v, and nobody listens", err)
		}
		if err := unix.Listen(b.fd, 1); err != nil {
			t.Fatal(err)
		}
		s.connect(t, "127.0.0.5", int(at.Port()))
		if got := s.peer(t); got != at {
			t.Errorf("protocol %d: the peer seems to be %s, want the backend %s, which was asked for by name", protocol, got, at)
		}
		unix.Close(s.fd)
		unix.Close(b.fd)
		mustClose(t, r)
	}
}
