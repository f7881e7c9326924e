package redirect

import (
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/portico-proxy/portico/crds/balancing/v1beta1"
)

// Lives says behind which backends there may still be somebody, though no new
// connection goes there: an endpoint or a Pod that is in the world, ready or
// not, or an address that a policy lists.
func Lives(w World, backends map[Target]bool) map[Target]bool {
	alive := map[Target]bool{}
	for _, found := range endpointsOf(w.EndpointSlices, w.Node.Name) {
		for _, e := range found {
			for _, protocol := range []corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP} {
				if t := (Target{e.AddrPort, protocol}); backends[t] {
					alive[t] = true
				}
			}
		}
	}
	held := map[netip.Addr]bool{}
	for _, a := range slices.Concat(podsHold(w), policiesList(w)) {
		held[a] = true
	}
	for t := range backends {
		if held[t.Addr()] {
			alive[t] = true
		}
	}
	return alive
}

func podsHold(w World) []netip.Addr {
	var all []netip.Addr
	for _, pod := range w.Pods {
		if pod.Status.Phase != corev1.PodFailed && pod.Status.Phase != corev1.PodSucceeded {
			all = append(all, podAddresses(pod)...)
		}
	}
	return all
}

// policiesList are the addresses that policies list, and those of nodes.
func policiesList(w World) []netip.Addr {
	var all []netip.Addr
	for _, p := range w.Balancings {
		if a := p.Spec.Backend.AddressEndpoint; a != nil {
			for _, text := range a.Addresses {
				if found, err := netip.ParseAddr(text); err == nil {
					all = append(all, found.Unmap())
				}
			}
		}
	}
	for _, n := range w.Nodes {
		all = append(all, parse([]string{n.Annotations[v1beta1.NodeProxyIPv4], n.Annotations[v1beta1.NodeProxyIPv6]})...)
		for _, a := range n.Status.Addresses {
			all = append(all, parse([]string{a.Address})...)
		}
	}
	return all
}

// Holds says whether the owner of a layer is there to say who its backends are. A
// policy that is gone leaves to themselves the connections that it made.
func (d Decision) Holds(w World, owner string) bool {
	if strings.HasPrefix(owner, serviceOwner) {
		return w.ResolveServices
	}
	return slices.ContainsFunc(d.Policies, func(r PolicyResult) bool {
		return r.Holds && strings.HasPrefix(owner, r.Kind+" "+r.Policy.GetName()+":")
	})
}
