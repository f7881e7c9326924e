package main

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// setMark sets a socket's SO_MARK. Who may not is not somebody whom policies are
// kept for.
func setMark(c syscall.RawConn, mark uint32) error {
	var inner error
	err := c.Control(func(fd uintptr) {
		inner = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, int(mark))
	})
	if errors.Is(inner, unix.EPERM) {
		inner = nil
	}
	return errors.Join(err, inner)
}

// halfOpen lets a TCP connection be reset before its handshake is complete: with
// quick acknowledgements off, the kernel holds back the last step, and closing
// without lingering takes it back. The server's accept never sees a connection
// that only wanted to know whether it is there.
func halfOpen(_, _ string, c syscall.RawConn) error {
	var inner error
	err := c.Control(func(fd uintptr) {
		inner = errors.Join(
			unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_QUICKACK, 0),
			unix.SetsockoptLinger(int(fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}),
		)
	})
	return errors.Join(err, inner)
}
