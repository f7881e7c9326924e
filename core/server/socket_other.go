//go:build !linux

package server

import "net"

// perConnection is c as the server reads and writes it.
func perConnection(c net.Conn) net.Conn { return polite{c} }
