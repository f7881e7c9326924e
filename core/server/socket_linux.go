package server

import (
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"syscall"
	"unsafe"
)

// mostRaw is how much may go to the kernel at once without the scheduler being
// told, in bytes: more may take a while, as a peer on this machine has it copied
// there and then.
const mostRaw = 32 << 10

// socket makes system calls without telling Go's scheduler. None of them waits,
// and each that is told has it look after a processor that it might have to take
// away, every twenty microseconds for as long as anything runs: a fifth of what a
// small answer takes. Whoever computes for long has it look again by
// [attention.Pay].
type socket struct {
	*net.TCPConn
	raw     syscall.RawConn
	in, out transfer
}

// transfer is one read or one write.
type transfer struct {
	mu     sync.Mutex // guards following
	bytes  []byte
	done   int
	waited bool // for the connection to be ready
	fault  error
	try    func(fd uintptr) bool // made once, as each would be an allocation
}

// perConnection is c as the server reads and writes it.
func perConnection(c net.Conn) net.Conn {
	t, ok := c.(*net.TCPConn)
	if !ok {
		return polite{c}
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return polite{c}
	}
	s := &socket{TCPConn: t, raw: raw}
	s.in.try, s.out.try = s.in.read, s.out.write
	return s
}

// begin is followed by end.
func (t *transfer) begin(p []byte) {
	t.mu.Lock()
	t.bytes, t.done, t.waited, t.fault = p, 0, false, nil
}

func (t *transfer) end() {
	t.bytes = nil // it is the caller's
	t.mu.Unlock()
}

// read reports whether there was anything to read, an end or a fault included.
func (t *transfer) read(fd uintptr) bool {
	n, errno := call(syscall.SYS_READ, fd, t.bytes)
	if errno == syscall.EAGAIN {
		t.waited = true
		return false
	}
	t.done = n
	if errno != 0 {
		t.fault = os.NewSyscallError("read", errno)
	}
	return true
}

// write reports whether all is written, or cannot be.
func (t *transfer) write(fd uintptr) bool {
	for t.done < len(t.bytes) {
		n, errno := call(syscall.SYS_WRITE, fd, t.bytes[t.done:])
		switch errno {
		case 0:
			t.done += n
		case syscall.EAGAIN:
			return false
		default:
			t.fault = os.NewSyscallError("write", errno)
			return true
		}
	}
	return true
}

// call reads or writes p, of which there is some.
func call(what, fd uintptr, p []byte) (n int, errno syscall.Errno) {
	for {
		done, _, errno := syscall.RawSyscall(what, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
		switch errno {
		case 0:
			return int(done), 0
		case syscall.EINTR:
			continue
		}
		return 0, errno
	}
}

// Read lets others run first if it need not wait; see [polite].
func (s *socket) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	s.in.begin(p)
	err := s.raw.Read(s.in.try)
	n, fault, waited := s.in.done, s.in.fault, s.in.waited
	s.in.end()
	switch {
	case err != nil: // closed, or late
		return 0, err
	case fault != nil:
		return 0, s.fault("read", fault)
	case n == 0:
		return 0, io.EOF
	}
	if !waited {
		runtime.Gosched()
	}
	return n, nil
}

func (s *socket) Write(p []byte) (int, error) {
	if len(p) > mostRaw {
		return s.TCPConn.Write(p)
	}
	s.out.begin(p)
	defer s.out.end()
	err := s.raw.Write(s.out.try)
	if err == nil && s.out.fault != nil {
		err = s.fault("write", s.out.fault)
	}
	return s.out.done, err
}

// fault is err as package net tells it.
func (s *socket) fault(what string, err error) error {
	return &net.OpError{Op: what, Net: "tcp", Source: s.LocalAddr(), Addr: s.RemoteAddr(), Err: err}
}
