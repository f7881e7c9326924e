package redirect

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/portico-proxy/portico/crds/balancing/v1beta1"
)

// PolicyResult is what became of one policy on this node.
type PolicyResult struct {
	Policy metav1.Object
	Kind   string
	// Accepted is false if the policy cannot be kept anywhere; Reason is then
	// why, and Message tells people.
	Accepted bool
	// Holds is false if the policy is not for this node.
	Holds   bool
	Reason  string
	Message string
	// Frontends and Backends are how many of either are in the table.
	Frontends, Backends int
}

// A policy is either kind, as far as they are alike.
type policy struct {
	metav1.Object
	kind     string
	config   v1beta1.Config
	frontend v1beta1.Frontend
	// toPorts are the backend's.
	toPorts v1beta1.Ports
	// local policies send to pods of this node.
	local    *v1beta1.LocalBackend
	backends v1beta1.BalancingBackend
}

func (p *policy) String() string { return p.kind + " " + p.GetName() }

// refusal is why a policy is not kept.
type refusal struct{ reason, message string }

func (r refusal) Error() string { return r.message }

func refuse(reason, format string, args ...any) error {
	return refusal{reason, fmt.Sprintf(format, args...)}
}

func (d *Decider) applyPolicies() {
	d.policies, d.claimed, d.probes, d.results = map[Target]*Layer{}, map[Target]string{}, nil, nil
	for _, p := range d.byAge() {
		result := PolicyResult{Policy: p.Object, Kind: p.kind, Accepted: true}
		if err := d.apply(p, &result); err != nil {
			var r refusal
			if r, _ = err.(refusal); r.reason == "" { //nolint:errorlint // never wrapped
				r = refusal{v1beta1.ReasonInvalid, err.Error()}
			}
			result.Reason, result.Message = r.reason, r.message
			result.Accepted = r.reason == v1beta1.ReasonConflict || r.reason == v1beta1.ReasonNoBackend
		}
		d.results = append(d.results, result)
	}
	slices.SortFunc(d.probes, Target.compare)
	d.probes = slices.Compact(d.probes)
}

// byAge returns all policies, older ones first: a frontend is the oldest one's.
func (d *Decider) byAge() []*policy {
	var all []*policy
	for _, lr := range d.world.LocalRedirects {
		all = append(all, &policy{
			Object: lr, kind: "LocalRedirectPolicy", config: deref(lr.Spec.Config, v1beta1.Config{}),
			frontend: lr.Spec.Frontend, toPorts: lr.Spec.Backend.ToPorts, local: &lr.Spec.Backend,
		})
	}
	for _, bl := range d.world.Balancings {
		p := &policy{
			Object: bl, kind: "BalancingPolicy", config: deref(bl.Spec.Config, v1beta1.Config{}),
			frontend: bl.Spec.Frontend, backends: bl.Spec.Backend,
		}
		if s := p.backends.ServiceEndpoint; s != nil {
			p.toPorts = s.ToPorts
		} else if a := p.backends.AddressEndpoint; a != nil {
			p.toPorts = a.ToPorts
		}
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b *policy) int {
		at, bt := a.GetCreationTimestamp(), b.GetCreationTimestamp()
		return cmp.Or(at.Compare(bt.Time), cmp.Compare(a.GetName(), b.GetName()), cmp.Compare(a.kind, b.kind))
	})
	return all
}

// apply adds a policy's layers to the table, or returns why not.
func (d *Decider) apply(p *policy, result *PolicyResult) error {
	if err := p.check(); err != nil {
		return err
	}
	pairs, err := d.pairs(p)
	if err != nil {
		return err
	}
	reason, err := d.holds(p)
	if err != nil || reason != "" {
		result.Reason = reason
		return err
	}
	result.Holds = true
	chosen, err := d.choose(p)
	if err != nil {
		return err
	}
	if err := d.claim(p, pairs); err != nil {
		return err
	}
	return d.redirect(p, pairs, chosen, result)
}

// check finds what the rules of the custom resource refuse too; policies also
// come from files, and from API servers that have an older idea of them.
func (p *policy) check() error {
	f := p.frontend
	if (f.ServiceMatcher == nil) == (f.AddressMatcher == nil) {
		return refuse(v1beta1.ReasonInvalid, "frontend needs exactly one of serviceMatcher and addressMatcher")
	}
	inside := f.ServiceMatcher != nil && len(f.ServiceMatcher.ToPorts) > 0 || f.AddressMatcher != nil && len(f.AddressMatcher.ToPorts) > 0
	if inside && len(f.ToPorts) > 0 {
		return refuse(v1beta1.ReasonInvalid, "frontend has toPorts beside its matcher and inside it; give them once")
	}
	if p.local == nil && (p.backends.ServiceEndpoint == nil) == (p.backends.AddressEndpoint == nil) {
		return refuse(v1beta1.ReasonInvalid, "backend needs exactly one of serviceEndpoint and addressEndpoint")
	}
	if len(p.toPorts) == 0 {
		return refuse(v1beta1.ReasonInvalid, "backend needs toPorts")
	}
	return nil
}

// holds returns why a policy is not for this node, or nothing.
func (d *Decider) holds(p *policy) (reason string, err error) {
	selector, err := metav1.LabelSelectorAsSelector(p.config.NodeLabelSelector)
	if err != nil {
		return "", refuse(v1beta1.ReasonInvalid, "config.nodeLabelSelector: %v", err)
	}
	node := d.world.Node.Object
	switch {
	case node == nil && (p.local != nil || !deref(p.config.EnableOutCluster, true)):
		// Nor are there pods on such a machine.
		return v1beta1.ReasonOutsideOfCluster, nil
	case node == nil || p.config.NodeLabelSelector == nil || selector.Matches(labels.Set(node.Labels)):
		return "", nil
	}
	return v1beta1.ReasonNodeNotSelected, nil
}

// claim refuses a policy if an older one has any of its frontends: half of a
// policy would be a policy that nobody wrote.
func (d *Decider) claim(p *policy, pairs []pair) error {
	for _, pair := range pairs {
		for _, t := range pair.frontends {
			if older, taken := d.claimed[t]; taken {
				return refuse(v1beta1.ReasonConflict, "%s is the frontend of %s, which is older", t, older)
			}
		}
	}
	for _, pair := range pairs {
		for _, t := range pair.frontends {
			d.claimed[t] = p.String()
		}
	}
	return nil
}

// redirect adds a layer for each frontend. One without backends is left out, so
// that connections go where they would have gone, unless the policy wants them
// refused.
func (d *Decider) redirect(p *policy, pairs []pair, chosen choice, result *PolicyResult) error {
	for _, pair := range pairs {
		for _, t := range pair.frontends {
			l := chosen.layer
			l.Owner = p.String() + ":" + pair.backend.Port
			l.Backends = d.answering(chosen, pair.backend, t)
			l.HostOnly = slices.ContainsFunc(l.Backends, isLoopback)
			l.Strict = p.config.Fallback == v1beta1.FallbackRefuse
			// There is nothing to keep up to date about having nobody.
			l.Leased = len(l.Backends) > 0
			if len(l.Backends) == 0 && !l.Strict {
				continue
			}
			d.policies[t] = &l
			result.Frontends++
			result.Backends += len(l.Backends)
		}
	}
	if result.Backends == 0 {
		return refuse(v1beta1.ReasonNoBackend, "no backend of this node answers, or none is ready")
	}
	result.Reason = v1beta1.ReasonRedirecting
	return nil
}

// answering are the backends of a port that have the family of a frontend and,
// where they are to be probed, have answered.
func (d *Decider) answering(c choice, port v1beta1.Port, front Target) []netip.AddrPort {
	number, _ := portNumber(port)
	var all []netip.AddrPort
	for _, a := range c.addresses {
		if a.Is6() != front.Addr().Is6() {
			continue
		}
		t := Target{netip.AddrPortFrom(a, number), front.Protocol}
		if t == front {
			continue // it would be drawn to where it goes anyway
		}
		if c.probed {
			d.probes = append(d.probes, t)
			if d.world.Answers != nil && !d.world.Answers(t) {
				continue
			}
		}
		all = append(all, t.AddrPort)
	}
	return all
}

func protocolOf(p v1beta1.Port) corev1.Protocol {
	return corev1.Protocol(cmp.Or(p.Protocol, string(corev1.ProtocolTCP)))
}
