package kubeproxy

import (
	"fmt"
	"math/rand/v2"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	namespace = "shop"
	v4, v6    = corev1.IPv4Protocol, corev1.IPv6Protocol
)

var (
	nodes     = []string{"here", "there", "elsewhere"}
	zones     = []string{"east", "west"}
	portNames = []string{"", "web", "dns"}
	protocols = []corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP}
)

// dice make worlds such as an API server lets come about.
type dice struct {
	*rand.Rand
	given int // addresses and ports that were given out
}

func newDice(seed uint64) *dice { return &dice{Rand: rand.New(rand.NewPCG(seed, seed))} }

// one says yes once in n times.
func (d *dice) one(n int) bool { return d.IntN(n) == 0 }

func pick[T any](d *dice, from ...T) T { return from[d.IntN(len(from))] }

// next is an address that nobody has, of a kind that its first byte tells.
func (d *dice) next(kind int, six bool) string {
	d.given++
	if six {
		return fmt.Sprintf("fd%02x::%x", kind, d.given)
	}
	return fmt.Sprintf("10.%d.%d.%d", kind, d.given/250, d.given%250+1)
}

func (d *dice) world() world {
	w := world{
		Node:      &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "here"}},
		Addresses: []string{"192.168.0.1", "fd11::1", "127.0.0.1"},
	}
	if !d.one(4) {
		w.Node.Labels = map[string]string{corev1.LabelTopologyZone: pick(d, zones...)}
	}
	for i := range 1 + d.IntN(3) {
		s := d.service(fmt.Sprint("s", i))
		w.Services = append(w.Services, s)
		for j := range d.IntN(4) {
			w.Slices = append(w.Slices, d.slice(s, j))
		}
	}
	d.reuse(w.Slices)
	return w
}

func (d *dice) service(name string) *corev1.Service {
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	s.Spec.Type = pick(d, corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort, corev1.ServiceTypeLoadBalancer)
	d.address(s)
	for _, p := range d.Perm(len(portNames) * len(protocols))[:1+d.IntN(3)] {
		port := corev1.ServicePort{Name: portNames[p/2], Protocol: protocols[p%2], Port: int32(80 + p)}
		if s.Spec.Type != corev1.ServiceTypeClusterIP && !d.one(5) {
			d.given++
			port.NodePort = int32(30000 + d.given)
		}
		s.Spec.Ports = append(s.Spec.Ports, port)
	}
	s.Spec.InternalTrafficPolicy = pick(d, nil, new(corev1.ServiceInternalTrafficPolicyCluster), new(corev1.ServiceInternalTrafficPolicyLocal))
	s.Spec.ExternalTrafficPolicy = pick(d, "", corev1.ServiceExternalTrafficPolicyCluster, corev1.ServiceExternalTrafficPolicyLocal)
	if d.one(3) {
		s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
		s.Spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: new(1 + d.Int32N(86400))}}
	}
	switch d.IntN(20) {
	case 0:
		s.Labels = map[string]string{"service.kubernetes.io/service-proxy-name": "other"}
	case 1:
		s.Labels = map[string]string{corev1.IsHeadlessService: ""}
	case 2:
		s.Spec.Type = corev1.ServiceTypeExternalName
	}
	return s
}

// address gives a Service its addresses: of one family or of both, or none at all.
func (d *dice) address(s *corev1.Service) {
	s.Spec.IPFamilies = pick(d, []corev1.IPFamily{v4}, []corev1.IPFamily{v6}, []corev1.IPFamily{v4, v6}, []corev1.IPFamily{v6, v4})
	for _, f := range s.Spec.IPFamilies {
		s.Spec.ClusterIPs = append(s.Spec.ClusterIPs, d.next(96, f == v6))
	}
	if d.one(20) {
		s.Spec.ClusterIPs = []string{corev1.ClusterIPNone}
	}
	s.Spec.ClusterIP = s.Spec.ClusterIPs[0]
	// External addresses may be of a family that the Service is not of.
	for range d.IntN(3) {
		s.Spec.ExternalIPs = append(s.Spec.ExternalIPs, d.next(97, d.one(2)))
	}
	if s.Spec.Type != corev1.ServiceTypeLoadBalancer {
		return
	}
	for range d.IntN(3) {
		i := corev1.LoadBalancerIngress{IP: d.next(98, d.one(2))}
		i.IPMode = pick(d, nil, new(corev1.LoadBalancerIPModeVIP), new(corev1.LoadBalancerIPModeProxy))
		if d.one(8) {
			i = corev1.LoadBalancerIngress{Hostname: "lb.example"}
		}
		s.Status.LoadBalancer.Ingress = append(s.Status.LoadBalancer.Ingress, i)
	}
}

func (d *dice) slice(s *corev1.Service, i int) *discoveryv1.EndpointSlice {
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: fmt.Sprint(s.Name, "-", i), Labels: map[string]string{discoveryv1.LabelServiceName: s.Name},
		},
		AddressType: pick(d, discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6, discoveryv1.AddressTypeFQDN),
	}
	if d.one(20) {
		slice.Labels[corev1.IsHeadlessService] = ""
	}
	if d.one(20) {
		slice.Labels["service.kubernetes.io/service-proxy-name"] = "other"
	}
	for _, p := range d.Perm(len(portNames) * len(protocols))[:1+d.IntN(5)] {
		port := discoveryv1.EndpointPort{Name: new(portNames[p/2]), Protocol: new(protocols[p%2]), Port: new(int32(8000 + 100*i + p))}
		if d.one(15) {
			port.Port = nil
		}
		slice.Ports = append(slice.Ports, port)
	}
	hinted := d.IntN(4)
	for range d.IntN(6) {
		slice.Endpoints = append(slice.Endpoints, d.endpoint(slice.AddressType, hinted))
	}
	return slice
}

// endpoint has any conditions, and hints as often as its slice does: all, most, few, or
// none of them.
func (d *dice) endpoint(of discoveryv1.AddressType, hinted int) discoveryv1.Endpoint {
	e := discoveryv1.Endpoint{Addresses: []string{d.next(128, of == discoveryv1.AddressTypeIPv6)}}
	if of == discoveryv1.AddressTypeFQDN {
		e.Addresses = []string{"pod.example"}
	}
	e.NodeName = pick(d, nil, &nodes[0], &nodes[1], &nodes[2])
	e.Conditions = discoveryv1.EndpointConditions{
		Ready: pick(d, nil, new(true), new(false)), Serving: pick(d, nil, new(true), new(false)), Terminating: pick(d, nil, new(true), new(false)),
	}
	if hinted == 0 || d.one(8) && hinted < 3 {
		return e
	}
	e.Hints = &discoveryv1.EndpointHints{}
	for _, z := range slices.Concat(zones, []string{"south"}) {
		if d.one(2) {
			e.Hints.ForZones = append(e.Hints.ForZones, discoveryv1.ForZone{Name: z})
		}
	}
	for _, n := range nodes {
		if d.one(2) {
			e.Hints.ForNodes = append(e.Hints.ForNodes, discoveryv1.ForNode{Name: n})
		}
	}
	return e
}

// reuse puts an address into a second slice of its Service: it was a pod's that
// is going, and is one's that is not. What kube-proxy makes of two pods that
// stay depends on chance.
func (d *dice) reuse(all []*discoveryv1.EndpointSlice) {
	for i := 1; i < len(all); i += 2 {
		from, to := all[i-1], all[i]
		same := from.AddressType == to.AddressType && from.Labels[discoveryv1.LabelServiceName] == to.Labels[discoveryv1.LabelServiceName]
		if !same || len(from.Endpoints) == 0 || !d.one(3) {
			continue
		}
		to.Ports = from.Ports
		going := d.endpoint(from.AddressType, d.IntN(4))
		going.Addresses = from.Endpoints[0].Addresses
		going.Conditions.Terminating = new(true)
		from.Endpoints[0].Conditions.Terminating = new(false)
		to.Endpoints = append(to.Endpoints, going)
	}
}
