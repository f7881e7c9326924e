//go:build linux

package bpf

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// sized is a table of n Services with some backends each, none of them real.
func sized(n, backends int, six bool) Table {
	t := Table{}
	for i := range n {
		var all []netip.AddrPort
		for b := range backends {
			all = append(all, netip.AddrPortFrom(numbered("10.0.0.0", "fd01::", six, i*backends+b), 8080))
		}
		f := Frontend{netip.AddrPortFrom(numbered("11.0.0.0", "fd02::", six, i), 80), TCP}
		t[f] = service(fmt.Sprint(i), all...)
	}
	return t
}

func numbered(four, six string, isSix bool, i int) netip.Addr {
	if isSix {
		raw := netip.MustParseAddr(six).As16()
		binary.BigEndian.PutUint32(raw[12:], uint32(i))
		return netip.AddrFrom16(raw)
	}
	raw := netip.MustParseAddr(four).As4()
	binary.BigEndian.PutUint32(raw[:], binary.BigEndian.Uint32(raw[:])+uint32(i))
	return netip.AddrFrom4(raw)
}

// BenchmarkConnect measures one TCP connect: with no programs at all, to what is
// not in the table, and to what is; and the same with as many rules of packet
// filters. They take turns, so that what the machine does meanwhile is the same
// for all.
func BenchmarkConnect(b *testing.B) {
	for _, f := range []family{ipv4, ipv6} {
		n := newNetns(b)
		q := n.queue(b, f.listen)
		to := netip.AddrPortFrom(f.vip, 443)
		for _, size := range []int{1, 10000, 30000} {
			t := sized(size, 1, f.vip.Is6())
			t[Frontend{to, TCP}] = Entry{
				Policy:  &Layer{Backends: []netip.AddrPort{q.addr}, Leased: true},
				Service: &Layer{Backends: []netip.AddrPort{q.addr}},
			}
			r := steer(b, t)
			mustRenew(b, r, time.Hour)
			turns := []turn{
				{"none", filepath.Dir(lab), n, q.fd, q.addr}, {"miss", lab, n, q.fd, q.addr}, {"hit", lab, n, q.fd, to},
			}
			turns = append(turns, f.rules(b, size)...)
			b.Run(fmt.Sprintf("%s/%d", f.name, size), func(b *testing.B) { compare(b, turns) })
			mustClose(b, r)
			if err := Uninstall(r.options.Pins); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// A turn is a destination that is connected to by a process in a cgroup and a
// network namespace, and who listens there.
type turn struct {
	name, cgroup string
	in           *netns
	listener     int
	to           netip.AddrPort
}

// compare lets each turn make a few connects again and again.
func compare(b *testing.B, turns []turn) {
	b.Helper()
	took := make([][]time.Duration, len(turns))
	defer func() {
		if err := joinCgroup(lab); err != nil {
			b.Error(err)
		}
	}()
	for b.Loop() {
		for i, t := range turns {
			if err := joinCgroup(t.cgroup); err != nil {
				b.Fatal(err)
			}
			t.in.do(func() {
				for range 100 {
					d, err := timeConnect(t.to, t.listener)
					if err != nil {
						b.Error(err)
						return
					}
					took[i] = append(took[i], d)
				}
			})
		}
	}
	b.ReportMetric(0, "ns/op") // it is that of all turns together
	for i, t := range turns {
		slices.Sort(took[i])
		b.ReportMetric(float64(took[i][len(took[i])/2].Nanoseconds()), t.name+"-p50-ns")
		b.ReportMetric(float64(took[i][len(took[i])*99/100].Nanoseconds()), t.name+"-p99-ns")
	}
}

// A queue is a listener that nobody waits at: to wake somebody up on another
// processor takes as long as a connect, if it has to be done.
type queue struct {
	fd   int
	addr netip.AddrPort
}

func (n *netns) queue(tb testing.TB, addr string) queue {
	tb.Helper()
	var q queue
	var err error
	n.do(func() { q, err = newQueue(netip.MustParseAddrPort(addr)) })
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { unix.Close(q.fd) })
	return q
}

func newQueue(at netip.AddrPort) (queue, error) {
	family, sa := sockaddrOf(at)
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return queue{}, err
	}
	err = unix.Bind(fd, sa)
	if err == nil {
		err = unix.Listen(fd, 1)
	}
	if err == nil {
		sa, err = unix.Getsockname(fd)
	}
	switch bound := sa.(type) {
	case *unix.SockaddrInet4:
		return queue{fd, netip.AddrPortFrom(at.Addr(), uint16(bound.Port))}, err
	case *unix.SockaddrInet6:
		return queue{fd, netip.AddrPortFrom(at.Addr(), uint16(bound.Port))}, err
	}
	return queue{fd, at}, err
}

// timeConnect makes a connection and takes it from the listener, too.
func timeConnect(to netip.AddrPort, listener int) (time.Duration, error) {
	family, sa := sockaddrOf(to)
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	// Closing resets, so that no port stays taken.
	if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
		return 0, err
	}
	began := time.Now()
	err = unix.Connect(fd, sa)
	took := time.Since(began)
	if err != nil {
		return 0, err
	}
	accepted, _, err := unix.Accept(listener)
	if err != nil {
		return 0, err
	}
	return took, unix.Close(accepted)
}

func sockaddrOf(to netip.AddrPort) (int, unix.Sockaddr) {
	if to.Addr().Is4() {
		return unix.AF_INET, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}
	}
	return unix.AF_INET6, &unix.SockaddrInet6{Addr: to.Addr().As16(), Port: int(to.Port())}
}

// BenchmarkReconnect measures what the programs add, without TCP's own noise: a
// connect of a UDP socket sends nothing.
func BenchmarkReconnect(b *testing.B) {
	const batch = 200
	n := newNetns(b)
	back := netip.MustParseAddrPort("127.0.0.5:53")
	run := func(name string, to netip.AddrPort) {
		b.Run(name, func(b *testing.B) {
			s := n.socket(b, unix.AF_INET, unix.SOCK_DGRAM, 0)
			_, sa := sockaddrOf(to)
			n.do(func() {
				var took []time.Duration
				for b.Loop() {
					began := time.Now()
					for range batch {
						if err := unix.Connect(s.fd, sa); err != nil {
							b.Error(err)
							return
						}
					}
					took = append(took, time.Since(began))
				}
				// What others do on the machine makes some batches slower, and none
				// faster.
				slices.Sort(took)
				b.ReportMetric(float64(took[len(took)/10].Nanoseconds())/batch, "p10-ns/connect")
			})
		})
	}
	run("no-programs", back)
	for _, size := range []int{1, 30000} {
		t := sized(size, 1, false)
		t[front("10.96.0.10:53", UDP)] = service("dns", back)
		t[front("10.96.0.11:53", UDP)] = Entry{Policy: &Layer{Backends: []netip.AddrPort{back}, Leased: true}}
		r := steer(b, t)
		mustRenew(b, r, time.Hour)
		run(fmt.Sprintf("miss/%d", size), back)
		run(fmt.Sprintf("service/%d", size), netip.MustParseAddrPort("10.96.0.10:53"))
		run(fmt.Sprintf("policy/%d", size), netip.MustParseAddrPort("10.96.0.11:53"))
		mustClose(b, r)
		if err := Uninstall(r.options.Pins); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSync measures making a table of 10000 Services with 10 backends each,
// and then changing one backend: what the kernel has to be told of it, and what
// was retired before.
func BenchmarkSync(b *testing.B) {
	table := sized(10000, 10, false)
	b.Run("all", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			r := mustOpen(b, Options{Pins: pinsIn(b), Cgroup: lab})
			b.StartTimer()
			s := mustSync(b, r, table)
			b.StopTimer()
			b.ReportMetric(float64(s.Calls), "calls")
			b.ReportMetric(float64(s.Frontends+s.Backends), "elements")
			mustClose(b, r)
			b.StartTimer()
		}
	})
	b.Run("one", func(b *testing.B) {
		r := mustOpen(b, Options{Pins: pinsIn(b), Cgroup: lab})
		mustSync(b, r, table)
		var f Frontend
		for f = range table {
			break
		}
		change := table[f].Service.Backends
		calls := 0
		for i := 0; b.Loop(); i++ {
			next := slices.Clone(change)
			next[0] = netip.AddrPortFrom(next[0].Addr(), uint16(1+i%60000))
			// Sets are removed with the next change, not when the grace is over.
			for j := range r.mirror.retired {
				r.mirror.retired[j].since -= grace
			}
			s, err := r.Change(Table{f: service("one", next...)})
			if err != nil {
				b.Fatal(err)
			}
			calls = max(calls, s.Calls)
		}
		b.ReportMetric(float64(calls), "calls")
	})
}
