package rego

import (
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"
)

// Facts are what a policy may know of a request.
type Facts struct {
	User    user.Info
	Info    *request.RequestInfo
	Request *http.Request
	// Node is the one that the proxy runs on.
	Node string
	// Servable says that memory would answer.
	Servable bool

	query url.Values // parsed when it is first asked for
}

// option is a parameter of the request's, of which the API server reads the
// first.
func (f *Facts) option(name string) string {
	if f.query == nil {
		f.query = f.Request.URL.Query()
	}
	return f.query.Get(name)
}

func (f *Facts) limit() int64 {
	n, err := strconv.ParseInt(f.option("limit"), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// account is the namespace and name of the caller's ServiceAccount, or nothing.
func (f *Facts) account() (namespace, name string) {
	namespace, name, err := serviceaccount.SplitUsername(f.User.GetName())
	if err != nil {
		return "", ""
	}
	return namespace, name
}

// bound is what the caller's token is bound to, as the API server says.
func (f *Facts) bound(key string) string {
	if values := f.User.GetExtra()[key]; len(values) == 1 {
		return values[0]
	}
	return ""
}

func (f *Facts) sourceIP() string {
	host, _, err := net.SplitHostPort(f.Request.RemoteAddr)
	if err != nil {
		return ""
	}
	return host
}

// A field is one leaf of a policy's input. Exactly one of its functions is set.
type field struct {
	path    string // without input, its parts joined by dots
	explain string
	text    func(*Facts) string
	number  func(*Facts) int64
	flag    func(*Facts) bool
	list    func(*Facts) []string
	lists   func(*Facts) map[string][]string
}

// fields are all that a policy may know, and plugins/policies/schemas/request.json
// says the same to OPA's tools.
var fields = []field{
	{path: "user.name", explain: "Name of the caller, as the API server knows it.", text: func(f *Facts) string { return f.User.GetName() }},
	{path: "user.uid", explain: "UID of the caller.", text: func(f *Facts) string { return f.User.GetUID() }},
	{path: "user.groups", explain: "Groups of the caller.", list: func(f *Facts) []string { return f.User.GetGroups() }},
	{path: "user.extra", explain: "What else the API server knows of the caller.", lists: func(f *Facts) map[string][]string { return f.User.GetExtra() }},
	{path: "workload.namespace", explain: "Namespace of the caller's ServiceAccount; empty if it is none.", text: func(f *Facts) string { ns, _ := f.account(); return ns }},
	{path: "workload.serviceAccount", explain: "Name of the caller's ServiceAccount; empty if it is none.", text: func(f *Facts) string { _, name := f.account(); return name }},
	{path: "workload.pod", explain: "Pod that the caller's token is bound to; empty if it is bound to none.", text: func(f *Facts) string { return f.bound(serviceaccount.PodNameKey) }},
	{path: "workload.node", explain: "Node that the caller's token is bound to; empty if it is bound to none.", text: func(f *Facts) string { return f.bound(serviceaccount.NodeNameKey) }},
	{path: "verb", explain: "Verb of the request: get, list, watch, create, update, patch, delete, deletecollection, or the HTTP method in lower case if the request is about no resource.", text: func(f *Facts) string { return f.Info.Verb }},
	{path: "apiGroup", explain: "API group of the resource; empty is the core group.", text: func(f *Facts) string { return f.Info.APIGroup }},
	{path: "apiVersion", explain: "API version of the resource.", text: func(f *Facts) string { return f.Info.APIVersion }},
	{path: "resource", explain: "Resource, by its plural name; empty if the request is about none.", text: func(f *Facts) string { return f.Info.Resource }},
	{path: "subresource", explain: "Subresource.", text: func(f *Facts) string { return f.Info.Subresource }},
	{path: "namespace", explain: "Namespace; empty means all, or that the resource has none.", text: func(f *Facts) string { return f.Info.Namespace }},
	{path: "name", explain: "Name of the object.", text: func(f *Facts) string { return f.Info.Name }},
	{path: "path", explain: "Path of the URL.", text: func(f *Facts) string { return f.Info.Path }},
	{path: "userAgent", explain: "What the client calls itself. Any client can call itself anything.", text: func(f *Facts) string { return f.Request.UserAgent() }},
	{path: "sourceIP", explain: "Address that the request came from.", text: (*Facts).sourceIP},
	{path: "options.limit", explain: "Size of the page asked for; 0 means all.", number: (*Facts).limit},
	{path: "options.continue", explain: "Whether a further page is asked for.", flag: func(f *Facts) bool { return f.option("continue") != "" }},
	{path: "options.resourceVersion", explain: "The resourceVersion asked for; empty means the newest.", text: func(f *Facts) string { return f.option("resourceVersion") }},
	{path: "options.resourceVersionMatch", explain: "How the resourceVersion is to be matched.", text: func(f *Facts) string { return f.option("resourceVersionMatch") }},
	{path: "options.labelSelector", explain: "Label selector.", text: func(f *Facts) string { return f.option("labelSelector") }},
	{path: "options.fieldSelector", explain: "Field selector.", text: func(f *Facts) string { return f.option("fieldSelector") }},
	{path: "options.sendInitialEvents", explain: "Whether a watch is to begin with the state.", flag: func(f *Facts) bool {
		return f.option("sendInitialEvents") == "true" || f.option("sendInitialEvents") == "1"
	}},
	{path: "cache.servable", explain: "Whether the proxy could answer from memory, if the caller may have the answer.", flag: func(f *Facts) bool { return f.Servable }},
	{path: "node.name", explain: "Node that the proxy runs on; empty if it was not told.", text: func(f *Facts) string { return f.Node }},
}

// parent is the object that a field is in, and its name there.
func (f *field) parent() (object, name string) {
	if object, name, ok := strings.Cut(f.path, "."); ok {
		return object, name
	}
	return "", f.path
}
