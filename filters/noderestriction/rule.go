package noderestriction

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/portico-proxy/portico/core/config"
	"github.com/portico-proxy/portico/core/view"
	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
)

// A rule is a NodePolicy, compiled.
type rule struct {
	name     string
	spec     *v1alpha1.NodePolicySpec
	selector labels.Selector // nil if nodes are named only
	reads    []grant
	digest   string // equal for equal rules
	broken   bool   // cannot be kept as it says, so that it leaves nothing
}

// A grant is objects that exist for a node.
type grant struct {
	*v1alpha1.NodeRead
	selector labels.Selector
}

// compile returns the rule of a policy.
func compile(p *v1alpha1.NodePolicy) (*rule, error) {
	text, err := json.Marshal(p.Spec)
	if err != nil {
		return nil, fmt.Errorf("read policy: %w", err)
	}
	sum := sha256.Sum256(append(text, p.Name...))
	r := &rule{name: p.Name, spec: &p.Spec, digest: hex.EncodeToString(sum[:])}
	if p.Spec.Nodes.Selector != nil {
		if r.selector, err = metav1.LabelSelectorAsSelector(p.Spec.Nodes.Selector); err != nil {
			return nil, fmt.Errorf("read spec.nodes.selector: %w", err)
		}
	}
	for i := range p.Spec.Reads {
		g := grant{&p.Spec.Reads[i], labels.Everything()}
		if g.Selector != nil {
			if g.selector, err = metav1.LabelSelectorAsSelector(g.Selector); err != nil {
				return nil, fmt.Errorf("read spec.reads[%d].selector: %w", i, err)
			}
		}
		r.reads = append(r.reads, g)
	}
	for _, m := range p.Spec.Masks {
		for _, f := range m.Fields {
			if err := view.CheckMask(f); err != nil {
				return nil, err
			}
		}
	}
	return r, nil
}

// broken is the rule of a policy that does not compile: it refuses all nodes that
// it may mean.
func broken(p *v1alpha1.NodePolicy) *rule {
	r := &rule{name: p.Name, spec: &p.Spec, digest: "broken " + p.Name, broken: true}
	if p.Spec.Nodes.Selector == nil {
		return r
	}
	var err error
	if r.selector, err = metav1.LabelSelectorAsSelector(p.Spec.Nodes.Selector); err != nil {
		r.selector = labels.Everything()
	}
	return r
}

// rulesOf are those of a snapshot. A policy that does not compile leaves the rule
// before it in force.
func rulesOf(s *config.Snapshot, before []*rule, found config.Findings) []*rule {
	var all []*rule
	for _, o := range s.Objects {
		p, ok := o.(*v1alpha1.NodePolicy)
		if !ok {
			continue
		}
		r, err := compile(p)
		if err != nil {
			r = lastGood(before, p)
			found.Add(p, config.NotInForce("Refused", err.Error()+"; "+r.remains()))
		}
		all = append(all, r)
	}
	return all
}

func lastGood(before []*rule, p *v1alpha1.NodePolicy) *rule {
	for _, r := range before {
		if r.name == p.Name && !r.broken {
			return r
		}
	}
	return broken(p)
}

// remains says what is in force in place of a policy that does not compile.
func (r *rule) remains() string {
	if r.broken {
		return "until it is mended, nodes that it may mean are refused everything"
	}
	return "what it said before remains in force"
}

func (r *rule) audits() bool { return r.spec.Mode == v1alpha1.ModeAudit }

// gateway reports whether a proxy elsewhere keeps the rule.
func (r *rule) gateway() bool { return r.spec.Placement == v1alpha1.PlacementGateway }

// means reports whether the rule is about a node whose labels are nil while there
// is no such node: then it is about whatever it may be.
func (r *rule) means(name string, is *labels.Set) bool {
	switch {
	case slices.Contains(r.spec.Nodes.Names, name):
		return true
	case r.selector == nil:
		return false
	case is == nil:
		return true
	}
	return r.selector.Matches(*is)
}

// granted are the grants of a resource, but those that cannot be about what a
// request asks for.
func (r *rule) granted(info *request.RequestInfo) []grant {
	var all []grant
	for _, g := range r.reads {
		if g.Group == info.APIGroup && g.Resource == info.Resource &&
			(info.Namespace == "" || len(g.Namespaces) == 0 || slices.Contains(g.Namespaces, info.Namespace)) &&
			(info.Name == "" || len(g.Names) == 0 || slices.Contains(g.Names, info.Name)) {
			all = append(all, g)
		}
	}
	return all
}

// isAll reports that the grant is for whatever a request can lead to.
func (g *grant) isAll(info *request.RequestInfo) bool {
	return g.selector.Empty() && (len(g.Namespaces) == 0 || info.Namespace != "") && (len(g.Names) == 0 || info.Name != "")
}

func (g *grant) fits(o view.Object) bool {
	return (len(g.Namespaces) == 0 || slices.Contains(g.Namespaces, o.Namespace)) &&
		(len(g.Names) == 0 || slices.Contains(g.Names, o.Name)) && (g.selector.Empty() || g.selector.Matches(o.Labels))
}

// A mask is what a caller does not see of the objects of a resource.
type mask struct {
	fields       view.Mask
	metadataOnly bool
}

func (m *mask) isNone() bool { return len(m.fields) == 0 && !m.metadataOnly }

// hides reports whether the mask takes out a field, or something of it.
func (m *mask) hides(pointer string) bool {
	metadata := len(pointer) >= len("/metadata") && pointer[:len("/metadata")] == "/metadata"
	return m.metadataOnly && !metadata || m.fields.Covers(pointer)
}

func (r *rule) mask(of schema.GroupResource, caller v1alpha1.NodeCaller) mask {
	var all mask
	for _, m := range r.spec.Masks {
		if m.Group == of.Group && m.Resource == of.Resource && (len(m.Callers) == 0 || slices.Contains(m.Callers, caller)) {
			all.metadataOnly = all.metadataOnly || m.MetadataOnly
			all.fields = append(all.fields, m.Fields...)
		}
	}
	return all
}

// allows reports whether the rule lists a write.
func (r *rule) allows(info *request.RequestInfo) bool {
	resource := info.Resource
	if info.Subresource != "" {
		resource += "/" + info.Subresource
	}
	return slices.ContainsFunc(r.spec.Writes, func(w v1alpha1.NodeWrite) bool {
		return w.Group == info.APIGroup && w.Resource == resource && slices.Contains(w.Verbs, info.Verb) &&
			(len(w.Namespaces) == 0 || slices.Contains(w.Namespaces, info.Namespace)) &&
			(len(w.Names) == 0 || slices.Contains(w.Names, info.Name))
	})
}
