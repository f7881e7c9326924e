package redirect

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// proxyName is the label of Services that are somebody else's to resolve.
const proxyName = "service.kubernetes.io/service-proxy-name"

// defaultAffinity is what the API server fills in.
const defaultAffinity = 3 * time.Hour

var loopbacks = []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1")}

// resolveServices fills the table with what kube-proxy would do for connections
// that begin on this node.
func (d *decider) resolveServices() {
	name, zone := d.world.Node.Name, ""
	if d.world.Node.Object != nil {
		zone = d.world.Node.Object.Labels[corev1.LabelTopologyZone]
	} else {
		name = ""
	}
	byPort := endpointsOf(d.world.EndpointSlices, name)
	d.overrule(byPort)
	// Older Services come first, so that where two claim the same port the table
	// does not depend on the order in which they are listed.
	services := slices.SortedFunc(slices.Values(d.world.Services), olderService)
	for kind := clusterIP; kind <= nodePort; kind++ {
		for _, s := range services {
			if !ours(s) {
				continue
			}
			for i := range s.Spec.Ports {
				d.resolvePort(servicePort{s, &s.Spec.Ports[i], byPort, name, zone}, kind)
			}
		}
	}
}

// overrule puts the given addresses of the API server in the place of what its
// Service says.
func (d *decider) overrule(byPort map[portKey][]endpoint) {
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
		byPort[portKey{corev1.NamespaceDefault, "kubernetes", "https", corev1.ProtocolTCP, six}] = all
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

// A servicePort is what one port of a Service is resolved from.
type servicePort struct {
	service *corev1.Service
	port    *corev1.ServicePort
	byPort  map[portKey][]endpoint
	node    string
	zone    string
}

// resolvePort adds the frontends of one kind of address.
func (d *decider) resolvePort(p servicePort, kind claim) {
	protocol := cmp.Or(p.port.Protocol, corev1.ProtocolTCP)
	if protocol != corev1.ProtocolTCP && protocol != corev1.ProtocolUDP {
		return
	}
	own := addressesOf(p.service)
	for _, six := range []bool{false, true} {
		// A Service is of those families of which it has a cluster address.
		if !slices.ContainsFunc(own[clusterIP], func(a netip.Addr) bool { return a.Is6() == six }) {
			continue
		}
		if kind == nodePort {
			if p.port.NodePort > 0 {
				d.addNodePort(p, six, p.layer(six, kind))
			}
			continue
		}
		var layer *Layer
		for _, a := range own[kind] {
			if a.Is6() != six || d.owners.yields(p.service, a, kind) {
				continue
			}
			if layer == nil {
				layer = p.layer(six, kind)
			}
			d.addService(a, p.port.Port, protocol, Entry{Service: layer})
		}
	}
}

// layer chooses endpoints. Connections from this node to external addresses have
// their way to all endpoints, whatever externalTrafficPolicy says: it is about
// those that come from outside (kube-proxy, KUBE-EXT chains).
func (p servicePort) layer(six bool, kind claim) *Layer {
	all := p.byPort[portKey{
		p.service.Namespace, p.service.Name, p.port.Name, cmp.Or(p.port.Protocol, corev1.ProtocolTCP), six,
	}]
	l := &Layer{Owner: "Service " + nameOf(p.service).String() + ":" + cmp.Or(p.port.Name, string(p.port.Protocol))}
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

func (d *decider) addNodePort(p servicePort, six bool, layer *Layer) {
	protocol := cmp.Or(p.port.Protocol, corev1.ProtocolTCP)
	for _, a := range d.world.Node.Addresses {
		// An address of this machine may be one that a Service was given.
		if a = a.Unmap(); a.Is6() == six && usable(a) && a.Zone() == "" && !d.owners.yields(p.service, a, loadBalancer) {
			d.addService(a, p.port.NodePort, protocol, Entry{Service: layer})
		}
	}
	own := *layer
	own.HostOnly = true // each pod has loopback addresses of its own
	for _, a := range loopbacks {
		if a.Is6() == six {
			d.addService(a, p.port.NodePort, protocol, Entry{Service: &own})
		}
	}
}

// addService adds a frontend unless an older or better claim has it.
func (d *decider) addService(a netip.Addr, port int32, protocol corev1.Protocol, e Entry) {
	if port < 1 || port > 65535 {
		return
	}
	t := Target{netip.AddrPortFrom(a, uint16(port)), protocol}
	if _, taken := d.table[t]; !taken {
		d.table[t] = e
	}
}
