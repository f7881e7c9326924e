package redirect

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/portico-proxy/portico/crds/balancing/v1beta1"
)

// A pair is a port of a frontend, at all its addresses, and the backends' port.
type pair struct {
	frontends []Target
	backend   v1beta1.Port
}

// pairs finds a policy's frontends, and which port of the backends each leads
// to.
func (d *Decider) pairs(p *policy) ([]pair, error) {
	addrs, ports, err := d.frontends(p)
	if err != nil {
		return nil, err
	}
	for _, list := range []v1beta1.Ports{ports.list, p.toPorts} {
		if err := checkPorts(list); err != nil {
			return nil, err
		}
	}
	var all []pair
	for _, port := range ports.list {
		backend, ok := partner(port, ports.list, p.toPorts)
		if !ok {
			if ports.all {
				continue // the policy names some of the Service's ports by its backend's
			}
			return nil, refuse(v1beta1.ReasonNoPort, "backend has no port that pairs with port %s/%s %q of the frontend: names and protocols must be equal", port.Port, protocolOf(port), port.Name)
		}
		number, _ := portNumber(port)
		made := pair{backend: backend}
		for _, a := range addrs {
			made.frontends = append(made.frontends, Target{netip.AddrPortFrom(a, number), protocolOf(port)})
		}
		all = append(all, made)
	}
	if len(all) == 0 {
		return nil, refuse(v1beta1.ReasonNoPort, "no port of the frontend pairs with one of the backend: names and protocols must be equal")
	}
	return all, nil
}

// frontendPorts are a policy's, or all of its Service.
type frontendPorts struct {
	list v1beta1.Ports
	all  bool
}

// frontends returns the addresses of a policy's frontend, and its ports.
func (d *Decider) frontends(p *policy) ([]netip.Addr, frontendPorts, error) {
	if m := p.frontend.AddressMatcher; m != nil {
		given := slices.Concat(p.frontend.ToPorts, m.ToPorts)
		a, err := d.address(m.IP)
		if err == nil && len(given) == 0 {
			err = refuse(v1beta1.ReasonInvalid, "frontend.addressMatcher needs toPorts")
		}
		return []netip.Addr{a}, frontendPorts{list: given}, err
	}
	m := p.frontend.ServiceMatcher
	service := d.named[types.NamespacedName{Namespace: m.Namespace, Name: m.ServiceName}]
	if service == nil {
		return nil, frontendPorts{}, refuse(v1beta1.ReasonNoService, "there is no Service %s/%s", m.Namespace, m.ServiceName)
	}
	addrs := addressesOf(service)[clusterIP]
	addrs = slices.DeleteFunc(addrs, func(a netip.Addr) bool { return d.owners[a].service != nameOf(service) })
	if len(addrs) == 0 {
		return nil, frontendPorts{}, refuse(v1beta1.ReasonNoService, "Service %s/%s has no cluster address", m.Namespace, m.ServiceName)
	}
	ports, err := portsOf(service, slices.Concat(p.frontend.ToPorts, m.ToPorts))
	return addrs, ports, err
}

// address checks the address of a policy. Those of Services are not for it: a
// policy about an address stays where it is when the address becomes somebody
// else's.
func (d *Decider) address(text string) (netip.Addr, error) {
	a, err := netip.ParseAddr(text)
	a = a.Unmap()
	if err != nil || !usable(a) || a.Zone() != "" {
		return a, refuse(v1beta1.ReasonInvalid, "frontend.addressMatcher.ip: %q is not the address of another machine or service", text)
	}
	if o, taken := d.owners[a]; taken {
		return a, refuse(v1beta1.ReasonAddressOwned, "%s is an address of Service %s: use serviceMatcher", a, o.service)
	}
	return a, nil
}

// portsOf returns the ports that a policy names, which the Service must have, or
// all of the Service's.
func portsOf(s *corev1.Service, named v1beta1.Ports) (frontendPorts, error) {
	for _, n := range named {
		has := slices.ContainsFunc(s.Spec.Ports, func(p corev1.ServicePort) bool {
			return strconv.Itoa(int(p.Port)) == n.Port && cmp.Or(p.Protocol, corev1.ProtocolTCP) == protocolOf(n)
		})
		if !has {
			return frontendPorts{}, refuse(v1beta1.ReasonNoPort, "Service %s has no port %s/%s", nameOf(s), n.Port, protocolOf(n))
		}
	}
	if len(named) > 0 {
		return frontendPorts{list: named}, nil
	}
	all := frontendPorts{all: true}
	for _, p := range s.Spec.Ports {
		protocol := cmp.Or(p.Protocol, corev1.ProtocolTCP)
		if protocol == corev1.ProtocolTCP || protocol == corev1.ProtocolUDP {
			all.list = append(all.list, v1beta1.Port{Port: strconv.Itoa(int(p.Port)), Protocol: string(protocol), Name: p.Name})
		}
	}
	return all, nil
}

// partner finds the backends' port for one of the frontend's: the only one, if
// each side has one, or the one of equal name and protocol.
func partner(port v1beta1.Port, fronts, backs v1beta1.Ports) (v1beta1.Port, bool) {
	single := len(fronts) == 1 && len(backs) == 1
	for _, b := range backs {
		if protocolOf(b) == protocolOf(port) && (single || b.Name == port.Name) {
			return b, true
		}
	}
	return v1beta1.Port{}, false
}

func checkPorts(ports v1beta1.Ports) error {
	type key struct {
		name     string
		protocol corev1.Protocol
	}
	seen := map[key]bool{}
	for _, p := range ports {
		if _, ok := portNumber(p); !ok {
			return refuse(v1beta1.ReasonInvalid, "port %q is not a number from 1 to 65535", p.Port)
		}
		protocol := protocolOf(p)
		if protocol != corev1.ProtocolTCP && protocol != corev1.ProtocolUDP {
			return refuse(v1beta1.ReasonInvalid, "protocol %q is neither TCP nor UDP", p.Protocol)
		}
		k := key{p.Name, protocol}
		if len(ports) > 1 && (p.Name == "" || seen[k]) {
			return refuse(v1beta1.ReasonInvalid, "port %s needs a name that no other port of its protocol has", p.Port)
		}
		seen[k] = true
	}
	return nil
}

func portNumber(p v1beta1.Port) (uint16, bool) {
	n, err := strconv.ParseUint(p.Port, 10, 16)
	return uint16(n), err == nil && n > 0
}
