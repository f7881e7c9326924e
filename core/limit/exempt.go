package limit

import (
	"slices"
	"strings"

	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"
)

// Exempt reports requests that a limit must not hold up unless its author names
// them: a cluster in which leases are not renewed, nodes do not report, or
// nobody can be asked who may what is worse off than one that is busy.
func Exempt(info *request.RequestInfo, caller user.Info) bool {
	if caller != nil && caller.GetName() == user.APIServerUser {
		return true
	}
	if !info.IsResourceRequest {
		return isVital(info.Path)
	}
	write := slices.Contains([]string{"create", "update", "patch"}, info.Verb)
	switch {
	case info.APIGroup == "coordination.k8s.io" && info.Resource == "leases":
		return write || info.Verb == "get"
	case info.APIGroup == "" && info.Resource == "nodes" && info.Subresource == "status":
		return write && caller != nil && slices.Contains(caller.GetGroups(), user.NodesGroup)
	}
	return write && isReview(info)
}

// isVital reports health and discovery.
func isVital(path string) bool {
	for _, root := range []string{"/healthz", "/livez", "/readyz", "/version", "/api", "/apis", "/openapi"} {
		if path == root || strings.HasPrefix(path, root+"/") {
			return true
		}
	}
	return false
}

// isReview reports questions about who somebody is and may, among them those
// for tokens.
func isReview(info *request.RequestInfo) bool {
	switch info.APIGroup {
	case "authentication.k8s.io", "authorization.k8s.io":
		return true
	}
	return info.Resource == "serviceaccounts" && info.Subresource == "token"
}
