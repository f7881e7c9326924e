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
	a := authority.New(tb)
	var addresses []string
	for range n {
		addresses = append(addresses, controlplane.FreeAddress(tb))
	}
	for _, address := range addresses {
		_, port, _ := net.SplitHostPort(address)
		cert, key := a.Pair("127.0.0.1")
		flags = append(flags, []string{
			"--peers=" + strings.Join(addresses, ","), "--peer-advertise-ip=127.0.0.1", "--peer-advertise-port=" + port,
			"--peer-ca-file=" + a.File, "--peer-cert-file=" + cert, "--peer-key-file=" + key,
		})
	}
	return flags
}
