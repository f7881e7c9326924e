package redirect

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// An endpoint is one address and port of an EndpointSlice.
type endpoint struct {
	netip.AddrPort
	local                       bool
	ready, serving, terminating bool
	zones, nodes                []string
}

func isReady(e endpoint) bool    { return e.ready }
func isDraining(e endpoint) bool { return e.serving && e.terminating }
func isLocal(e endpoint) bool    { return e.local }

// portKey is how EndpointSlices and Services name a port to each other.
type portKey struct {
	port     string
	protocol corev1.Protocol
	six      bool
}

// endpointsOf sorts the endpoints of a Service by the port that they belong to.
func endpointsOf(all []*discoveryv1.EndpointSlice, node string) map[portKey][]endpoint {
	byPort := map[portKey]map[netip.AddrPort]endpoint{}
	for _, slice := range all {
		if slice.AddressType != discoveryv1.AddressTypeIPv4 && slice.AddressType != discoveryv1.AddressTypeIPv6 {
			continue
		}
		for _, port := range slice.Ports {
			if port.Port == nil || *port.Port < 1 || *port.Port > 65535 {
				continue
			}
			key := portKey{
				port: deref(port.Name, ""), protocol: deref(port.Protocol, corev1.ProtocolTCP),
				six: slice.AddressType == discoveryv1.AddressTypeIPv6,
			}
			if byPort[key] == nil {
				byPort[key] = map[netip.AddrPort]endpoint{}
			}
			addEndpoints(byPort[key], key.six, slice.Endpoints, uint16(*port.Port), node)
		}
	}
	sorted := make(map[portKey][]endpoint, len(byPort))
	for key, found := range byPort {
		list := make([]endpoint, 0, len(found))
		for _, e := range found {
			list = append(list, e)
		}
		slices.SortFunc(list, func(a, b endpoint) int { return a.Compare(b.AddrPort) })
		sorted[key] = list
	}
	return sorted
}

func addEndpoints(to map[netip.AddrPort]endpoint, six bool, from []discoveryv1.Endpoint, port uint16, node string) {
	for _, e := range from {
		if len(e.Addresses) == 0 {
			continue
		}
		// There is never more than one (discovery/v1).
		a, err := netip.ParseAddr(e.Addresses[0])
		a = a.Unmap()
		if err != nil || a.Is6() != six || a.Zone() != "" || a.IsUnspecified() || a.IsMulticast() {
			continue
		}
		made := endpoint{
			AddrPort:    netip.AddrPortFrom(a, port),
			local:       e.NodeName != nil && node != "" && *e.NodeName == node,
			ready:       deref(e.Conditions.Ready, true),
			serving:     deref(e.Conditions.Serving, true),
			terminating: deref(e.Conditions.Terminating, false),
		}
		if e.Hints != nil {
			for _, z := range e.Hints.ForZones {
				made.zones = append(made.zones, z.Name)
			}
			for _, n := range e.Hints.ForNodes {
				made.nodes = append(made.nodes, n.Name)
			}
		}
		// An endpoint may be in two slices while it moves, and its address may
		// already be that of a new pod: a running one wins (kube-proxy,
		// EndpointSliceCache).
		if before, twice := to[made.AddrPort]; !twice || better(made, before) {
			to[made.AddrPort] = made
		}
	}
}

// better makes the choice independent of the order of slices.
func better(a, b endpoint) bool {
	rank := func(e endpoint) int {
		switch {
		case e.ready && !e.terminating:
			return 0
		case !e.terminating:
			return 1
		case e.ready:
			return 2
		case e.serving:
			return 3
		}
		return 4
	}
	return rank(a) < rank(b)
}

// reachable are the endpoints that a Service offers on this node by traffic
// policy Cluster: the ready ones, near ones if there are hints; without any
// ready, those that drain (kube-proxy, CategorizeEndpoints).
func reachable(all []endpoint, node, zone string) []netip.AddrPort {
	ready := filter(all, isReady)
	if len(ready) == 0 {
		return addrs(filter(all, isDraining))
	}
	return addrs(nearest(ready, node, zone))
}

// nearest keeps the endpoints hinted for this node or, failing that, for its
// zone. Hints count only if every endpoint has one: others were made by a
// control plane that knows none.
func nearest(ready []endpoint, node, zone string) []endpoint {
	for _, hint := range []struct {
		of   func(endpoint) []string
		here string
	}{
		{func(e endpoint) []string { return e.nodes }, node},
		{func(e endpoint) []string { return e.zones }, zone},
	} {
		unhinted := func(e endpoint) bool { return len(hint.of(e)) == 0 }
		forHere := filter(ready, func(e endpoint) bool { return slices.Contains(hint.of(e), hint.here) })
		if len(forHere) > 0 && !slices.ContainsFunc(ready, unhinted) {
			return forHere
		}
	}
	return ready
}

// onThisNode are the endpoints that a Service offers on this node by traffic
// policy Local.
func onThisNode(all []endpoint) []netip.AddrPort {
	here := filter(all, isLocal)
	if ready := filter(here, isReady); len(ready) > 0 {
		return addrs(ready)
	}
	return addrs(filter(here, isDraining))
}

func filter(all []endpoint, keep func(endpoint) bool) []endpoint {
	var kept []endpoint
	for _, e := range all {
		if keep(e) {
			kept = append(kept, e)
		}
	}
	return kept
}

func addrs(all []endpoint) []netip.AddrPort {
	out := make([]netip.AddrPort, len(all))
	for i, e := range all {
		out[i] = e.AddrPort
	}
	return out
}

func deref[T any](p *T, otherwise T) T {
	if p == nil {
		return otherwise
	}
	return *p
}
