//go:build linux

package bpf

import (
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A family is what differs between IPv4 and IPv6.
type family struct {
	name, listen string
	vip          netip.Addr
	iptables     string
	nft          string // what nft calls it
	bits         int
}

var (
	ipv4 = family{"IPv4", "127.0.0.5:0", netip.MustParseAddr("10.96.0.1"), "iptables-legacy-restore", "ip", 32}
	ipv6 = family{"IPv6", "[::1]:0", netip.MustParseAddr("fd00::1"), "ip6tables-legacy-restore", "ip6", 128}
)

// rules are turns with the rules that a proxy of packets has: one per Service for
// iptables, of which ours is the last one, and one map for nftables.
func (f family) rules(b *testing.B, size int) []turn {
	b.Helper()
	var turns []turn
	for _, c := range []struct {
		name string
		args []string
		of   func(n int, to netip.AddrPort) string
	}{
		{"iptables", []string{f.iptables}, f.iptablesRules},
		{"nft", []string{"nft", "-f", "-"}, f.nftRules},
	} {
		n := newNetns(b)
		q := n.queue(b, f.listen)
		// A packet needs a route before it meets a rule.
		out, err := n.run("", "ip", "addr", "add", fmt.Sprintf("%s/%d", f.vip, f.bits), "dev", "lo")
		if err == nil {
			out, err = n.run(c.of(size, q.addr), c.args...)
		}
		if err != nil {
			b.Logf("no rules of %s: %v: %s", c.name, err, out)
			continue
		}
		outside := filepath.Dir(lab)
		turns = append(turns,
			turn{c.name + "-miss", outside, n, q.fd, q.addr}, turn{c.name + "-hit", outside, n, q.fd, netip.AddrPortFrom(f.vip, 443)})
	}
	return turns
}

func (n *netns) run(in string, args ...string) (out []byte, err error) {
	n.do(func() {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Stdin = strings.NewReader(in)
		out, err = cmd.CombinedOutput()
	})
	return out, err
}

func (f family) iptablesRules(size int, to netip.AddrPort) string {
	var b strings.Builder
	b.WriteString("*nat\n:OUTPUT ACCEPT [0:0]\n:SERVICES - [0:0]\n-A OUTPUT -j SERVICES\n")
	for i := range size - 1 {
		fmt.Fprintf(&b, "-A SERVICES -d %s/%d -p tcp -m tcp --dport 80 -j DNAT --to-destination %s\n", f.other(i), f.bits, to)
	}
	fmt.Fprintf(&b, "-A SERVICES -d %s/%d -p tcp -m tcp --dport 443 -j DNAT --to-destination %s\nCOMMIT\n", f.vip, f.bits, to)
	return b.String()
}

// nftRules fills the map with a command of its own: nft takes minutes for a
// description of one that has so many elements.
func (f family) nftRules(size int, to netip.AddrPort) string {
	var b strings.Builder
	fmt.Fprintf(&b, "add table %s t\n", f.nft)
	fmt.Fprintf(&b, "add map %[1]s t services { type ipv%[2]s_addr . inet_service : ipv%[2]s_addr . inet_service; }\n", f.nft, f.name[3:])
	fmt.Fprintf(&b, "add chain %s t output { type nat hook output priority -100; }\n", f.nft)
	fmt.Fprintf(&b, "add rule %[1]s t output dnat %[1]s to %[1]s daddr . tcp dport map @services\n", f.nft)
	fmt.Fprintf(&b, "add element %s t services {\n", f.nft)
	for i := range size - 1 {
		fmt.Fprintf(&b, "%s . 80 : %s . %d,\n", f.other(i), to.Addr(), to.Port())
	}
	fmt.Fprintf(&b, "%s . 443 : %s . %d\n}\n", f.vip, to.Addr(), to.Port())
	return b.String()
}

// other is the address of one of the other Services.
func (f family) other(i int) netip.Addr { return numbered("11.0.0.0", "fd02::", f.vip.Is6(), i) }
