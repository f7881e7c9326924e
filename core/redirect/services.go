package redirect

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"
)

// proxyName is the label of Services that are somebody else's to resolve.
const proxyName = "service.kubernetes.io/service-proxy-name"

// serviceOwner begins the owners of Services' layers.
const serviceOwner = "Service "

// defaultAffinity is what the API server fills in.
const defaultAffinity = 3 * time.Hour

var loopbacks = []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1")}

// apiServer is the Service of the API server itself.
var apiServer = types.NamespacedName{Namespace: corev1.NamespaceDefault, Name: "kubernetes"}

// A front is a destination of a Service, and what its endpoints are found by.
type front struct {
	target Target
	port   *corev1.ServicePort
	kind   claim
	// hostOnly is true where the address is somebody else in each pod.
	hostOnly bool
}

// resolveServices finds out what kube-proxy would do for connections that begin on
// this node.
func (d *Decider) resolveServices() {
	d.slices, d.fronts = map[types.NamespacedName][]*discoveryv1.EndpointSlice{}, map[types.NamespacedName][]front{}
	for _, s := range d.world.EndpointSlices {
		name := ServiceOf(s)
		d.slices[name] = append(d.slices[name], s)
	}
	d.assignFronts()
	for name := range d.fronts {
		maps.Copy(d.services, d.layersOf(name))
	}
}

// ServiceOf is the Service that an EndpointSlice belongs to.
func ServiceOf(s *discoveryv1.EndpointSlice) types.NamespacedName {
	return types.NamespacedName{Namespace: s.Namespace, Name: s.Labels[discoveryv1.LabelServiceName]}
}

// assignFronts gives each destination to one Service. Older Services come first,
// so that where two claim the same port the table does not depend on the order in
// which they are listed.
func (d *Decider) assignFronts() {
	services := slices.SortedFunc(slices.Values(d.world.Services), olderService)
	taken := map[Target]bool{}
	for kind := clusterIP; kind <= nodePort; kind++ {
		for _, s := range services {
			if !ours(s) {
				continue
			}
			name, own := nameOf(s), addressesOf(s)
			for i := range s.Spec.Ports {
				for _, f := range d.frontsOf(s, &s.Spec.Ports[i], own, kind) {
					if !taken[f.target] {
						taken[f.target] = true
						d.fronts[name] = append(d.fronts[name], f)
					}
				}
			}
		}
	}
}

func olderService(a, b *corev1.Service) int {
	return cmp.Or(
		a.CreationTimestamp.Compare(b.CreationTimestamp.Time),
		cmp.Compare(a.Namespace, b.Namespace),
		cmp.Compare(a.Name, b.Name),
	)
}

// ours leaves out Services that have no cluster address, and those of another
// proxy.
func ours(s *corev1.Service) bool {
	_, theirs := s.Labels[proxyName]
	return !theirs && len(addressesOf(s)[clusterIP]) > 0 && s.Spec.Type != corev1.ServiceTypeExternalName
}

// frontsOf are the destinations that one port of a Service claims by one kind of
// address.
func (d *Decider) frontsOf(s *corev1.Service, port *corev1.ServicePort, own [3][]netip.Addr, kind claim) []front {
	protocol := protocolOfPort(port)
	number := port.Port
	if kind == nodePort {
		number = port.NodePort
	}
	if protocol != corev1.ProtocolTCP && protocol != corev1.ProtocolUDP || number < 1 || number > 65535 {
		return nil
	}
	var all []front
	add := func(a netip.Addr, hostOnly bool) {
		// A Service is of those families of which it has a cluster address.
		if slices.ContainsFunc(own[clusterIP], func(c netip.Addr) bool { return c.Is6() == a.Is6() }) {
			all = append(all, front{Target{netip.AddrPortFrom(a, uint16(number)), protocol}, port, kind, hostOnly})
		}
	}
	if kind != nodePort {
		for _, a := range own[kind] {
			if !d.owners.yields(s, a, kind) {
				add(a, false)
			}
		}
		return all
	}
	for _, a := range d.world.Node.Addresses {
		// An address of this machine may be one that a Service was given.
		if a = a.Unmap(); usable(a) && a.Zone() == "" && !d.owners.yields(s, a, loadBalancer) {
			add(a, false)
		}
	}
	for _, a := range loopbacks {
		add(a, true)
	}
	return all
}

func protocolOfPort(p *corev1.ServicePort) corev1.Protocol {
	return cmp.Or(p.Protocol, corev1.ProtocolTCP)
}

// layersOf finds what becomes of the destinations of one Service.
func (d *Decider) layersOf(name types.NamespacedName) map[Target]*Layer {
	if len(d.fronts[name]) == 0 {
		return nil
	}
	node, zone := d.place()
	byPort := endpointsOf(withoutHeadless(d.slices[name]), node)
	if name == apiServer {
		d.overrule(byPort)
	}
	type what struct {
		port          *corev1.ServicePort
		six           bool
		inner, inHost bool
	}
	made := map[what]*Layer{}
	all := make(map[Target]*Layer, len(d.fronts[name]))
	for _, f := range d.fronts[name] {
		key := what{f.port, f.target.Addr().Is6(), f.kind == clusterIP, f.hostOnly}
		if made[key] == nil {
			made[key] = servicePort{d.named[name], f.port, byPort, node, zone}.layer(key.six, f.kind)
			made[key].HostOnly = made[key].HostOnly || f.hostOnly
		}
		all[f.target] = made[key]
	}
	return all
}

// withoutHeadless leaves out the EndpointSlices that are said to be of no cluster
// address, whatever their Service has (kube-proxy does not watch them).
func withoutHeadless(all []*discoveryv1.EndpointSlice) []*discoveryv1.EndpointSlice {
	isHeadless := func(s *discoveryv1.EndpointSlice) bool {
		_, is := s.Labels[corev1.IsHeadlessService]
		return is
	}
	if !slices.ContainsFunc(all, isHeadless) {
		return all
	}
	return slices.DeleteFunc(slices.Clone(all), isHeadless)
}

// place is this node and its zone, as endpoints know them.
func (d *Decider) place() (node, zone string) {
	if d.world.Node.Object == nil {
		return "", ""
	}
	return d.world.Node.Name, d.world.Node.Object.Labels[corev1.LabelTopologyZone]
}

// overrule puts the given addresses of the API server in the place of what its
// Service says.
func (d *Decider) overrule(byPort map[portKey][]endpoint) {
	if len(d.world.APIServers) == 0 {
		return
	}
	for _, six := range []bool{false, true} {
		var all []endpoint
		for _, a := range slices.SortedFunc(slices.Values(d.world.APIServers), netip.AddrPort.Compare) {
			if a.Addr().Is6() == six {
				all = append(all, endpoint{AddrPort: a, ready: true, serving: true})
			}
		}
		byPort[portKey{"https", corev1.ProtocolTCP, six}] = all
	}
}

// A servicePort is what one port of a Service is resolved from.
type servicePort struct {
	service *corev1.Service
	port    *corev1.ServicePort
	byPort  map[portKey][]endpoint
	node    string
	zone    string
}

// layer chooses endpoints. Connections from this node to external addresses have
// their way to all endpoints, whatever externalTrafficPolicy says: it is about
// those that come from outside (kube-proxy, KUBE-EXT chains).
func (p servicePort) layer(six bool, kind claim) *Layer {
	all := p.byPort[portKey{p.port.Name, protocolOfPort(p.port), six}]
	l := &Layer{Owner: serviceOwner + nameOf(p.service).String() + ":" + cmp.Or(p.port.Name, string(p.port.Protocol))}
	if kind == clusterIP && deref(p.service.Spec.InternalTrafficPolicy, "") == corev1.ServiceInternalTrafficPolicyLocal {
		l.Backends = onThisNode(all)
	} else {
		l.Backends = reachable(all, p.node, p.zone)
	}
	l.HostOnly = slices.ContainsFunc(l.Backends, isLoopback)
	if p.service.Spec.SessionAffinity == corev1.ServiceAffinityClientIP {
		l.Affinity = affinityOf(p.service)
	}
	return l
}

// isLoopback is true of an address that is somebody else in each pod.
func isLoopback(a netip.AddrPort) bool { return a.Addr().IsLoopback() }

func affinityOf(s *corev1.Service) time.Duration {
	c := s.Spec.SessionAffinityConfig
	if c == nil || c.ClientIP == nil || c.ClientIP.TimeoutSeconds == nil || *c.ClientIP.TimeoutSeconds < 1 {
		return defaultAffinity
	}
	return time.Duration(*c.ClientIP.TimeoutSeconds) * time.Second
}
