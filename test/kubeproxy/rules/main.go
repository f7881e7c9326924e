// Command rules says which endpoints kube-proxy's own code would choose. It
// reads worlds from its standard input, and writes what becomes of each one's
// destinations.
package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/kubernetes/pkg/proxy"
	"k8s.io/kubernetes/pkg/proxy/apis"
)

// A world is what kube-proxy on one node sees.
type world struct {
	Node      *corev1.Node
	Addresses []string // at which NodePorts are offered
	Services  []*corev1.Service
	Slices    []*discoveryv1.EndpointSlice
}

// A choice is what becomes of a destination.
type choice struct {
	Backends []string
	Affinity int // seconds; 0 is none
}

func main() {
	if err := answer(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func answer() error {
	var worlds []world
	if err := json.NewDecoder(os.Stdin).Decode(&worlds); err != nil {
		return fmt.Errorf("read worlds: %w", err)
	}
	all := make([]map[string]choice, len(worlds))
	for i, w := range worlds {
		all[i] = map[string]choice{}
		for _, family := range []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol} {
			w.choose(family, all[i])
		}
	}
	return json.NewEncoder(os.Stdout).Encode(all)
}

// choose adds the destinations of one family, as one of kube-proxy's two proxiers
// would. It watches neither Services of other proxies nor headless EndpointSlices.
func (w world) choose(family corev1.IPFamily, into map[string]choice) {
	services, endpoints := proxy.ServicePortMap{}, proxy.EndpointsMap{}
	changed := proxy.NewServiceChangeTracker(family, nil, nil)
	for _, s := range w.Services {
		if _, others := s.Labels[apis.LabelServiceProxyName]; !others {
			changed.Update(nil, s)
		}
	}
	services.Update(changed)
	moved := proxy.NewEndpointsChangeTracker(family, w.Node.Name, nil, nil)
	for _, s := range w.Slices {
		if _, headless := s.Labels[corev1.IsHeadlessService]; !headless {
			moved.EndpointSliceUpdate(s, false)
		}
	}
	endpoints.Update(moved)
	for name, port := range services {
		w.resolve(port, family, endpoints[name], into)
	}
}

// resolve adds the destinations of one port of a Service. Connections that begin on the
// node, or in one of its pods, take the way for traffic from inside the cluster
// also where they go to an external address.
func (w world) resolve(port proxy.ServicePort, family corev1.IPFamily, endpoints []proxy.Endpoint, into map[string]choice) {
	anywhere, here, _, _ := proxy.CategorizeEndpoints(endpoints, port, w.Node.Name, w.Node.Labels)
	affinity := 0
	if port.SessionAffinityType() == corev1.ServiceAffinityClientIP {
		affinity = port.StickyMaxAgeSeconds()
	}
	add := func(ip string, number int, chosen []proxy.Endpoint) {
		key := net.JoinHostPort(ip, strconv.Itoa(number)) + "/" + string(port.Protocol())
		into[key] = choice{texts(chosen), affinity}
	}
	inside := anywhere
	if port.InternalPolicyLocal() {
		inside = here
	}
	add(port.ClusterIP().String(), port.Port(), inside)
	for _, ip := range slices.Concat(port.ExternalIPs(), port.LoadBalancerVIPs()) {
		add(ip.String(), port.Port(), anywhere)
	}
	if port.NodePort() == 0 {
		return
	}
	for _, a := range w.Addresses {
		if isSix := net.ParseIP(a).To4() == nil; isSix == (family == corev1.IPv6Protocol) {
			add(a, port.NodePort(), anywhere)
		}
	}
}

func texts(endpoints []proxy.Endpoint) []string {
	all := []string{}
	for _, e := range endpoints {
		all = append(all, e.String())
	}
	slices.Sort(all)
	return all
}
