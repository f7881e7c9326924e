package redirect

import (
	"cmp"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// A claim is a Service's to an address. Cluster addresses are given out by the
// API server, load balancers' by whoever may write status; external ones by
// anybody who may make a Service, so that they yield to the others.
type claim int

const (
	clusterIP claim = iota
	loadBalancer
	externalIP
	nodePort
)

// owners says which Service an address belongs to.
type owners map[netip.Addr]owner

type owner struct {
	claim   claim
	service types.NamespacedName
	since   int64
}

// ownersOf counts all Services, also those that are somebody else's to resolve.
func ownersOf(services []*corev1.Service) owners {
	all := owners{}
	for _, s := range services {
		for kind, addrs := range addressesOf(s) {
			mine := owner{claim: claim(kind), service: nameOf(s), since: s.CreationTimestamp.UnixNano()}
			for _, a := range addrs {
				if theirs, taken := all[a]; !taken || mine.before(theirs) {
					all[a] = mine
				}
			}
		}
	}
	return all
}

// before says whose claim is the better one: an older Service's, among equals.
func (o owner) before(p owner) bool {
	return cmp.Or(
		cmp.Compare(o.claim, p.claim),
		cmp.Compare(o.since, p.since),
		cmp.Compare(o.service.String(), p.service.String()),
	) < 0
}

// yields says whether a Service may not have an address because it is another's
// by a better kind of claim. Services may share an address by equal claims, with
// different ports.
func (all owners) yields(s *corev1.Service, a netip.Addr, c claim) bool {
	o, taken := all[a]
	return taken && o.service != nameOf(s) && o.claim < c
}

// addressesOf returns the addresses of a Service by kind of claim.
func addressesOf(s *corev1.Service) [3][]netip.Addr {
	var all [3][]netip.Addr
	all[clusterIP] = parse(append(slices.Clone(s.Spec.ClusterIPs), s.Spec.ClusterIP))
	all[externalIP] = parse(s.Spec.ExternalIPs)
	for _, i := range s.Status.LoadBalancer.Ingress {
		// In mode Proxy the load balancer wants to see the connection itself.
		if i.IPMode == nil || *i.IPMode == corev1.LoadBalancerIPModeVIP {
			all[loadBalancer] = append(all[loadBalancer], parse([]string{i.IP})...)
		}
	}
	return all
}

// parse leaves out what is no address: None, nothing, or nonsense in a status.
// Nobody can be drawn away from loopback or unspecified addresses.
func parse(texts []string) []netip.Addr {
	var all []netip.Addr
	for _, text := range texts {
		a, err := netip.ParseAddr(text)
		if err != nil || !usable(a.Unmap()) || a.Zone() != "" || slices.Contains(all, a.Unmap()) {
			continue
		}
		all = append(all, a.Unmap())
	}
	return all
}

func usable(a netip.Addr) bool {
	return a.IsValid() && !a.IsLoopback() && !a.IsUnspecified() && !a.IsMulticast()
}

func nameOf(s *corev1.Service) types.NamespacedName {
	return types.NamespacedName{Namespace: s.Namespace, Name: s.Name}
}
