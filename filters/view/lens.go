package view

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/portico-proxy/portico/core/names"
	"github.com/portico-proxy/portico/core/view"
	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
)

// A lens is a VirtualView with the namespaces that it shows now. It never
// changes: what comes after it is another.
type lens struct {
	name       string
	audits     bool
	made       bool // for a caller, by a policy
	subjects   v1alpha1.RequestMatch
	limits     *v1alpha1.ViewNamespaces // nil: all namespaces exist
	selector   labels.Selector          // of namespaces; nil: none is chosen by labels
	names      *names.Mapping           // nil: namespaces have the names that they have
	hidden     []v1alpha1.ViewResource
	rules      []*rule
	masked     []maskedResources
	namespaces map[string]struct{} // chosen by labels
	unknown    bool                // which namespaces there are
	key        string
	changed    chan struct{}
	floors     *floors
}

// maskedResources have fields hidden.
type maskedResources struct {
	resources []v1alpha1.ViewResource
	mask      *mask
	written   *mask // of Secrets, nil for nothing
}

// newLens compiles v. What Validate accepts compiles.
func newLens(v *v1alpha1.VirtualView, digest string) (*lens, error) {
	l := &lens{
		name: v.Name, audits: v.Spec.Mode == v1alpha1.ModeAudit, limits: v.Spec.Namespaces, hidden: v.Spec.Hidden, names: names.Of(v.Spec.Namespaces),
		subjects: v1alpha1.RequestMatch{Users: v.Spec.Subjects.Users, Groups: v.Spec.Subjects.Groups},
		key:      digest, changed: make(chan struct{}), floors: newFloors(),
	}
	for i := range v.Spec.Objects {
		r, err := newRule(&v.Spec.Objects[i])
		if err != nil {
			return nil, err
		}
		l.rules = append(l.rules, r)
	}
	for _, m := range v.Spec.Masks {
		over := maskOver(&m)
		l.masked = append(l.masked, maskedResources{m.Resources, over, over.written()})
	}
	if l.limits == nil || l.limits.Selector == nil {
		return l, nil
	}
	var err error
	l.selector, err = metav1.LabelSelectorAsSelector(l.limits.Selector)
	l.unknown = true
	return l, err
}

func maskOver(m *v1alpha1.ViewMask) *mask {
	var instead []byte
	if m.Replacement != nil {
		instead, _ = json.Marshal(*m.Replacement) // a string always can be
	}
	out := &mask{}
	for _, p := range m.Paths {
		out.add(partsOf(p), instead)
	}
	return out
}

// chosen returns the namespaces that l chooses by their labels.
func (l *lens) chosen(all map[string]labels.Set) map[string]struct{} {
	chosen := map[string]struct{}{}
	for name, set := range all {
		if l.selector.Matches(set) {
			chosen[name] = struct{}{}
		}
	}
	return chosen
}

// over returns l as it is with these namespaces chosen by labels.
func (l *lens) over(chosen map[string]struct{}) *lens {
	next := *l
	next.namespaces, next.unknown, next.changed, next.floors = chosen, false, make(chan struct{}), newFloors()
	digest := sha256.Sum256([]byte(strings.Join(slices.Sorted(maps.Keys(chosen)), " ")))
	next.key, _, _ = strings.Cut(l.key, " ")
	next.key += " " + hex.EncodeToString(digest[:])
	return &next
}

// Key implements [view.View].
func (l *lens) Key() string { return l.key }

// Changed implements [view.View].
func (l *lens) Changed() <-chan struct{} { return l.changed }

// isOver reports whether another lens has taken l's place.
func (l *lens) isOver() bool {
	select {
	case <-l.changed:
		return true
	default:
		return false
	}
}

// isOpen reports whether all that there is exists, as it is.
func (l *lens) isOpen() bool {
	return l.limits == nil && len(l.hidden)+len(l.rules)+len(l.masked) == 0
}

// narrows reports whether something of what is asked for may not exist, or not as it
// is. Of what is asked for in all namespaces names do not tell.
func (l *lens) narrows(a *asked) bool {
	return l.unknown || l.names != nil || !l.mayBe(a.key) || l.judges(a.resource) || len(l.masksOf(a.resource)) > 0 ||
		l.limits != nil && a.namespace == ""
}

var (
	namespaceResource = schema.GroupResource{Resource: "namespaces"}
	secretResource    = schema.GroupResource{Resource: "secrets"}
)

// shows reports whether a namespace exists.
func (l *lens) shows(namespace string) bool {
	_, chosen := l.namespaces[namespace]
	return l.mayShow(namespace, chosen)
}

// admits reports whether a namespace with these labels exists. What an object is
// counts here, and not what was heard of it.
func (l *lens) admits(namespace string, set labels.Labels) bool {
	return l.mayShow(namespace, l.selector != nil && l.selector.Matches(set))
}

// mayShow reports whether a namespace exists that is chosen by its labels or not.
func (l *lens) mayShow(namespace string, chosen bool) bool {
	switch {
	case l.limits == nil:
		return true
	case l.names == nil:
		return chosen || fits(l.limits.Names, namespace)
	case len(l.limits.Names) == 0 && l.selector == nil:
		return l.names.Chooses(namespace)
	}
	return l.names.Has(namespace) && (chosen || fits(l.limits.Names, namespace))
}

// rulesOf returns the rules on a resource.
func (l *lens) rulesOf(r schema.GroupResource) (all []*rule) {
	for _, rule := range l.rules {
		if isAbout(rule.resources, r) {
			all = append(all, rule)
		}
	}
	return all
}

// mayBe reports whether an object may exist, as far as its name tells. An empty
// name is one that is not known.
func (l *lens) mayBe(k key) bool {
	switch {
	case isAbout(l.hidden, k.resource), k.namespace != "" && !l.shows(k.namespace):
		return false
	case k.name == "":
		return true
	case k.resource == namespaceResource && l.selector == nil && !l.shows(k.name):
		return false
	}
	rules := l.rulesOf(k.resource)
	return len(rules) == 0 || slices.ContainsFunc(rules, func(r *rule) bool { return r.mayBe(k.name) })
}

// looks reports whether an object's name does not tell whether it exists.
func (l *lens) looks(r schema.GroupResource) bool { return l.weighs(r) || l.names.MayHide(r) }

// weighs reports whether more of an object than its name tells whether it exists, so that
// who writes it may bring it into sight or out of it. Names of namespaces do not count:
// he has only his own to write.
func (l *lens) weighs(r schema.GroupResource) bool {
	if r == namespaceResource && l.selector != nil || l.follows(r) {
		return true
	}
	return slices.ContainsFunc(l.rulesOf(r), (*rule).looks)
}

// judges reports whether it depends on objects of a resource, or their names,
// whether they exist.
func (l *lens) judges(r schema.GroupResource) bool {
	return r == namespaceResource && l.limits != nil || l.follows(r) || len(l.rulesOf(r)) > 0 || l.names.MayHide(r)
}

// masksOf returns what is hidden of objects of a resource.
func (l *lens) masksOf(r schema.GroupResource) (all masks) {
	for _, m := range l.masked {
		if !isAbout(m.resources, r) {
			continue
		}
		all = append(all, m.mask)
		if r == secretResource && m.written != nil {
			all = append(all, m.written)
		}
	}
	return all
}

// See implements [view.View].
func (l *lens) See(_ context.Context, o view.Object) ([]byte, error) {
	r := o.Resource.GroupResource()
	exists, err := l.exists(key{r, o.Namespace, o.Name}, o.Labels, &content{raw: o.JSON})
	if err != nil || !exists {
		return nil, err
	}
	seen, _, err := l.masksOf(r).applyToObject(o.JSON, o.Resource.GroupVersion())
	return seen, err
}

// exists reports whether an object does.
func (l *lens) exists(k key, set labels.Labels, c *content) (bool, error) {
	switch {
	case isAbout(l.hidden, k.resource), k.namespace != "" && !l.shows(k.namespace):
		return false, nil
	case k.resource == namespaceResource && !l.admits(k.name, set):
		return false, nil
	}
	if l.names != nil {
		if shows, err := c.shown(l.names, k.resource); err != nil || !shows {
			return false, err
		}
	}
	if l.follows(k.resource) {
		if exists, err := l.followed(k.resource, c); err != nil || !exists {
			return false, err
		}
	}
	rules := l.rulesOf(k.resource)
	for _, r := range rules {
		if fit, err := r.fits(k.name, set, c); err != nil || fit {
			return fit, err
		}
	}
	return len(rules) == 0, nil
}

var _ view.View = (*lens)(nil)
