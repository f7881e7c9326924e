package controlplane

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// A port is a TCP port of 127.0.0.1 that is ours until closed.
//
// The socket is bound but never listens. While it is open, the kernel gives
// the port to nobody who asks for just any port, but a program that binds it
// by number may (both have SO_REUSEADDR, as Go's listeners do). So a part
// cannot lose its port before its start, nor between a kill and a restart.
type port struct{ fd, number int }

func reservePort() (*port, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("reserve port: %w", err)
	}
	p := &port{fd: fd}
	if err := p.bind(); err != nil {
		p.close()
		return nil, fmt.Errorf("reserve port: %w", err)
	}
	return p, nil
}

func (p *port) bind() error {
	if err := unix.SetsockoptInt(p.fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return err
	}
	if err := unix.Bind(p.fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return err
	}
	name, err := unix.Getsockname(p.fd)
	if err != nil {
		return err
	}
	p.number = name.(*unix.SockaddrInet4).Port
	return nil
}

func (p *port) close() { _ = unix.Close(p.fd) }
