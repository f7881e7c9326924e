//go:build linux

package bpf

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

func TestConnectReachesTheBackendAndSeesTheFrontend(t *testing.T) {
	n := newNetns(t)
	four, six := n.listen(t, "127.0.0.5:0", "four"), n.listen(t, "[::1]:0", "six")
	steer(t, Table{
		front("10.96.0.1:443", TCP):   service("four", four),
		front("[fd00::1]:443", TCP):   service("six", six),
		front("10.96.0.1:53", UDP):    service("four", n.echo(t, "127.0.0.5:0", "four-udp")),
		front("[fd00::1]:53", UDP):    service("six", n.echo(t, "[::1]:0", "six-udp")),
		front("10.96.0.1:65535", TCP): service("four", four),
	})
	n.mustAsk(t, "tcp", "10.96.0.1:443", "four")
	n.mustAsk(t, "tcp", "10.96.0.1:65535", "four")
	n.mustAsk(t, "tcp", "[fd00::1]:443", "six")
	n.mustAsk(t, "udp", "10.96.0.1:53", "four-udp")
	n.mustAsk(t, "udp", "[fd00::1]:53", "six-udp")
}

func TestWhatIsNotInTheTableStaysAsItIs(t *testing.T) {
	n := newNetns(t)
	b := n.listen(t, "127.0.0.5:0", "backend")
	steer(t, Table{front("10.96.0.1:443", TCP): service("s", b)})
	n.mustMiss(t, "tcp", "10.96.0.1:444") // another port
	n.mustMiss(t, "udp", "10.96.0.1:443") // another protocol
	n.mustMiss(t, "tcp", "10.96.0.2:443")
	n.mustMiss(t, "tcp", "[fd00::1]:443")
	n.mustAsk(t, "tcp", b.String(), "backend")
}

func TestNoBackendIsRefused(t *testing.T) {
	n := newNetns(t)
	steer(t, Table{
		front("10.96.0.1:443", TCP): service("s"),
		front("10.96.0.1:53", UDP):  service("s"),
		front("[fd00::1]:443", TCP): service("s"),
		front("[fd00::1]:53", UDP):  service("s"),
	})
	n.mustRefuse(t, "tcp", "10.96.0.1:443")
	n.mustRefuse(t, "udp", "10.96.0.1:53")
	n.mustRefuse(t, "tcp", "[fd00::1]:443")
	n.mustRefuse(t, "udp", "[fd00::1]:53")
}

// Java, and whatever else opens one socket for both families, names IPv4
// destinations as ::ffff:a.b.c.d.
func TestDualStackSocketsFindIPv4Frontends(t *testing.T) {
	n := newNetns(t)
	steer(t, Table{
		front("10.96.0.1:443", TCP): service("s", n.listen(t, "127.0.0.5:0", "tcp")),
		front("10.96.0.1:53", UDP):  service("s", n.echo(t, "127.0.0.5:0", "udp")),
	})
	for _, c := range []struct {
		kind int
		port int
		want string
	}{{unix.SOCK_STREAM, 443, "tcp"}, {unix.SOCK_DGRAM, 53, "udp"}} {
		s := n.socket(t, unix.AF_INET6, c.kind, 0)
		s.connect(t, "::ffff:10.96.0.1", c.port)
		if c.kind == unix.SOCK_DGRAM {
			s.write(t, "who")
		}
		if got := s.read(t); got != c.want {
			t.Errorf("%s answered, want %s", got, c.want)
		}
		if got, want := s.peer(t), netip.AddrPortFrom(netip.MustParseAddr("::ffff:10.96.0.1"), uint16(c.port)); got != want {
			t.Errorf("the peer seems to be %s, want %s", got, want)
		}
	}
}

// The kernel shows the programs the path that connects, and the socket above it
// when that asks for its peer.
func TestMultipathTCP(t *testing.T) {
	n := newNetns(t)
	b := n.listen(t, "127.0.0.5:0", "tcp")
	steer(t, Table{front("10.96.0.1:443", TCP): service("s", b)})
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP)
	if err != nil {
		t.Skip("needs Multipath TCP: ", err)
	}
	unix.Close(fd)
	s := n.socket(t, unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP)
	s.connect(t, "10.96.0.1", 443)
	if got := s.read(t); got != "tcp" {
		t.Errorf("%s answered", got)
	}
	if got := s.peer(t); got != netip.MustParseAddrPort(vip) {
		t.Errorf("the peer seems to be %s, want %s", got, vip)
	}
}

func TestTCPFastOpen(t *testing.T) {
	n := newNetns(t)
	steer(t, Table{front("10.96.0.1:443", TCP): service("s", n.listen(t, "127.0.0.5:0", "tcp"))})
	s := n.socket(t, unix.AF_INET, unix.SOCK_STREAM, 0)
	err := unix.Sendto(s.fd, []byte("early"), unix.MSG_FASTOPEN, &unix.SockaddrInet4{Addr: [4]byte{10, 96, 0, 1}, Port: 443})
	if err != nil {
		t.Fatal(err)
	}
	if got := s.read(t); got != "tcp" {
		t.Errorf("%s answered", got)
	}
}

// What a socket was told about an earlier destination must not stick to it.
func TestConnectingElsewhereForgets(t *testing.T) {
	n := newNetns(t)
	back := n.echo(t, "127.0.0.5:0", "udp")
	other := n.echo(t, "127.0.0.6:0", "other")
	steer(t, Table{front("10.96.0.1:53", UDP): service("s", back)})
	s := n.socket(t, unix.AF_INET, unix.SOCK_DGRAM, 0)
	s.connect(t, "10.96.0.1", 53)
	s.connect(t, "127.0.0.6", int(other.Port()))
	if got := s.peer(t); got != other {
		t.Errorf("the peer seems to be %s, want %s", got, other)
	}
	s.connect(t, "127.0.0.5", int(back.Port()))
	if got := s.peer(t); got != back {
		t.Errorf("the peer seems to be %s, want the backend %s, which was asked for by name", got, back)
	}
}

func TestConnectionsAreSpreadOverBackends(t *testing.T) {
	n := newNetns(t)
	a, b := n.listen(t, "127.0.0.5:0", "a"), n.listen(t, "127.0.0.6:0", "b")
	steer(t, Table{front("10.96.0.1:443", TCP): service("s", a, b)})
	seen := map[string]int{}
	for range 200 {
		name, _, err := n.ask("tcp", "10.96.0.1:443")
		if err != nil {
			t.Fatal(err)
		}
		seen[name]++
	}
	// Each is missed 200 times with a probability of 2^-200.
	if seen["a"] == 0 || seen["b"] == 0 {
		t.Errorf("answers are %v", seen)
	}
}

// A raw is a socket without what Go's net puts around one.
type raw struct {
	fd     int
	family int
}

func (n *netns) socket(tb testing.TB, family, kind, protocol int) *raw {
	tb.Helper()
	var fd int
	var err error
	n.do(func() { fd, err = unix.Socket(family, kind|unix.SOCK_CLOEXEC, protocol) })
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { unix.Close(fd) })
	limit := unix.NsecToTimeval(patience.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		tb.Fatal(err)
	}
	return &raw{fd, family}
}

func (s *raw) sockaddr(ip string, port int) unix.Sockaddr {
	a := netip.MustParseAddr(ip)
	if s.family == unix.AF_INET {
		return &unix.SockaddrInet4{Addr: a.As4(), Port: port}
	}
	return &unix.SockaddrInet6{Addr: a.As16(), Port: port}
}

func (s *raw) connect(tb testing.TB, ip string, port int) {
	tb.Helper()
	if err := unix.Connect(s.fd, s.sockaddr(ip, port)); err != nil {
		tb.Fatalf("connect to %s port %d: %v", ip, port, err)
	}
}

func (s *raw) write(tb testing.TB, data string) {
	tb.Helper()
	if _, err := unix.Write(s.fd, []byte(data)); err != nil {
		tb.Fatal("write: ", err)
	}
}

func (s *raw) read(tb testing.TB) string {
	tb.Helper()
	buf := make([]byte, 64)
	n, err := unix.Read(s.fd, buf)
	if err != nil {
		tb.Fatal("read: ", err)
	}
	return string(buf[:n])
}

// own is the socket's own address, as text.
func (s *raw) own(tb testing.TB) string {
	tb.Helper()
	a, err := unix.Getsockname(s.fd)
	if err != nil {
		tb.Fatal("getsockname: ", err)
	}
	return addrPort(a).String()
}

func (s *raw) peer(tb testing.TB) netip.AddrPort {
	tb.Helper()
	a, err := unix.Getpeername(s.fd)
	if err != nil {
		tb.Fatal("getpeername: ", err)
	}
	return addrPort(a)
}

func (s *raw) sendto(tb testing.TB, data, ip string, port int) {
	tb.Helper()
	if err := unix.Sendto(s.fd, []byte(data), 0, s.sockaddr(ip, port)); err != nil {
		tb.Fatalf("sendto %s port %d: %v", ip, port, err)
	}
}

func (s *raw) recvfrom(tb testing.TB) (string, netip.AddrPort) {
	tb.Helper()
	buf := make([]byte, 64)
	n, from, err := unix.Recvfrom(s.fd, buf, 0)
	if err != nil {
		tb.Fatal("recvfrom: ", err)
	}
	return string(buf[:n]), addrPort(from)
}

func addrPort(a unix.Sockaddr) netip.AddrPort {
	switch a := a.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port))
	}
	return netip.AddrPort{}
}
