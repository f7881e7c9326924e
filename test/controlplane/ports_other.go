//go:build !linux

package controlplane

import (
	"fmt"
	"net"
)

// A port is a TCP port of 127.0.0.1 that was free a moment ago. Nothing keeps
// it so: only Linux lets a bound socket stand aside for a listener.
type port struct{ number int }

func reservePort() (*port, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("reserve port: %w", err)
	}
	defer l.Close()
	return &port{number: l.Addr().(*net.TCPAddr).Port}, nil
}

func (p *port) close() {}
