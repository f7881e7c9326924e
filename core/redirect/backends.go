package redirect

import (
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/portico-proxy/portico/crds/balancing/v1beta1"
)

// A choice is what all frontends of a policy have in common.
type choice struct {
	addresses []netip.Addr
	// probed addresses are used only if they answer.
	probed bool
	layer  Layer
}

// choose finds a policy's backends and clients.
func (d *Decider) choose(p *policy) (choice, error) {
	c := choice{layer: p.affinity()}
	var err error
	if c.layer.Clients, err = d.clients(p.config.Clients); err != nil {
		return c, err
	}
	switch {
	case p.local != nil:
		c.probed = true
		err = d.chooseLocal(&c, p)
	case p.backends.AddressEndpoint != nil:
		c.probed = p.backends.AddressEndpoint.Probe
		c.addresses, err = staticAddresses(p.backends.AddressEndpoint.Addresses)
	default:
		err = d.chooseAnywhere(&c, p)
	}
	slices.SortFunc(c.addresses, netip.Addr.Compare)
	c.addresses = slices.Compact(c.addresses)
	slices.Sort(c.layer.Except)
	c.layer.Except = slices.Compact(c.layer.Except)
	return c, err
}

func (p *policy) affinity() Layer {
	a := p.config.SessionAffinity
	if a == nil {
		return Layer{}
	}
	l := Layer{Affinity: time.Duration(a.TimeoutSeconds) * time.Second, PerCgroup: a.Client == v1beta1.ClientCgroup}
	if a.TimeoutSeconds < 1 || a.TimeoutSeconds > 86400 {
		l.Affinity = defaultAffinity
	}
	return l
}

// chooseLocal takes ready pods of this node. One whose own connections cannot be
// told from others' is left out: it would be sent to itself.
func (d *Decider) chooseLocal(c *choice, p *policy) error {
	pods, err := d.pods(p.local.EndpointSelector, p.local.Namespace)
	if err != nil {
		return err
	}
	for _, pod := range pods {
		if !d.isHere(pod) || !isUsable(pod) {
			continue
		}
		if !p.config.RedirectBackends {
			cgroup, known := d.world.Cgroups[pod.UID]
			if !known {
				continue
			}
			c.layer.Except = append(c.layer.Except, cgroup)
		}
		c.addresses = append(c.addresses, podAddresses(pod)...)
	}
	return nil
}

// chooseAnywhere takes ready pods of the cluster.
func (d *Decider) chooseAnywhere(c *choice, p *policy) error {
	e := p.backends.ServiceEndpoint
	pods, err := d.pods(e.EndpointSelector, e.Namespace)
	if err != nil {
		return err
	}
	for _, pod := range pods {
		if cgroup, known := d.world.Cgroups[pod.UID]; known && !p.config.RedirectBackends {
			c.layer.Except = append(c.layer.Except, cgroup)
		}
		if !isUsable(pod) {
			continue
		}
		switch e.RedirectMode {
		case v1beta1.PodEndpoint, "":
			c.addresses = append(c.addresses, podAddresses(pod)...)
		case v1beta1.HostPort, v1beta1.NodeProxy:
			c.addresses = append(c.addresses, d.nodeAddresses(pod.Spec.NodeName, e.RedirectMode)...)
		default:
			return refuse(v1beta1.ReasonInvalid, "unknown redirectMode %q", e.RedirectMode)
		}
	}
	return nil
}

// pods returns those that a selector of backends selects. An empty one selects
// none: who forgets to fill it in does not mean everything in the cluster.
func (d *Decider) pods(by metav1.LabelSelector, namespace string) ([]*corev1.Pod, error) {
	selector, err := metav1.LabelSelectorAsSelector(&by)
	if err != nil {
		return nil, refuse(v1beta1.ReasonInvalid, "endpointSelector: %v", err)
	}
	if selector.Empty() {
		return nil, nil
	}
	return d.selected(selector, namespace), nil
}

func (d *Decider) selected(selector labels.Selector, namespace string) []*corev1.Pod {
	var found []*corev1.Pod
	for _, pod := range d.world.Pods {
		if (namespace == "" || pod.Namespace == namespace) && selector.Matches(labels.Set(pod.Labels)) {
			found = append(found, pod)
		}
	}
	return found
}

// clients returns the cgroups of the pods that a policy is for: nil for
// everybody.
func (d *Decider) clients(c *v1beta1.Clients) ([]uint64, error) {
	if c == nil {
		return nil, nil
	}
	selector, err := metav1.LabelSelectorAsSelector(&c.PodSelector)
	if err != nil {
		return nil, refuse(v1beta1.ReasonInvalid, "config.clients.podSelector: %v", err)
	}
	cgroups := []uint64{}
	for _, pod := range d.selected(selector, c.Namespace) {
		if cgroup, known := d.world.Cgroups[pod.UID]; known && d.isHere(pod) {
			cgroups = append(cgroups, cgroup)
		}
	}
	slices.Sort(cgroups)
	return slices.Compact(cgroups), nil
}

func (d *Decider) isHere(pod *corev1.Pod) bool {
	return d.world.Node.Object != nil && pod.Spec.NodeName == d.world.Node.Name
}

// isUsable says whether a pod takes new connections.
func isUsable(pod *corev1.Pod) bool {
	if pod.DeletionTimestamp != nil || pod.Status.Phase != corev1.PodRunning {
		return false
	}
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

func podAddresses(pod *corev1.Pod) []netip.Addr {
	var texts []string
	for _, ip := range pod.Status.PodIPs {
		texts = append(texts, ip.IP)
	}
	return parse(append(texts, pod.Status.PodIP))
}

// nodeAddresses returns the first internal address of each family that a node
// has, or those that it is annotated with.
func (d *Decider) nodeAddresses(name string, mode v1beta1.RedirectMode) []netip.Addr {
	i := slices.IndexFunc(d.world.Nodes, func(n *corev1.Node) bool { return n.Name == name })
	if i < 0 {
		return nil
	}
	node := d.world.Nodes[i]
	if mode == v1beta1.NodeProxy {
		return parse([]string{node.Annotations[v1beta1.NodeProxyIPv4], node.Annotations[v1beta1.NodeProxyIPv6]})
	}
	var texts []string
	for _, a := range node.Status.Addresses {
		if a.Type == corev1.NodeInternalIP {
			texts = append(texts, a.Address)
		}
	}
	var first []netip.Addr
	for _, a := range parse(texts) {
		if !slices.ContainsFunc(first, func(b netip.Addr) bool { return a.Is6() == b.Is6() }) {
			first = append(first, a)
		}
	}
	return first
}

// staticAddresses are a policy's own. They may be loopback ones, for the host's
// own processes: pods have others.
func staticAddresses(texts []string) ([]netip.Addr, error) {
	var all []netip.Addr
	for _, text := range texts {
		a, err := netip.ParseAddr(text)
		if a = a.Unmap(); err != nil || a.IsUnspecified() || a.IsMulticast() || a.Zone() != "" {
			return nil, refuse(v1beta1.ReasonInvalid, "backend.addressEndpoint.addresses: %q is not an IP address to connect to", text)
		}
		all = append(all, a)
	}
	return all, nil
}
