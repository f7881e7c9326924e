package v1alpha1

import (
	"regexp"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Validate says what the API server would say of p, for policies that come from
// files and have not passed it. Empty fields have their defaults.
func (p *NodePolicy) Validate() error {
	spec := field.NewPath("spec")
	all := p.Spec.Nodes.validate(spec.Child("nodes"))
	all = append(all, oneOf(spec.Child("mode"), p.Spec.Mode, "", ModeEnforce, ModeAudit)...)
	all = append(all, oneOf(spec.Child("placement"), p.Spec.Placement, "", PlacementOnNode, PlacementGateway)...)
	for i, r := range p.Spec.Reads {
		at := spec.Child("reads").Index(i)
		all = append(all, plural(at.Child("resource"), r.Resource, "a plural name")...)
		all = append(all, selects(at.Child("selector"), r.Selector)...)
	}
	for i := range p.Spec.Masks {
		all = append(all, p.Spec.Masks[i].validate(spec.Child("masks").Index(i))...)
	}
	for i := range p.Spec.Writes {
		all = append(all, p.Spec.Writes[i].validate(spec.Child("writes").Index(i))...)
	}
	own := spec.Child("ownNode")
	all = append(all, nonEmpty(own.Child("labelPrefixes"), p.Spec.OwnNode.LabelPrefixes)...)
	all = append(all, nonEmpty(own.Child("annotationPrefixes"), p.Spec.OwnNode.AnnotationPrefixes)...)
	all = append(all, p.Spec.Events.validate(spec.Child("events"))...)
	if p.Spec.MaxList < 0 {
		all = append(all, field.Invalid(spec.Child("maxList"), p.Spec.MaxList, "is out of bounds"))
	}
	return all.ToAggregate()
}

func (n *MeantNodes) validate(at *field.Path) field.ErrorList {
	if len(n.Names) == 0 && n.Selector == nil {
		return field.ErrorList{field.Required(at, "set names or selector")}
	}
	return selects(at.Child("selector"), n.Selector)
}

func selects(at *field.Path, s *metav1.LabelSelector) field.ErrorList {
	if _, err := metav1.LabelSelectorAsSelector(s); err != nil {
		return field.ErrorList{field.Invalid(at, "", err.Error())}
	}
	return nil
}

func nonEmpty(at *field.Path, texts []string) field.ErrorList {
	if i := slices.Index(texts, ""); i >= 0 {
		return field.ErrorList{field.Invalid(at.Index(i), "", "must not be empty")}
	}
	return nil
}

var fieldPattern = regexp.MustCompile(`^(/[^/]+)+$`)

// needed are what clients cannot do without.
var needed = []string{
	"/kind", "/apiVersion", "/metadata", "/metadata/*", "/metadata/name", "/metadata/namespace", "/metadata/uid", "/metadata/resourceVersion",
}

func (m *NodeMask) validate(at *field.Path) field.ErrorList {
	all := plural(at.Child("resource"), m.Resource, "a plural name")
	if (len(m.Fields) > 0) == m.MetadataOnly {
		all = append(all, field.Required(at, "set either fields or metadataOnly"))
	}
	for i, f := range m.Fields {
		switch at := at.Child("fields").Index(i); {
		case !fieldPattern.MatchString(f):
			all = append(all, field.Invalid(at, f, "must be a JSON pointer, as in /spec/containers/*/env"))
		case strings.HasPrefix(f, "/*"), slices.Contains(needed, f):
			all = append(all, field.Invalid(at, f, "clients need kind, apiVersion and the name, namespace, uid and resourceVersion of every object"))
		}
	}
	for i, c := range m.Callers {
		all = append(all, oneOf(at.Child("callers").Index(i), c, CallerKubelet, CallerPods)...)
	}
	return all
}

func (w *NodeWrite) validate(at *field.Path) field.ErrorList {
	all := plural(at.Child("resource"), w.Resource, "a plural name")
	if len(w.Verbs) == 0 {
		all = append(all, field.Required(at.Child("verbs"), "what may be done"))
	}
	for i, verb := range w.Verbs {
		all = append(all, oneOf(at.Child("verbs").Index(i), verb, "create", "update", "patch", "delete", "deletecollection")...)
	}
	return all
}

func (b *EventBudget) validate(at *field.Path) (all field.ErrorList) {
	if b == nil {
		return nil
	}
	if b.PerObject == nil && b.PerNode == nil {
		all = append(all, field.Required(at, "set perObject or perNode"))
	}
	for name, r := range map[string]*EventRate{"perObject": b.PerObject, "perNode": b.PerNode} {
		if r != nil && (r.PerMinute < 1 || r.Burst < 1 || r.PerMinute > maxEvents || r.Burst > maxEvents) {
			all = append(all, field.Invalid(at.Child(name), *r, "is out of bounds"))
		}
	}
	return all
}

// maxEvents bounds budgets.
const maxEvents = 100000
