package noderestriction

import (
	"net/http"
	"slices"
	"strings"

	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
)

const (
	kubeletPrefix = "system:node:"
	bootstrappers = "system:bootstrappers"
)

// An origin is where a request comes from.
type origin struct {
	caller user.Info
	node   string // empty if the caller's credential names none
	kind   v1alpha1.NodeCaller
}

// originOf reads what a credential says: a kubelet's names its node, and so does
// the token of a ServiceAccount that is bound to a pod.
func originOf(caller user.Info) origin {
	o := origin{caller: caller, kind: v1alpha1.CallerPods}
	if name, ok := strings.CutPrefix(caller.GetName(), kubeletPrefix); ok && name != "" {
		o.node = name
		if slices.Contains(caller.GetGroups(), user.NodesGroup) {
			o.kind = v1alpha1.CallerKubelet
		}
		return o
	}
	if names := caller.GetExtra()[serviceaccount.NodeNameKey]; len(names) > 0 {
		o.node = names[0]
	}
	return o
}

// isOpen reports requests that every caller of a node may send: health,
// discovery, and questions about the caller itself.
func isOpen(info *request.RequestInfo) bool {
	if !info.IsResourceRequest {
		return slices.ContainsFunc(openPaths, func(root string) bool {
			return info.Path == root || strings.HasPrefix(info.Path, root+"/")
		})
	}
	if info.Verb != "create" || info.Subresource != "" || info.Namespace != "" {
		return false
	}
	switch info.APIGroup {
	case "authorization.k8s.io":
		return info.Resource == "selfsubjectaccessreviews" || info.Resource == "selfsubjectrulesreviews"
	case "authentication.k8s.io":
		return info.Resource == "selfsubjectreviews"
	}
	return false
}

var openPaths = []string{
	"/healthz", "/livez", "/readyz", "/version", "/api", "/apis", "/openapi", "/.well-known/openid-configuration", "/openid/v1/jwks",
}

// bootstraps reports what a kubelet does that has no credential of its own yet.
func bootstraps(o origin, info *request.RequestInfo) bool {
	return slices.Contains(o.caller.GetGroups(), bootstrappers) && info.APIGroup == certificatesGroup && info.Resource == "certificatesigningrequests" &&
		info.Subresource == "" && slices.Contains([]string{"create", "get", "list", "watch"}, info.Verb)
}

// impersonates reports that r asks to act as somebody else.
func impersonates(r *http.Request) bool {
	for name := range r.Header {
		if strings.HasPrefix(name, "Impersonate-") {
			return true
		}
	}
	return false
}
