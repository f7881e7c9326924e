//go:build linux

package redirect_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portico-proxy/portico/bpf"
	"github.com/portico-proxy/portico/test/proxy"
)

// A lab is a node: a cgroup, a network namespace, and a place for pins.
type lab struct {
	cgroup string
	pins   string
	work   chan func()
	binary string
}

func newLab(t *testing.T) *lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if err := bpf.Supported(); err != nil {
		t.Skip(err)
	}
	root, err := bpf.FindCgroup()
	if err != nil {
		t.Skip(err)
	}
	l := &lab{binary: proxy.Binary(t), work: make(chan func())}
	l.cgroup = filepath.Join(root, fmt.Sprintf("portico-e2e-%d-%s", os.Getpid(), strings.ToLower(t.Name())))
	l.mkCgroup(t, "")
	l.mountPins(t)
	l.enterNetns(t)
	return l
}

// mkCgroup makes a cgroup below the lab's and returns it.
func (l *lab) mkCgroup(t *testing.T, name string) string {
	t.Helper()
	dir := filepath.Join(l.cgroup, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// Its last process has been waited for, and leaves it a moment later.
		deadline := time.Now().Add(patience)
		for err := os.Remove(dir); err != nil; err = os.Remove(dir) {
			if !errors.Is(err, syscall.EBUSY) || time.Now().After(deadline) {
				t.Error(err)
				return
			}
			runtime.Gosched()
		}
	})
	return dir
}

func (l *lab) mountPins(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("bpf", dir, "bpf", 0, ""); err != nil {
		t.Skip("needs a BPF file system: ", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	l.pins = filepath.Join(dir, "portico")
	t.Cleanup(func() {
		if err := bpf.Uninstall(l.pins); err != nil && !errors.Is(err, bpf.ErrNotInstalled) {
			t.Error(err)
		}
	})
}

func (l *lab) enterNetns(t *testing.T) {
	t.Helper()
	ready := make(chan error)
	go func() {
		// Never unlocked: the thread ends with the goroutine.
		runtime.LockOSThread()
		ready <- unix.Unshare(unix.CLONE_NEWNET)
		for f := range l.work {
			f()
		}
	}()
	t.Cleanup(func() { close(l.work) })
	if err := <-ready; err != nil {
		t.Fatal("make network namespace: ", err)
	}
	l.do(func() {
		if err := setLoopback("lo", netip.MustParseAddr("127.0.0.1")); err != nil {
			t.Error("bring loopback up: ", err)
		}
	})
}

// do runs f in the lab's network namespace.
func (l *lab) do(f func()) {
	done := make(chan struct{})
	l.work <- func() {
		defer close(done)
		f()
	}
	<-done
}

// addAddress gives the node an address.
func (l *lab) addAddress(t *testing.T, n int, ip string) {
	t.Helper()
	l.do(func() {
		if err := setLoopback(fmt.Sprintf("lo:%d", n), netip.MustParseAddr(ip)); err != nil {
			t.Error("add address: ", err)
		}
	})
}

func setLoopback(label string, ip netip.Addr) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	r, err := unix.NewIfreq(label)
	if err != nil {
		return err
	}
	if err := r.SetInet4Addr(ip.AsSlice()); err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFADDR, r); err != nil {
		return err
	}
	if err := r.SetInet4Addr([]byte{255, 255, 255, 255}); label != "lo" && err == nil {
		if err := unix.IoctlIfreq(fd, unix.SIOCSIFNETMASK, r); err != nil {
			return err
		}
	}
	r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, r)
}

// relay lets the node reach a server of the test's own network at an address of
// the node's. Its connections are nobody's on the node.
func (l *lab) relay(t *testing.T, at, to string) {
	t.Helper()
	var listener net.Listener
	var err error
	l.do(func() { listener, err = net.Listen("tcp", at) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			go join(c, to)
		}
	}()
}

func join(c net.Conn, to string) {
	defer c.Close()
	d, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer d.Close()
	var both sync.WaitGroup
	one := func(to, from net.Conn) {
		_, _ = io.Copy(to, from)
		if half, ok := to.(*net.TCPConn); ok {
			_ = half.CloseWrite()
		}
	}
	both.Go(func() { one(c, d) })
	both.Go(func() { one(d, c) })
	both.Wait()
}

// A process is one on the node.
type process struct {
	cmd   *exec.Cmd
	in    io.WriteCloser
	out   *bufio.Scanner
	ended chan struct{}
}

// spawn starts a program in a cgroup on the node. It is killed with the test.
func (l *lab) spawn(t *testing.T, cgroup string, env []string, program string, args ...string) *process {
	t.Helper()
	dir, err := os.Open(cgroup)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stderr = t.Output()
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	p := &process{cmd: cmd, ended: make(chan struct{})}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.in, p.out = in, bufio.NewScanner(out)
	l.do(func() { err = cmd.Start() })
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		_, _ = cmd.Process.Wait()
		close(p.ended)
	}()
	t.Cleanup(func() { p.kill(t) })
	return p
}

// play starts a role of this test binary.
func (l *lab) play(t *testing.T, cgroup string, role ...string) *process {
	t.Helper()
	return l.spawn(t, cgroup, []string{roleVariable + "=" + strings.Join(role, " ")}, os.Args[0])
}

func (p *process) kill(t *testing.T) {
	t.Helper()
	p.signal(t, syscall.SIGKILL)
}

// signal sends a signal that ends the process, and waits until it has.
func (p *process) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Error(err)
	}
	<-p.ended
}

// say sends a line to a role, and returns its answer.
func (p *process) say(t *testing.T) string {
	t.Helper()
	if _, err := io.WriteString(p.in, "\n"); err != nil {
		t.Fatal(err)
	}
	if !p.out.Scan() {
		t.Fatal("the client has ended")
	}
	return p.out.Text()
}

// until asks until the wanted answer comes, and returns how long that took. No
// answer may be a hung connection.
func (p *process) until(t *testing.T, want string) time.Duration {
	t.Helper()
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	pace := time.NewTicker(5 * time.Millisecond)
	defer pace.Stop()
	for last := ""; ; {
		if last = p.say(t); last == want {
			return time.Since(began)
		}
		if strings.Contains(last, "timeout") || strings.Contains(last, "deadline") {
			t.Fatalf("a connection hung: %s", last)
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%q answered last, want %q", last, want)
		case <-pace.C:
		}
	}
}

// agent starts `portico redirect` on the node.
func (l *lab) agent(t *testing.T, args ...string) *process {
	t.Helper()
	return l.spawn(t, l.cgroup, nil, l.binary, append([]string{
		"redirect", "--node-name=n1", "--cgroup=" + l.cgroup, "--pin-path=" + l.pins, "--metrics-bind-address=0", "--health-probe-bind-address=0",
	}, args...)...)
}

// inspect shows the kernel's table; nothing, if there is none.
func (l *lab) inspect() string {
	cmd := exec.Command(l.binary, "inspect", "redirect", "--pin-path="+l.pins)
	var out []byte
	l.do(func() { out, _ = cmd.CombinedOutput() })
	return string(out)
}

// portico runs one command on the node to its end.
func (l *lab) portico(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command(l.binary, args...)
	var out []byte
	var err error
	l.do(func() { out, err = cmd.CombinedOutput() })
	if err != nil {
		t.Fatalf("portico %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// pause lets a moment pass between two questions.
func (p *process) pause(t *testing.T) {
	t.Helper()
	select {
	case <-time.After(5 * time.Millisecond):
	case <-p.ended:
		t.Fatal("the client has ended")
	}
}
