package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/portico-proxy/portico/bpf"
	"github.com/portico-proxy/portico/core/redirect"
)

// kernelTable hands what was decided to the kernel's room: neither room knows the
// other.
func kernelTable(t redirect.Table) bpf.Table {
	out := make(bpf.Table, len(t))
	for target, e := range t {
		protocol := bpf.TCP
		if target.Protocol == corev1.ProtocolUDP {
			protocol = bpf.UDP
		}
		out[bpf.Frontend{AddrPort: target.AddrPort, Protocol: protocol}] = bpf.Entry{
			Policy: kernelLayer(e.Policy), Service: kernelLayer(e.Service),
		}
	}
	return out
}

func kernelLayer(l *redirect.Layer) *bpf.Layer {
	if l == nil {
		return nil
	}
	return &bpf.Layer{
		Owner: l.Owner, Backends: l.Backends, Affinity: l.Affinity, PerCgroup: l.PerCgroup, HostOnly: l.HostOnly,
		Leased: l.Leased, Strict: l.Strict, Clients: l.Clients, Except: l.Except,
	}
}

// printDecision writes what would be done, for people.
func printDecision(w io.Writer, d redirect.Decision) {
	table := kernelTable(d.Table)
	for _, f := range slices.SortedFunc(maps.Keys(table), compareFrontends) {
		fmt.Fprintln(w, f)
		printEntry(w, table[f])
	}
	for _, p := range d.Policies {
		fmt.Fprintf(w, "%s %s: %s", p.Kind, p.Policy.GetName(), p.Reason)
		if p.Message != "" {
			fmt.Fprintf(w, " (%s)", p.Message)
		}
		fmt.Fprintln(w)
	}
}

func compareFrontends(a, b bpf.Frontend) int {
	if c := a.Compare(b.AddrPort); c != 0 {
		return c
	}
	return int(a.Protocol) - int(b.Protocol)
}

func printEntry(w io.Writer, e bpf.Entry) {
	for _, l := range []*bpf.Layer{e.Policy, e.Service} {
		if l != nil {
			fmt.Fprintf(w, "  -> %s, because of %s%s\n", backends(l), l.Owner, conditions(l))
		}
	}
}

func backends(l *bpf.Layer) string {
	if len(l.Backends) == 0 {
		return "refused"
	}
	texts := make([]string, len(l.Backends))
	for i, b := range l.Backends {
		texts[i] = b.String()
	}
	return strings.Join(texts, " ")
}

func conditions(l *bpf.Layer) string {
	var b strings.Builder
	say := func(when bool, format string, args ...any) {
		if when {
			fmt.Fprintf(&b, ", "+format, args...)
		}
	}
	say(l.Leased, "while the agent lives")
	say(l.Strict, "refused otherwise")
	say(l.HostOnly, "for the host itself")
	say(l.Clients != nil, "for %d cgroups", len(l.Clients))
	say(len(l.Except) > 0, "but not for %d cgroups of backends", len(l.Except))
	say(l.Affinity > 0, "keeping clients for %v", l.Affinity)
	return b.String()
}
