//go:build linux

package bpf

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// BenchmarkFloor measures what a connect costs with programs that do one thing
// each, and ours in the same turns: what is left of a hit's cost is ours to save.
func BenchmarkFloor(b *testing.B) {
	n := newNetns(b)
	l := n.queue(b, "0.0.0.0:0")
	l.addr = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.5"), l.addr.Port())
	r := steer(b, floorTable(l))
	mustRenew(b, r, time.Hour)
	turns := []turn{
		{"none", filepath.Dir(lab), n, l.fd, l.addr}, {"miss", lab, n, l.fd, l.addr}, {"service", lab, n, l.fd, netip.MustParseAddrPort(vip)},
		{"policy", lab, n, l.fd, netip.MustParseAddrPort("10.96.0.2:443")},
		{"ten-backends", lab, n, l.fd, netip.MustParseAddrPort("10.96.0.3:443")},
	}
	for _, p := range []struct {
		name string
		body asm.Instructions
	}{
		{"empty", nil},
		{"lookup", lookUp(r.objects.Frontends)},
		{"storage", makeRoom(r.objects.Translations)},
	} {
		dir, _ := newCgroup(b, filepath.Dir(lab), "portico-test-floor-"+p.name)
		attachBody(b, dir, p.body)
		turns = append(turns, turn{p.name, dir, n, l.fd, l.addr})
	}
	compare(b, turns)
}

// BenchmarkClose measures opening and closing sockets that connect nowhere: those of
// TCP are looked at when they are closed.
func BenchmarkClose(b *testing.B) {
	const batch = 200
	n := newNetns(b)
	steer(b, Table{})
	for _, kind := range []int{unix.SOCK_STREAM, unix.SOCK_DGRAM} {
		for _, cgroup := range []string{filepath.Dir(lab), lab} {
			b.Run(fmt.Sprintf("%d/%t", kind, cgroup == lab), func(b *testing.B) {
				if err := joinCgroup(cgroup); err != nil {
					b.Fatal(err)
				}
				defer func() {
					if err := joinCgroup(lab); err != nil {
						b.Error(err)
					}
				}()
				n.do(func() {
					var took []time.Duration
					for b.Loop() {
						began := time.Now()
						for range batch {
							fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, 0)
							if err != nil {
								b.Error(err)
								return
							}
							unix.Close(fd)
						}
						took = append(took, time.Since(began))
					}
					slices.Sort(took)
					b.ReportMetric(float64(took[len(took)/10].Nanoseconds())/batch, "p10-ns/socket")
				})
			})
		}
	}
}

// floorTable has a Service, a policy, and a Service of ten backends, who all end up
// at the same listener.
func floorTable(q queue) Table {
	t := sized(10000, 1, false)
	t[front(vip, TCP)] = service("x", q.addr)
	t[front("10.96.0.2:443", TCP)] = Entry{Policy: &Layer{Backends: []netip.AddrPort{q.addr}, Leased: true}}
	var ten []netip.AddrPort
	for i := range 10 {
		ten = append(ten, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 1, byte(i)}), q.addr.Port()))
	}
	t[front("10.96.0.3:443", TCP)] = service("ten", ten...)
	return t
}

// attachBody attaches a program to connect4 that does one thing and lets pass.
func attachBody(b *testing.B, dir string, body asm.Instructions) {
	b.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.CGroupSockAddr, AttachType: ebpf.AttachCGroupInet4Connect, License: "Apache-2.0",
		Instructions: append(body, asm.Mov.Imm(asm.R0, 1), asm.Return()),
	})
	if err != nil {
		b.Fatal(err)
	}
	defer p.Close()
	cgroup, err := os.Open(dir)
	if err != nil {
		b.Fatal(err)
	}
	defer cgroup.Close()
	k, err := link.AttachRawLink(link.RawLinkOptions{Target: int(cgroup.Fd()), Program: p, Attach: ebpf.AttachCGroupInet4Connect})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { k.Close() })
}

func lookUp(m *ebpf.Map) asm.Instructions {
	var key asm.Instructions
	key = append(key, asm.LoadMem(asm.R2, asm.R1, 4, asm.Word))
	for i := range 5 {
		key = append(key, asm.StoreMem(asm.RFP, int16(-20+4*i), asm.R2, asm.Word))
	}
	return append(key,
		asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, -20),
		asm.LoadMapPtr(asm.R1, m.FD()), asm.FnMapLookupElem.Call())
}

func makeRoom(m *ebpf.Map) asm.Instructions {
	return asm.Instructions{
		asm.LoadMem(asm.R2, asm.R1, 64, asm.DWord),
		asm.JEq.Imm(asm.R2, 0, "out"),
		asm.LoadMapPtr(asm.R1, m.FD()), asm.Mov.Imm(asm.R3, 0), asm.Mov.Imm(asm.R4, 1),
		asm.FnSkStorageGet.Call(),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("out"),
	}
}
