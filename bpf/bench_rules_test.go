//go:build linux

package bpf

import (
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// BenchmarkPacketRules measures the same connect with the rules that a proxy of
// packets has: one per Service for iptables, of which ours is the last one, and
// one map for nftables.
func BenchmarkPacketRules(b *testing.B) {
	for _, c := range []struct {
		tool  string
		sizes []int
		rules func(n int, to netip.AddrPort) string
	}{
		{"iptables-legacy-restore", []int{1, 10000, 30000}, iptablesRules},
		{"nft", []int{1, 10000}, nftRules}, // 30000 take minutes to load, and are found as fast
	} {
		if _, err := exec.LookPath(c.tool); err != nil {
			b.Logf("no %s here", c.tool)
			continue
		}
		for _, size := range c.sizes {
			n := newNetns(b)
			l := n.listen(b, "127.0.0.5:0", "")
			n.address(b, "10.96.0.1") // a packet needs a route before it meets a rule
			if out, err := n.load(c.tool, c.rules(size, l)); err != nil {
				b.Logf("%s: %v: %s", c.tool, err, out)
				continue
			}
			b.Run(fmt.Sprintf("%s/%d", c.tool, size), func(b *testing.B) {
				outside := filepath.Dir(lab)
				n.compare(b, []turn{{"miss", outside, l}, {"hit", outside, netip.MustParseAddrPort(vip)}})
			})
		}
	}
}

func (n *netns) load(tool, rules string) (out []byte, err error) {
	n.do(func() {
		cmd := exec.Command(tool)
		if tool == "nft" {
			cmd.Args = append(cmd.Args, "-f", "-")
		}
		cmd.Stdin = strings.NewReader(rules)
		out, err = cmd.CombinedOutput()
	})
	return out, err
}

func iptablesRules(size int, to netip.AddrPort) string {
	var b strings.Builder
	b.WriteString("*nat\n:OUTPUT ACCEPT [0:0]\n:SERVICES - [0:0]\n-A OUTPUT -j SERVICES\n")
	for i := range size - 1 {
		fmt.Fprintf(&b, "-A SERVICES -d %s/32 -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.0.0.1:8080\n", numbered("11.0.0.0", "", false, i))
	}
	fmt.Fprintf(&b, "-A SERVICES -d 10.96.0.1/32 -p tcp -m tcp --dport 443 -j DNAT --to-destination %s\nCOMMIT\n", to)
	return b.String()
}

func nftRules(size int, to netip.AddrPort) string {
	var b strings.Builder
	b.WriteString("table ip t {\n map services {\n type ipv4_addr . inet_service : ipv4_addr . inet_service\n elements = {\n")
	for i := range size - 1 {
		fmt.Fprintf(&b, "%s . 80 : 10.0.0.1 . 8080,\n", numbered("11.0.0.0", "", false, i))
	}
	fmt.Fprintf(&b, "10.96.0.1 . 443 : %s . %d\n}\n}\n", to.Addr(), to.Port())
	b.WriteString(" chain output {\n type nat hook output priority -100;\n dnat ip to ip daddr . tcp dport map @services\n }\n}\n")
	return b.String()
}

// address gives the namespace's loopback one more address.
func (n *netns) address(tb testing.TB, ip string) {
	tb.Helper()
	n.do(func() {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			tb.Error(err)
			return
		}
		defer unix.Close(fd)
		r, err := unix.NewIfreq("lo:1")
		if err == nil {
			err = r.SetInet4Addr(netip.MustParseAddr(ip).AsSlice())
		}
		if err == nil {
			err = unix.IoctlIfreq(fd, unix.SIOCSIFADDR, r)
		}
		if err != nil {
			tb.Error(err)
		}
	})
}
