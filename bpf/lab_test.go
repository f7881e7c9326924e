//go:build linux

package bpf

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// lab is the cgroup that this process and its tests live in; empty if they may
// not make one, for the reason that is given.
var lab, noLab string

// dialVariable makes a process of this test binary dial and say who answered.
const dialVariable = "PORTICO_TEST_DIAL"

func TestMain(m *testing.M) {
	if target := os.Getenv(dialVariable); target != "" {
		dialAndTell(target)
		return
	}
	if os.Getenv(holdVariable) != "" {
		hold()
		return
	}
	leave, err := enterLab()
	if err != nil {
		noLab = err.Error()
	}
	code := m.Run()
	leave()
	os.Exit(code)
}

// enterLab moves this process into a cgroup of its own: programs that are
// attached there steer nobody else.
func enterLab() (leave func(), err error) {
	mounts, err := os.Open(mountTable)
	if err != nil {
		return func() {}, err
	}
	defer mounts.Close()
	// A part of a hierarchy is enough for a test.
	root, err := findCgroup(mounts)
	if err != nil {
		return func() {}, err
	}
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return func() {}, err
	}
	_, path, _ := strings.Cut(string(own), "0::")
	home := filepath.Join(root, strings.TrimSpace(strings.SplitN(path, "\n", 2)[0]))
	dir := filepath.Join(root, fmt.Sprintf("portico-test-bpf-%d", os.Getpid()))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return func() {}, err
	}
	leave = func() {
		_ = joinCgroup(home)
		os.Remove(dir)
	}
	if err := joinCgroup(dir); err != nil {
		leave()
		return func() {}, err
	}
	lab = dir
	return leave, nil
}

func joinCgroup(dir string) error {
	return os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0)
}

// needKernel skips a test that cannot run here.
func needKernel(tb testing.TB) {
	tb.Helper()
	if lab == "" {
		tb.Skip("needs a cgroup of its own: ", noLab)
	}
	if os.Geteuid() != 0 {
		tb.Skip("needs root")
	}
	if err := Supported(); err != nil {
		tb.Skip(err)
	}
}

// pinsIn mounts a BPF file system for the test.
func pinsIn(tb testing.TB) string {
	tb.Helper()
	needKernel(tb)
	dir := tb.TempDir()
	if err := unix.Mount("bpf", dir, "bpf", 0, ""); err != nil {
		tb.Skip("needs a BPF file system: ", err)
	}
	tb.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			tb.Error(err)
		}
	})
	return filepath.Join(dir, "portico")
}

// steer opens and attaches for the test.
func steer(tb testing.TB, t Table) *Redirector {
	tb.Helper()
	r := mustOpen(tb, Options{Pins: pinsIn(tb), Cgroup: lab})
	mustSync(tb, r, t)
	if err := r.Attach(); err != nil {
		tb.Fatal(err)
	}
	return r
}

func mustOpen(tb testing.TB, o Options) *Redirector {
	tb.Helper()
	r, err := Open(o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := r.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
			tb.Error(err)
		}
		if err := Uninstall(o.Pins); err != nil && !errors.Is(err, ErrNotInstalled) {
			tb.Error(err)
		}
	})
	return r
}

func mustSync(tb testing.TB, r *Redirector, t Table) Stats {
	tb.Helper()
	s, err := r.Sync(t)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// A netns is a network namespace of its own, with a thread in it.
type netns struct {
	work chan func()
}

func newNetns(tb testing.TB) *netns {
	tb.Helper()
	needKernel(tb)
	n := &netns{work: make(chan func())}
	ready := make(chan error)
	go func() {
		// Never unlocked: the thread ends with the goroutine.
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			err = loopbackUp()
		}
		ready <- err
		for f := range n.work {
			f()
		}
	}()
	tb.Cleanup(func() { close(n.work) })
	if err := <-ready; err != nil {
		tb.Fatal("make network namespace: ", err)
	}
	return n
}

// do runs f in the namespace. Sockets that f opens stay there.
func (n *netns) do(f func()) {
	done := make(chan struct{})
	n.work <- func() {
		defer close(done)
		f()
	}
	<-done
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	r, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, r)
}

// listen starts a TCP server that tells everybody its name.
func (n *netns) listen(tb testing.TB, addr, name string) netip.AddrPort {
	tb.Helper()
	var l net.Listener
	var err error
	n.do(func() { l, err = net.Listen("tcp", addr) })
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, name)
			c.Close()
		}
	}()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// silent starts a TCP server that says nothing and keeps its connections.
func (n *netns) silent(tb testing.TB, addr string) netip.AddrPort {
	tb.Helper()
	var l net.Listener
	var err error
	n.do(func() { l, err = net.Listen("tcp", addr) })
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { l.Close() })
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// echo starts a UDP server that answers each datagram with its name.
func (n *netns) echo(tb testing.TB, addr, name string) netip.AddrPort {
	tb.Helper()
	var c net.PacketConn
	var err error
	n.do(func() { c, err = net.ListenPacket("udp", addr) })
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { c.Close() })
	go func() {
		buf := make([]byte, 2048)
		for {
			_, from, err := c.ReadFrom(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				_, _ = c.WriteTo([]byte(name), from)
			}
		}
	}()
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}

const patience = 10 * time.Second

// ask connects and returns the name of whoever answered, and the peer as the
// socket tells it.
func (n *netns) ask(network, addr string) (name string, peer netip.AddrPort, err error) {
	n.do(func() { name, peer, err = ask(network, addr) })
	return name, peer, err
}

func ask(network, addr string) (string, netip.AddrPort, error) {
	c, err := net.DialTimeout(network, addr, patience)
	if err != nil {
		return "", netip.AddrPort{}, err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", netip.AddrPort{}, err
	}
	if strings.HasPrefix(network, "udp") {
		if _, err := c.Write([]byte("who")); err != nil {
			return "", netip.AddrPort{}, err
		}
	}
	buf := make([]byte, 64)
	got, err := c.Read(buf)
	if err != nil {
		return "", netip.AddrPort{}, err
	}
	// Go itself asks for the peer once, when the socket is connected.
	peer, err := netip.ParseAddrPort(c.RemoteAddr().String())
	return string(buf[:got]), peer, err
}

// mustAsk fails the test unless the one named answers, seeming to be addr.
func (n *netns) mustAsk(tb testing.TB, network, addr, want string) {
	tb.Helper()
	name, peer, err := n.ask(network, addr)
	if err != nil {
		tb.Errorf("%s %s: %v, want %s to answer", network, addr, err, want)
		return
	}
	if name != want {
		tb.Errorf("%s %s: %s answered, want %s", network, addr, name, want)
	}
	if peer.String() != addr {
		tb.Errorf("%s %s: the peer seems to be %s", network, addr, peer)
	}
}

// mustRefuse fails the test unless a connection is refused at once.
func (n *netns) mustRefuse(tb testing.TB, network, addr string) {
	tb.Helper()
	if name, _, err := n.ask(network, addr); !errors.Is(err, syscall.ECONNREFUSED) {
		tb.Errorf("%s %s: %q answered, with error %v; want ECONNREFUSED", network, addr, name, err)
	}
}

// mustMiss fails the test unless a destination stays what it is, which in a
// namespace without routes is out of reach.
func (n *netns) mustMiss(tb testing.TB, network, addr string) {
	tb.Helper()
	if name, _, err := n.ask(network, addr); !errors.Is(err, syscall.ENETUNREACH) {
		tb.Errorf("%s %s: %q answered, with error %v; want ENETUNREACH", network, addr, name, err)
	}
}

func front(s string, p Protocol) Frontend { return Frontend{netip.MustParseAddrPort(s), p} }

func service(owner string, backends ...netip.AddrPort) Entry {
	return Entry{Service: &Layer{Owner: owner, Backends: backends}}
}

// inCgroup runs a child of this process in a cgroup below the lab, which dials
// from n and tells who answered.
func (n *netns) inCgroup(tb testing.TB, dir, network, addr string) string {
	tb.Helper()
	cgroup, err := os.Open(dir)
	if err != nil {
		tb.Fatal(err)
	}
	defer cgroup.Close()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), dialVariable+"="+network+" "+addr)
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(cgroup.Fd())}
	var out []byte
	n.do(func() { out, err = cmd.CombinedOutput() })
	if err != nil {
		tb.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

func dialAndTell(target string) {
	network, addr, _ := strings.Cut(target, " ")
	name, _, err := ask(network, addr)
	if err != nil {
		name = err.Error()
	}
	fmt.Print(name)
}

// newCgroup makes a cgroup below the lab and returns its directory and number.
func newCgroup(tb testing.TB, parent, name string) (string, uint64) {
	tb.Helper()
	dir := filepath.Join(parent, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := os.Remove(dir); err != nil {
			tb.Error(err)
		}
	})
	id, err := CgroupID(dir)
	if err != nil {
		tb.Fatal(err)
	}
	return dir, id
}
