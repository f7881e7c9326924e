package redirect

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/portico-proxy/portico/crds/balancing/v1beta1"
)

// FuzzDecide tries worlds that no API server would let come about. Nothing may
// panic, and no destination may be drawn away from the Service that owns its
// address.
func FuzzDecide(f *testing.F) {
	f.Add([]byte("the same bytes give the same world"))
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 0))
		data := make([]byte, 1000)
		for i := range data {
			data[i] = byte(random.Uint32())
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		w := (&bytesSource{data}).world()
		d := Decide(w)
		for target, e := range d.Table {
			checkEntry(t, w, target, e)
		}
		before := render(d)
		shuffle(&w)
		if again := render(Decide(w)); again != before {
			t.Errorf("the decision depends on the order:\n%s\nor\n%s", before, again)
		}
	})
}

func checkEntry(t *testing.T, w World, target Target, e Entry) {
	t.Helper()
	if !target.IsValid() || target.Port() == 0 || target.Addr().IsUnspecified() || target.Addr().Is4In6() {
		t.Errorf("%s cannot be connected to", target)
	}
	if e.Service != nil && target.Addr().IsLoopback() && !e.Service.HostOnly || e.Policy != nil && target.Addr().IsLoopback() {
		t.Errorf("%s is somebody else in each pod", target)
	}
	for _, l := range []*Layer{e.Policy, e.Service} {
		if l == nil {
			continue
		}
		for _, b := range l.Backends {
			if b.Addr().Is6() != target.Addr().Is6() || b.Port() == 0 || b.Addr().IsUnspecified() {
				t.Errorf("%s leads to %s", target, b)
			}
		}
	}
	for _, s := range w.Services {
		if !slices.Contains(addressesOf(s)[clusterIP], target.Addr()) || shared(w, target.Addr()) {
			continue
		}
		if e.Service != nil && !fromService(e.Service, s) {
			t.Errorf("%s is the cluster address of %s, and goes to %s", target, nameOf(s), e.Service.Owner)
		}
		if e.Policy != nil && !named(w, s) {
			t.Errorf("%s is the cluster address of %s, and goes to %s, which does not name it", target, nameOf(s), e.Policy.Owner)
		}
	}
}

func fromService(l *Layer, s *corev1.Service) bool {
	owner := "Service " + nameOf(s).String() + ":"
	return len(l.Owner) >= len(owner) && l.Owner[:len(owner)] == owner
}

// shared cluster addresses do not come about; whose they are is then undefined.
func shared(w World, a netip.Addr) bool {
	owners := map[types.NamespacedName]bool{}
	for _, s := range w.Services {
		if slices.Contains(addressesOf(s)[clusterIP], a) {
			owners[nameOf(s)] = true
		}
	}
	return len(owners) > 1
}

func named(w World, s *corev1.Service) bool {
	var matchers []*v1beta1.ServiceMatcher
	for _, p := range w.LocalRedirects {
		matchers = append(matchers, p.Spec.Frontend.ServiceMatcher)
	}
	for _, p := range w.Balancings {
		matchers = append(matchers, p.Spec.Frontend.ServiceMatcher)
	}
	return slices.ContainsFunc(matchers, func(m *v1beta1.ServiceMatcher) bool {
		return m != nil && m.Namespace == s.Namespace && m.ServiceName == s.Name
	})
}

// bytesSource makes a world out of bytes, and of nothing when there are no more.
type bytesSource struct{ data []byte }

func (s *bytesSource) below(n int) int {
	if len(s.data) == 0 {
		return 0
	}
	b := s.data[0]
	s.data = s.data[1:]
	return int(b) % n
}

func (s *bytesSource) yes() bool { return s.below(2) == 1 }

func pick[T any](s *bytesSource, from ...T) T { return from[s.below(len(from))] }

func some[T any](s *bytesSource, most int, one func() T) []T {
	var all []T
	if s.below(8) == 7 {
		return nil
	}
	for range s.below(most) + 1 {
		all = append(all, one())
	}
	return all
}

func maybe[T any](s *bytesSource, one func() T) *T {
	if !s.yes() {
		return nil
	}
	return new(one())
}

func (s *bytesSource) ip() string {
	if s.below(6) < 5 {
		return pick(s, "10.96.0.1", "10.96.0.2", "10.96.0.3", "10.96.0.4", "10.96.0.5", "fd00::1", "fd00::2", "192.0.2.11")
	}
	return pick(s, "::ffff:10.96.0.1", "2001:db8::1", "127.0.0.1", "::1", "0.0.0.0", "::", "224.0.0.1", "fe80::1%eth0",
		"None", "", "no address", "10.96.0.01")
}

func (s *bytesSource) name() string { return pick(s, "a", "a", "a", "b", "") }

// What makes no sense is rarer than what does, or else little would come of it.
func (s *bytesSource) number() int32 {
	return pick[int32](s, 80, 80, 80, 80, 80, 80, 443, 443, 30080, 0, -1, 65535, 65536, 1)
}

func (s *bytesSource) protocol() corev1.Protocol {
	return pick(s, corev1.ProtocolTCP, corev1.ProtocolTCP, corev1.ProtocolTCP, corev1.ProtocolTCP, "", corev1.ProtocolUDP,
		corev1.ProtocolUDP, corev1.ProtocolSCTP, "nonsense")
}

// Objects of one kind have different names, as an API server sees to.
func (s *bytesSource) meta(n *int) metav1.ObjectMeta {
	*n++
	return metav1.ObjectMeta{
		Name: fmt.Sprintf("%s%d", s.name(), *n), Namespace: pick(s, "x", "y"), UID: types.UID(fmt.Sprint("u", *n)),
		CreationTimestamp: metav1.Unix(int64(s.below(2)), 0),
		Labels: pick(s, nil, map[string]string{"app": "a"}, map[string]string{"app": "b"},
			map[string]string{proxyName: "other"}, map[string]string{corev1.LabelTopologyZone: "z1"}),
	}
}

func (s *bytesSource) world() World {
	n := 0
	w := World{
		Node:            Node{Name: "n1", Addresses: parse(some(s, 2, s.ip))},
		ResolveServices: s.yes(),
		Cgroups:         map[types.UID]uint64{"u1": 1, "u5": 5, "u6": 6, "u7": 7, "u8": 8, "u9": 9},
		Services:        some(s, 4, func() *corev1.Service { return s.service(s.meta(&n)) }),
		Pods:            some(s, 3, func() *corev1.Pod { return s.pod(s.meta(&n)) }),
	}
	w.EndpointSlices = some(s, 4, func() *discoveryv1.EndpointSlice { return s.slice(s.meta(&n), w.Services) })
	if s.below(4) > 0 {
		w.Node.Object = &corev1.Node{ObjectMeta: s.meta(&n)}
		w.Nodes = append(w.Nodes, w.Node.Object)
	}
	w.LocalRedirects = some(s, 3, func() *v1beta1.LocalRedirectPolicy {
		return &v1beta1.LocalRedirectPolicy{ObjectMeta: s.meta(&n), Spec: v1beta1.LocalRedirectSpec{
			Config: pick(s, nil, maybe(s, s.config)), Frontend: s.frontend(w.Services),
			Backend: v1beta1.LocalBackend{EndpointSelector: s.selector(), Namespace: pick(s, "", "", "x"), ToPorts: s.ports()},
		}}
	})
	w.Balancings = some(s, 3, func() *v1beta1.BalancingPolicy {
		return &v1beta1.BalancingPolicy{ObjectMeta: s.meta(&n), Spec: v1beta1.BalancingSpec{
			Config: pick(s, nil, maybe(s, s.config)), Frontend: s.frontend(w.Services), Backend: s.backend(),
		}}
	})
	return w
}

func (s *bytesSource) service(m metav1.ObjectMeta) *corev1.Service {
	v := &corev1.Service{ObjectMeta: m, Spec: corev1.ServiceSpec{
		Type: pick(s, corev1.ServiceTypeClusterIP, corev1.ServiceTypeExternalName, corev1.ServiceTypeNodePort), ClusterIP: s.ip(),
		ClusterIPs: some(s, 2, s.ip), ExternalIPs: some(s, 2, s.ip),
		SessionAffinity:       pick(s, corev1.ServiceAffinityNone, corev1.ServiceAffinityClientIP),
		InternalTrafficPolicy: maybe(s, func() corev1.ServiceInternalTrafficPolicy { return corev1.ServiceInternalTrafficPolicyLocal }),
		Ports: some(s, 3, func() corev1.ServicePort {
			return corev1.ServicePort{Name: s.name(), Port: s.number(), NodePort: s.number(), Protocol: s.protocol()}
		}),
	}}
	v.Status.LoadBalancer.Ingress = some(s, 2, func() corev1.LoadBalancerIngress { return corev1.LoadBalancerIngress{IP: s.ip()} })
	return v
}

func (s *bytesSource) slice(m metav1.ObjectMeta, services []*corev1.Service) *discoveryv1.EndpointSlice {
	if len(services) > 0 {
		of := pick(s, services...)
		m.Namespace, m.Labels = of.Namespace, map[string]string{discoveryv1.LabelServiceName: of.Name}
	}
	yes := func() bool { return s.yes() }
	return &discoveryv1.EndpointSlice{
		ObjectMeta: m, AddressType: pick(s, discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6, discoveryv1.AddressTypeFQDN),
		Ports: some(s, 2, func() discoveryv1.EndpointPort {
			return discoveryv1.EndpointPort{Name: new(s.name()), Port: pick(s, new(s.number()), new(s.number()), nil), Protocol: maybe(s, s.protocol)}
		}),
		Endpoints: some(s, 3, func() discoveryv1.Endpoint {
			return discoveryv1.Endpoint{
				Addresses: some(s, 2, s.ip), NodeName: maybe(s, func() string { return "n1" }),
				Conditions: discoveryv1.EndpointConditions{Ready: maybe(s, yes), Serving: maybe(s, yes), Terminating: maybe(s, yes)},
				Hints: maybe(s, func() discoveryv1.EndpointHints {
					return discoveryv1.EndpointHints{ForZones: []discoveryv1.ForZone{{Name: pick(s, "z1", "z2")}}}
				}),
			}
		}),
	}
}

func (s *bytesSource) pod(m metav1.ObjectMeta) *corev1.Pod {
	if s.below(6) == 0 {
		m.DeletionTimestamp = new(metav1.Unix(1, 0))
	}
	return &corev1.Pod{ObjectMeta: m, Spec: corev1.PodSpec{NodeName: pick(s, "n1", "n2")}, Status: corev1.PodStatus{
		Phase: pick(s, corev1.PodRunning, corev1.PodRunning, corev1.PodPending), PodIP: s.ip(),
		PodIPs:     some(s, 2, func() corev1.PodIP { return corev1.PodIP{IP: s.ip()} }),
		Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: pick(s, corev1.ConditionTrue, corev1.ConditionTrue, corev1.ConditionFalse)}},
	}}
}

func (s *bytesSource) selector() metav1.LabelSelector {
	all := metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "none", Operator: metav1.LabelSelectorOpDoesNotExist}}}
	return pick(s, all, all, all, metav1.LabelSelector{}, metav1.LabelSelector{MatchLabels: map[string]string{"app": "a"}},
		metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "app", Operator: metav1.LabelSelectorOpExists}}},
		metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "no key!", Operator: "Nonsense"}}})
}

func (s *bytesSource) config() v1beta1.Config {
	return v1beta1.Config{
		NodeLabelSelector: maybe(s, s.selector), EnableOutCluster: maybe(s, s.yes),
		Fallback:        pick(s, v1beta1.FallbackService, v1beta1.FallbackRefuse, "", "nonsense"),
		Clients:         maybe(s, func() v1beta1.Clients { return v1beta1.Clients{Namespace: s.name(), PodSelector: s.selector()} }),
		SessionAffinity: maybe(s, func() v1beta1.SessionAffinity { return v1beta1.SessionAffinity{TimeoutSeconds: s.number()} }),
	}
}

func (s *bytesSource) ports() v1beta1.Ports {
	return some(s, 2, func() v1beta1.Port {
		number := fmt.Sprint(s.number())
		return v1beta1.Port{Port: pick(s, number, number, number, number, number, number, number, "http", ""), Protocol: pick(s, "TCP", "TCP", "", string(s.protocol())), Name: s.name()}
	})
}

func (s *bytesSource) frontend(services []*corev1.Service) v1beta1.Frontend {
	var f v1beta1.Frontend
	if s.yes() {
		f.ToPorts = s.ports()
	}
	if len(services) > 0 && s.below(3) > 0 {
		of := pick(s, services...)
		f.ServiceMatcher = &v1beta1.ServiceMatcher{Namespace: of.Namespace, ServiceName: of.Name}
		if f.ToPorts == nil {
			f.ServiceMatcher.ToPorts = s.ports()
		}
	}
	if f.ServiceMatcher == nil || s.below(8) == 0 {
		f.AddressMatcher = &v1beta1.AddressMatcher{IP: s.ip(), ToPorts: pick(s, nil, s.ports())}
	}
	return f
}

func (s *bytesSource) backend() v1beta1.BalancingBackend {
	var b v1beta1.BalancingBackend
	if s.yes() {
		b.ServiceEndpoint = &v1beta1.ServiceEndpoint{
			EndpointSelector: s.selector(), Namespace: pick(s, "", "", "x"), ToPorts: s.ports(),
			RedirectMode: pick(s, v1beta1.PodEndpoint, v1beta1.HostPort, v1beta1.NodeProxy, "", "nonsense"),
		}
	}
	if b.ServiceEndpoint == nil || s.below(8) == 0 {
		b.AddressEndpoint = &v1beta1.AddressEndpoint{Addresses: some(s, 3, s.ip), Probe: s.yes(), ToPorts: s.ports()}
	}
	return b
}

// FuzzEndpoints changes the endpoints of Services one after the other. What has
// changed, put together, must be what a decision on the whole world says.
func FuzzEndpoints(f *testing.F) {
	f.Add([]byte("the same bytes give the same changes"))
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 1))
		data := make([]byte, 2000)
		for i := range data {
			data[i] = byte(random.Uint32())
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		source := &bytesSource{data}
		w, n := source.world(), 1000
		var d Decider
		decision := d.Decide(w)
		for len(source.data) > 0 && len(w.Services) > 0 {
			of := pick(source, append(w.Services, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "unknown"}})...)
			now := some(source, 2, func() *discoveryv1.EndpointSlice { return source.slice(source.meta(&n), []*corev1.Service{of}) })
			w.EndpointSlices = append(slices.DeleteFunc(w.EndpointSlices, func(s *discoveryv1.EndpointSlice) bool {
				return ServiceOf(s) == nameOf(of)
			}), now...)
			maps.Copy(decision.Table, d.Endpoints(nameOf(of), now))
			if diff := gocmp.Diff(render(Decide(w)), render(decision)); diff != "" {
				t.Fatalf("after a change of %s the table is another than that of the world (-world +changes):\n%s", nameOf(of), diff)
			}
			if again := d.Endpoints(nameOf(of), now); len(again) > 0 {
				t.Fatalf("what was decided before is said to have changed: %v", again)
			}
		}
	})
}
