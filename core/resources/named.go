package resources

import (
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
)

// A name is a resource that a policy names, and where.
type name struct {
	at              *field.Path
	group, resource string
}

// namedBy are the resources that a policy names, if it is one that may. What a policy
// in Rego names is known once it has been asked.
func (s *Served) namedBy(policy runtime.Object) (all []name, may bool) {
	spec := field.NewPath("spec")
	switch p := policy.(type) {
	case *v1alpha1.CachePolicy:
		for i, r := range p.Spec.Resources {
			all = append(all, name{spec.Child("resources").Index(i), r.Group, r.Resource})
		}
	case *v1alpha1.FilterBinding:
		for i, r := range p.Spec.Match.Resources {
			all = append(all, name{spec.Child("match", "resources").Index(i), r.Group, r.Resource})
		}
	case *v1alpha1.VirtualView:
		all = viewed(spec.Child("hidden"), p.Spec.Hidden)
		for i, r := range p.Spec.Objects {
			all = append(all, viewed(spec.Child("objects").Index(i).Child("resources"), r.Resources)...)
		}
		for i, m := range p.Spec.Masks {
			all = append(all, viewed(spec.Child("masks").Index(i).Child("resources"), m.Resources)...)
		}
	case *v1alpha1.NodePolicy:
		for i := range p.Spec.Reads {
			all = append(all, name{spec.Child("reads").Index(i), p.Spec.Reads[i].Group, p.Spec.Reads[i].Resource})
		}
		for i, m := range p.Spec.Masks {
			all = append(all, name{spec.Child("masks").Index(i), m.Group, m.Resource})
		}
		for i, w := range p.Spec.Writes {
			all = append(all, name{spec.Child("writes").Index(i), w.Group, w.Resource})
		}
	case *v1alpha1.WasmFilter:
		for i, r := range p.Spec.ContextResources {
			all = append(all, name{spec.Child("contextResources").Index(i), r.Group, r.Resource})
		}
		return all, len(all) > 0
	case *v1alpha1.RegoPolicy:
		for _, r := range s.options.Selected(p.Name) {
			all = append(all, name{field.NewPath("selectors"), r.Group, r.Resource})
		}
		return all, len(all) > 0
	default:
		return nil, false
	}
	return all, true
}

func viewed(at *field.Path, resources []v1alpha1.ViewResource) (all []name) {
	for i, r := range resources {
		all = append(all, name{at.Index(i), r.Group, r.Resource})
	}
	return all
}

// kindOf is a policy's kind and name.
func kindOf(policy runtime.Object) (kind, called string) {
	switch p := policy.(type) {
	case *v1alpha1.CachePolicy:
		return "CachePolicy", p.Name
	case *v1alpha1.FilterBinding:
		return "FilterBinding", p.Name
	case *v1alpha1.VirtualView:
		return "VirtualView", p.Name
	case *v1alpha1.NodePolicy:
		return "NodePolicy", p.Name
	case *v1alpha1.WasmFilter:
		return "WasmFilter", p.Name
	case *v1alpha1.RegoPolicy:
		return "RegoPolicy", p.Name
	}
	return "", ""
}
