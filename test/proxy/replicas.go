package proxy

import (
	"net"
	"strings"
	"testing"

	"github.com/portico-proxy/portico/test/authority"
	"github.com/portico-proxy/portico/test/controlplane"
)

// ReplicaFlags are the flags of n proxies that are replicas of each other.
func ReplicaFlags(tb testing.TB, n int) (flags [][]string) {
	tb.Helper()
	var own []string
	for range n {
		own = append(own, controlplane.FreeAddress(tb))
	}
	return replicaFlags(authority.New(tb), own)
}

// RelayedIP is where the lines are taken by which replicas reach each other: each
// listens at its own address, which they do not know.
const RelayedIP = "127.0.0.2"

// RelayedReplicaFlags are ReplicaFlags of proxies that reach each other by lines: line
// is called for each proxy, to make a way from an address, where it listens, to where
// the proxy does. An authority signs for all of them.
func RelayedReplicaFlags(tb testing.TB, n int, a *authority.Authority, line func(from, to string)) (flags [][]string) {
	tb.Helper()
	var known []string
	for range n {
		own := controlplane.FreeAddress(tb)
		_, port, _ := net.SplitHostPort(own)
		address := net.JoinHostPort(RelayedIP, port)
		line(address, own)
		known = append(known, address)
	}
	return replicaFlags(a, known)
}

// replicaFlags are those of replicas that know each other by addresses.
func replicaFlags(a *authority.Authority, addresses []string) (flags [][]string) {
	for _, address := range addresses {
		host, port, _ := net.SplitHostPort(address)
		cert, key := a.Pair(host)
		flags = append(flags, []string{
			"--peers=" + strings.Join(addresses, ","), "--peer-advertise-ip=" + host, "--peer-advertise-port=" + port,
			"--peer-ca-file=" + a.File, "--peer-cert-file=" + cert, "--peer-key-file=" + key,
		})
	}
	return flags
}
