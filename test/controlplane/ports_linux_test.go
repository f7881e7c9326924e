package controlplane

import (
	"fmt"
	"net"
	"testing"
)

func TestReservedPortStandsAsideForItsListener(t *testing.T) {
	p, err := reservePort()
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	address := fmt.Sprintf("127.0.0.1:%d", p.number)
	for range 2 {
		if conn, err := net.Dial("tcp4", address); err == nil {
			_ = conn.Close()
			t.Fatal("connected to a port on which nobody listens")
		}
		l, err := net.Listen("tcp4", address)
		if err != nil {
			t.Fatalf("listen on a reserved port: %v", err)
		}
		conn, err := net.Dial("tcp4", address)
		if err != nil {
			t.Fatalf("connect to the listener: %v", err)
		}
		_ = conn.Close()
		_ = l.Close()
	}
}
