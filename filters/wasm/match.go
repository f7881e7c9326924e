package wasm

import (
	"slices"
	"strings"

	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
)

// concerns reports whether a request is one that m means, whoever sent it.
func concerns(m *v1alpha1.RequestMatch, info *request.RequestInfo, userAgent string) bool {
	return fits(m.Verbs, func(v string) bool { return v == "*" || v == info.Verb }) &&
		fits(m.UserAgents, func(p string) bool { return matches(p, userAgent) }) &&
		fits(m.Namespaces, func(n string) bool { return info.Namespace != "" && n == info.Namespace }) &&
		fits(m.Resources, func(r v1alpha1.MatchedResource) bool { return isAbout(r, info) })
}

// sentBy reports whether the caller is one that m means.
func sentBy(m *v1alpha1.RequestMatch, caller user.Info) bool {
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
