//go:build linux

package bpf

import (
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// Resolvers that send with sendto, as musl's and c-ares' do, drop answers that
// do not come from the address they asked.
func TestAnswersComeFromWhereTheQuestionWent(t *testing.T) {
	n := newNetns(t)
	steer(t, Table{
		front("10.96.0.10:53", UDP): service("dns", n.echo(t, "127.0.0.5:0", "four")),
		front("[fd00::a]:53", UDP):  service("dns", n.echo(t, "[::1]:0", "six")),
	})
	for _, c := range []struct {
		name, ip, want string
		family         int
	}{
		{"IPv4", "10.96.0.10", "four", unix.AF_INET},
		{"IPv6", "fd00::a", "six", unix.AF_INET6},
		{"v4-mapped", "::ffff:10.96.0.10", "four", unix.AF_INET6},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := n.socket(t, c.family, unix.SOCK_DGRAM, 0)
			for range 3 {
				s.sendto(t, "who", c.ip, 53)
				got, from := s.recvfrom(t)
				if want := netip.AddrPortFrom(netip.MustParseAddr(c.ip), 53); from != want || got != c.want {
					t.Errorf("%q came from %s, want %q from %s", got, from, c.want, want)
				}
			}
		})
	}
}

// A resolver may ask all its servers from one socket, and they answer in any
// order.
func TestOneSocketTalksToSeveralFrontends(t *testing.T) {
	n := newNetns(t)
	steer(t, Table{
		front("10.96.0.10:53", UDP): service("a", n.echo(t, "127.0.0.5:0", "a")),
		front("10.96.0.11:53", UDP): service("b", n.echo(t, "127.0.0.6:0", "b")),
		front("10.96.0.12:53", UDP): service("c", n.echo(t, "127.0.0.7:0", "c")),
	})
	direct := n.echo(t, "127.0.0.8:0", "direct")
	s := n.socket(t, unix.AF_INET, unix.SOCK_DGRAM, 0)
	for range 2 {
		s.sendto(t, "who", "10.96.0.10", 53)
		s.sendto(t, "who", "10.96.0.11", 53)
		s.sendto(t, "who", "10.96.0.12", 53)
		s.sendto(t, "who", "127.0.0.8", int(direct.Port()))
		want := map[string]string{
			"a": "10.96.0.10:53", "b": "10.96.0.11:53", "c": "10.96.0.12:53", "direct": direct.String(),
		}
		for range want {
			name, from := s.recvfrom(t)
			if from.String() != want[name] {
				t.Errorf("%s answered from %s, want %s", name, from, want[name])
			}
		}
	}
}

func TestDatagramsOfASocketKeepToOneBackend(t *testing.T) {
	n := newNetns(t)
	a, b := n.echo(t, "127.0.0.5:0", "a"), n.echo(t, "127.0.0.6:0", "b")
	c, d := n.echo(t, "127.0.0.7:0", "c"), n.echo(t, "127.0.0.8:0", "d")
	vip := front("10.96.0.10:53", UDP)
	r := steer(t, Table{vip: service("dns", a, b, c)})
	seen := map[string]bool{}
	for range 100 {
		s := n.socket(t, unix.AF_INET, unix.SOCK_DGRAM, 0)
		s.sendto(t, "who", "10.96.0.10", 53)
		first, _ := s.recvfrom(t)
		seen[first] = true
		s.sendto(t, "who", "10.96.0.10", 53)
		if again, _ := s.recvfrom(t); again != first {
			t.Fatalf("%s answered, and then %s", first, again)
		}
	}
	if len(seen) != 3 {
		t.Errorf("only %v answered", seen)
	}

	s := n.socket(t, unix.AF_INET, unix.SOCK_DGRAM, 0)
	s.sendto(t, "who", "10.96.0.10", 53)
	first, _ := s.recvfrom(t)
	mustSync(t, r, Table{vip: service("dns", a, b, c, d)})
	s.sendto(t, "who", "10.96.0.10", 53)
	if again, _ := s.recvfrom(t); again != first {
		t.Errorf("%s answered, and %s after a backend was added", first, again)
	}
	mustSync(t, r, Table{vip: service("dns", d)})
	s.sendto(t, "who", "10.96.0.10", 53)
	if again, from := s.recvfrom(t); again != "d" || from.String() != "10.96.0.10:53" {
		t.Errorf("%s answered from %s after its backend was removed, want d", again, from)
	}
}

func TestDatagramsWithoutABackendAreRefused(t *testing.T) {
	n := newNetns(t)
	steer(t, Table{front("10.96.0.10:53", UDP): service("dns"), front("[fd00::a]:53", UDP): service("dns")})
	four := n.socket(t, unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err := unix.Sendto(four.fd, []byte("who"), 0, four.sockaddr("10.96.0.10", 53)); err != unix.ECONNREFUSED {
		t.Errorf("sendto: %v, want ECONNREFUSED", err)
	}
	six := n.socket(t, unix.AF_INET6, unix.SOCK_DGRAM, 0)
	if err := unix.Sendto(six.fd, []byte("who"), 0, six.sockaddr("fd00::a", 53)); err != unix.ECONNREFUSED {
		t.Errorf("sendto: %v, want ECONNREFUSED", err)
	}
}

// The kernel shows each datagram of a connected dual-stack socket to the
// programs again, with the backend as its destination.
func TestATranslatedDestinationIsNotTranslatedAgain(t *testing.T) {
	n := newNetns(t)
	right, wrong := n.echo(t, "127.0.0.5:0", "right"), n.echo(t, "127.0.0.6:0", "wrong")
	steer(t, Table{
		front("10.96.0.10:53", UDP):   service("dns", right),
		Frontend{right, UDP}:          service("trap", wrong),
		front("10.96.0.11:5353", TCP): service("other"),
	})
	s := n.socket(t, unix.AF_INET6, unix.SOCK_DGRAM, 0)
	s.connect(t, "::ffff:10.96.0.10", 53)
	for range 3 {
		s.write(t, "who")
		got, from := s.recvfrom(t)
		if got != "right" || from.String() != "[::ffff:10.96.0.10]:53" {
			t.Errorf("%s answered from %s", got, from)
		}
	}
	n.mustAsk(t, "udp", right.String(), "wrong")
}

// An unconnected socket hears from anybody, also from those it never wrote to.
func TestStrangersKeepTheirAddress(t *testing.T) {
	n := newNetns(t)
	steer(t, Table{front("10.96.0.10:53", UDP): service("dns", n.echo(t, "127.0.0.5:0", "dns"))})
	s, stranger := n.socket(t, unix.AF_INET, unix.SOCK_DGRAM, 0), n.socket(t, unix.AF_INET, unix.SOCK_DGRAM, 0)
	s.sendto(t, "who", "10.96.0.10", 53)
	if got, _ := s.recvfrom(t); got != "dns" {
		t.Fatalf("%s answered", got)
	}
	own, err := unix.Getsockname(s.fd)
	if err != nil {
		t.Fatal(err)
	}
	stranger.sendto(t, "boo", "127.0.0.1", int(addrPort(own).Port()))
	theirs, err := unix.Getsockname(stranger.fd)
	if err != nil {
		t.Fatal(err)
	}
	_, from := s.recvfrom(t)
	if from.Port() != addrPort(theirs).Port() || from.Addr().String() != "127.0.0.1" {
		t.Errorf("a stranger seems to be %s", from)
	}
}

func TestBackendsThatLeaveAreTold(t *testing.T) {
	a, b := netip.MustParseAddrPort("127.0.0.5:53"), netip.MustParseAddrPort("127.0.0.6:53")
	r := steer(t, Table{front("10.96.0.10:53", UDP): service("dns", a, b)})
	if len(r.Left()) != 0 {
		t.Errorf("%v left a table that was empty", r.Left())
	}
	mustSync(t, r, Table{front("10.96.0.10:53", UDP): service("dns", b)})
	if want := []Departure{{"dns", Frontend{a, UDP}}}; !slices.Equal(r.Left(), want) {
		t.Errorf("%v left, want %v", r.Left(), want)
	}
	mustSync(t, r, Table{})
	if want := []Departure{{"dns", Frontend{b, UDP}}}; !slices.Equal(r.Left(), want) {
		t.Errorf("%v left, want %v", r.Left(), want)
	}
}
