package cache

import (
	"slices"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
)

// PoliciesFrom returns what the CachePolicies among objects ask for, on top of
// [DefaultPolicy]. Refusals win, and then parts.
func PoliciesFrom(objects []runtime.Object) Policies {
	var asked []v1alpha1.CachePolicySpec
	for _, o := range objects {
		if p, ok := o.(*v1alpha1.CachePolicy); ok {
			asked = append(asked, p.Spec)
		}
	}
	return func(r schema.GroupResource) Policy {
		p := DefaultPolicy(r)
		var callers [][]v1alpha1.Caller
		for i := range asked {
			named, all := names(&asked[i], r)
			switch {
			case !named && !all:
			case asked[i].Memory == v1alpha1.MemoryRefuse:
				return Policy{Refuse: true}
			default:
				p.Refuse = p.Refuse && !named
				p.Parts = p.Parts || asked[i].Memory == v1alpha1.MemoryParts
				if stale := asked[i].StaleIfError; stale != nil && (p.StaleIfError == 0 || stale.Duration < p.StaleIfError) {
					p.StaleIfError = stale.Duration
				}
				if asked[i].Reads == v1alpha1.ReadsSession {
					callers = append(callers, asked[i].Callers)
				}
			}
		}
		if len(callers) > 0 {
			p.Session = func(u user.Info) bool {
				return slices.ContainsFunc(callers, func(c []v1alpha1.Caller) bool { return isAmong(u, c) })
			}
		}
		return p
	}
}

// names reports whether spec names r, or all of its group.
func names(spec *v1alpha1.CachePolicySpec, r schema.GroupResource) (named, all bool) {
	for _, of := range spec.Resources {
		if of.Group == r.Group {
			named = named || of.Resource == r.Resource
			all = all || of.Resource == "*"
		}
	}
	return named, all
}

// isAmong reports whether u is one of callers. None are everybody.
func isAmong(u user.Info, callers []v1alpha1.Caller) bool {
	return len(callers) == 0 || slices.ContainsFunc(callers, func(c v1alpha1.Caller) bool {
		if c.Kind == v1alpha1.CallerGroup {
			return slices.Contains(u.GetGroups(), c.Name)
		}
		return u.GetName() == c.Name
	})
}
