package bpf

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"net/netip"
	"strings"
	"time"
)

// A Protocol is what a socket speaks.
type Protocol uint16

// The protocols that can be steered.
const (
	TCP Protocol = 6
	UDP Protocol = 17
)

func (p Protocol) String() string {
	switch p {
	case TCP:
		return "TCP"
	case UDP:
		return "UDP"
	}
	return fmt.Sprintf("protocol %d", uint16(p))
}

// A Frontend is a destination that programs name.
type Frontend struct {
	netip.AddrPort
	Protocol Protocol
}

func (f Frontend) String() string { return f.AddrPort.String() + "/" + f.Protocol.String() }

// A Table says what becomes of destinations. What is not in it stays as it is.
type Table map[Frontend]Entry

// An Entry is what becomes of one destination: what Policy says, if it counts
// at the moment and for the client, or else what Service says. A layer that is
// nil says nothing. If none says anything, the destination stays what it is.
type Entry struct {
	Policy  *Layer
	Service *Layer
}

// A Layer is a choice of backends.
type Layer struct {
	// Owner keeps affinity: layers of the same owner share it.
	Owner string
	// Backends are of the frontend's family. With none, connections are refused.
	Backends []netip.AddrPort
	// Affinity is how long, in whole seconds, a client keeps its backend after
	// it last connected, if the backend is still there. 0 is not at all.
	Affinity time.Duration
	// PerCgroup takes a client for a cgroup instead of a network namespace.
	PerCgroup bool
	// HostOnly layers count only in the network namespace of the process that
	// opened the table: 127.0.0.1 is somebody else in each.
	HostOnly bool

	// The following are for policies.

	// Leased layers count only while [Redirector.Renew] is called in time.
	Leased bool
	// Strict layers refuse, when their lease has run out, instead of leaving
	// it to the Service.
	Strict bool
	// Clients are the cgroups, by number, that the layer is for, with all
	// below them; nil is everybody, and an empty list nobody.
	Clients []uint64
	// Except are the cgroups that the layer is not for.
	Except []uint64
}

func addressOf(a netip.AddrPort, p Protocol) redirectAddress {
	raw := a.Addr().As16()
	out := redirectAddress{Protocol: uint16(p)}
	for i := range out.Ip {
		out.Ip[i] = binary.NativeEndian.Uint32(raw[4*i:])
	}
	var port [2]byte
	binary.BigEndian.PutUint16(port[:], a.Port())
	out.Port = binary.NativeEndian.Uint16(port[:])
	return out
}

func (a redirectAddress) frontend() Frontend {
	var raw [16]byte
	for i, word := range a.Ip {
		binary.NativeEndian.PutUint32(raw[4*i:], word)
	}
	var port [2]byte
	binary.NativeEndian.PutUint16(port[:], a.Port)
	addr := netip.AddrFrom16(raw).Unmap()
	return Frontend{netip.AddrPortFrom(addr, binary.BigEndian.Uint16(port[:])), Protocol(a.Protocol)}
}

// tag is what tag_of in redirect.c computes.
func (a redirectAddress) tag() uint32 {
	h := a.Ip[0]
	for _, word := range a.Ip[1:] {
		h = h*31 + word
	}
	return h*31 + (uint32(a.Port)<<16 | uint32(a.Protocol))
}

func number(s string) uint32 {
	h := fnv.New32a()
	h.Write([]byte(s))
	return h.Sum32()
}

// backendID tells backends of a set apart. It is the same in every set, so that
// a client's choice is found again in the next one.
func backendID(a netip.AddrPort) uint32 {
	raw := a.Addr().As16()
	h := fnv.New32a()
	h.Write(raw[:])
	h.Write([]byte{byte(a.Port() >> 8), byte(a.Port())})
	return h.Sum32()
}

// needsMembers says whether a choice among the layer's backends is remembered.
func (l *Layer) needsMembers(p Protocol) bool { return l.Affinity > 0 || p == UDP }

// setKey is the same for what can be the same set.
func setKey(backends []netip.AddrPort, p Protocol, members bool) string {
	var b strings.Builder
	b.Grow(3 + 18*len(backends))
	b.WriteByte(byte(p))
	if members {
		b.WriteByte('m')
	}
	for _, a := range backends {
		raw := a.Addr().As16()
		b.Write(raw[:])
		b.Write([]byte{byte(a.Port() >> 8), byte(a.Port())})
	}
	return b.String()
}
