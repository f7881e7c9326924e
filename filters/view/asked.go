package view

import (
	"net/http"
	"path"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apiserver/pkg/endpoints/request"
)

var (
	bindingResource = schema.GroupResource{Resource: "bindings"}
	podResource     = schema.GroupResource{Resource: "pods"}
	eventResource   = schema.GroupResource{Resource: "events"}
	nodeResource    = schema.GroupResource{Resource: "nodes"}
)

// A key names an object, or objects of which the name is not known.
type key struct {
	resource  schema.GroupResource
	namespace string // empty outside namespaces, and where all are meant
	name      string
}

// asked is what a request is about.
type asked struct {
	key
	info        *request.RequestInfo
	subresource string
}

// readAsked reads what a request for a resource is about.
func readAsked(r *http.Request) asked {
	info, _ := request.RequestInfoFrom(r.Context())
	a := asked{info: info, subresource: info.Subresource}
	a.resource = schema.GroupResource{Group: info.APIGroup, Resource: info.Resource}
	a.namespace, a.name = info.Namespace, info.Name
	if a.resource == namespaceResource {
		a.namespace = "" // it is the name, once more
	}
	if a.subresource == "proxy" || info.Verb == "proxy" {
		if _, name, _, valid := utilnet.SplitSchemeNamePort(a.name); valid {
			a.name = name
		}
	}
	return a
}

// version is the resource's, with its version.
func (a *asked) version() schema.GroupVersionResource {
	return a.resource.WithVersion(a.info.APIVersion)
}

// whole are subresources whose objects are the whole objects.
var whole = []string{"", "status", "ephemeralcontainers", "resize", "finalize", "approval"}

// isWhole reports whether the objects of the request and of its answer are those
// that the view is about.
func (a *asked) isWhole() bool { return slices.Contains(whole, a.subresource) }

// path is the object's own.
func (a *asked) path() string {
	parts := []string{"/", a.info.APIPrefix, a.info.APIGroup, a.info.APIVersion}
	if a.namespace != "" {
		parts = append(parts, "namespaces", a.namespace)
	}
	return path.Join(append(parts, a.info.Resource, a.name)...)
}

// collection is the path of what the object is one of.
func (a *asked) collection() string {
	all := *a
	all.name = ""
	return all.path()
}

// isNodeProxy reports requests to kubelets, which show all of their nodes.
func (a *asked) isNodeProxy() bool {
	return a.resource == nodeResource && (a.subresource == "proxy" || a.info.Verb == "proxy")
}

// isSelfReview reports what callers ask about themselves.
func (a *asked) isSelfReview() bool {
	return a.resource.Group == "authorization.k8s.io" && a.info.Verb == "create" && strings.HasPrefix(a.resource.Resource, "selfsubject")
}
