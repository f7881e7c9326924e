package config

import (
	"cmp"
	"net/http"
	"net/url"
	"slices"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
)

// BindingsOf returns the bindings of one kind of filter and one phase, in the
// order in which they run: the highest priority first, then by name.
func (s *Snapshot) BindingsOf(kind v1alpha1.FilterKind, phase v1alpha1.FilterPhase) []*v1alpha1.FilterBinding {
	var all []*v1alpha1.FilterBinding
	for _, o := range s.Objects {
		b, ok := o.(*v1alpha1.FilterBinding)
		if ok && b.Spec.FilterRef.Kind == kind && cmp.Or(b.Spec.Phase, v1alpha1.PhaseRestrict) == phase {
			all = append(all, b)
		}
	}
	slices.SortStableFunc(all, func(a, b *v1alpha1.FilterBinding) int {
		return cmp.Or(cmp.Compare(b.Spec.Priority, a.Spec.Priority), cmp.Compare(a.Name, b.Name))
	})
	return all
}

// CallerOf returns who sent r. A credential that nobody could review must not
// lead past what is bound to its owner, so it is an error.
func CallerOf(r *http.Request) (user.Info, error) {
	if caller, ok := request.UserFrom(r.Context()); ok {
		return caller, nil
	}
	// Any line of a header may be the one that the API server reads.
	if said := slices.Concat(r.Header["Authorization"], r.Header["Sec-Websocket-Protocol"]); strings.Join(said, "") != "" {
		return nil, apierrors.NewUnauthorized("a policy of this proxy concerns the request, and its credential is not one that the API server would review")
	}
	return &user.DefaultInfo{Name: user.Anonymous, Groups: []string{user.AllUnauthenticated}}, nil
}

// CallersOf returns who sent r, and whom he would act as, if he would.
func CallersOf(r *http.Request) ([]user.Info, error) {
	caller, err := CallerOf(r)
	if err != nil {
		return nil, err
	}
	as := r.Header.Get(authenticationv1.ImpersonateUserHeader)
	if as == "" {
		return []user.Info{caller}, nil
	}
	all := user.AllAuthenticated
	if as == user.Anonymous {
		all = user.AllUnauthenticated
	}
	other := &user.DefaultInfo{
		Name: as, UID: r.Header.Get(authenticationv1.ImpersonateUIDHeader), Extra: impersonatedExtra(r.Header),
		Groups: append([]string{all}, r.Header[authenticationv1.ImpersonateGroupHeader]...),
	}
	if namespace, _, err := serviceaccount.SplitUsername(as); err == nil {
		other.Groups = append(other.Groups, serviceaccount.MakeGroupNames(namespace)...)
	}
	return []user.Info{caller, other}, nil
}

// impersonatedExtra reads names as the API server does.
func impersonatedExtra(h http.Header) map[string][]string {
	extra := map[string][]string{}
	for header, values := range h {
		name, ok := strings.CutPrefix(header, authenticationv1.ImpersonateUserExtraHeaderPrefix)
		if !ok {
			continue
		}
		name = strings.ToLower(name)
		if plain, err := url.PathUnescape(name); err == nil {
			name = plain
		}
		extra[name] = append(extra[name], values...)
	}
	return extra
}

// Concerns reports whether a request is one that m means, whoever sent it.
func Concerns(m *v1alpha1.RequestMatch, info *request.RequestInfo, userAgent string) bool {
	return fits(m.Verbs, func(v string) bool { return v == "*" || v == info.Verb }) &&
		fits(m.UserAgents, func(p string) bool { return matches(p, userAgent) }) &&
		fits(m.Namespaces, func(n string) bool { return info.Namespace != "" && n == info.Namespace }) &&
		fits(m.Resources, func(r v1alpha1.MatchedResource) bool { return isAbout(r, info) })
}

// SentBy reports whether the caller is one that m means.
func SentBy(m *v1alpha1.RequestMatch, caller user.Info) bool {
	if len(m.Users)+len(m.Groups) == 0 {
		return true
	}
	return slices.ContainsFunc(m.Users, func(p string) bool { return matches(p, caller.GetName()) }) ||
		slices.ContainsFunc(m.Groups, func(g string) bool { return slices.Contains(caller.GetGroups(), g) })
}

// fits reports whether one of a list's entries is met, or the list is empty.
func fits[T any](list []T, met func(T) bool) bool {
	return len(list) == 0 || slices.ContainsFunc(list, met)
}

// matches compares text with a pattern, whose * at the end stands for anything.
func matches(pattern, text string) bool {
	if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(text, prefix)
	}
	return pattern == text
}

func isAbout(r v1alpha1.MatchedResource, info *request.RequestInfo) bool {
	if !info.IsResourceRequest || r.Group != "*" && r.Group != info.APIGroup {
		return false
	}
	resource, subresource, _ := strings.Cut(r.Resource, "/")
	if resource == "*" && subresource == "" {
		return true
	}
	return (resource == "*" || resource == info.Resource) && (subresource == "*" || subresource == info.Subresource)
}
