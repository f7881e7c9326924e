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

	"github.com/portico-proxy/portico/core/talkers"
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

	// Account tells what callers do, and how large collections are; nil knows
	// nothing.
	Account *talkers.Account

	// What is found out when it is first asked for. It stays so, because an answer is
	// remembered by what was found before it was sought.
	query     url.Values
	observed  *talkers.Counts
	estimated estimate // without a seat: not yet
}

// counts are what the caller did to the resource in the last minute.
func (f *Facts) counts() *talkers.Counts {
	if f.observed == nil {
		f.observed = &talkers.Counts{}
		if f.Account != nil {
			*f.observed = f.Account.Observed(f.User.GetName(), f.Info.APIGroup, f.Info.Resource)
		}
	}
	return f.observed
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
	{path: "estimate.objects", explain: "Objects that the request is about, as far as that is known from the last list of all.", number: func(f *Facts) int64 { return f.estimate().objects }},
	{path: "estimate.bytes", explain: "Bytes that they take.", number: func(f *Facts) int64 { return f.estimate().bytes }},
	{path: "estimate.seats", explain: "Seats that the API server's priority and fairness would give the request, as far as that is known; at least 1.", number: func(f *Facts) int64 { return f.estimate().seats }},
	{path: "node.name", explain: "Node that the proxy runs on; empty if it was not told.", text: func(f *Facts) string { return f.Node }},
	{path: "observed.requests", explain: "Requests of the caller for the resource in the last minute; this changes every ten seconds.", number: func(f *Facts) int64 { return f.counts().Requests }},
	{path: "observed.lists", explain: "Lists among them.", number: func(f *Facts) int64 { return f.counts().Lists }},
	{path: "observed.quorumLists", explain: "Lists of the whole resource at its newest version among them.", number: func(f *Facts) int64 { return f.counts().QuorumLists }},
	{path: "observed.initialReads", explain: "Lists and watches among them that began anew.", number: func(f *Facts) int64 { return f.counts().InitialReads }},
	{path: "observed.listBytes", explain: "Bytes of the lists.", number: func(f *Facts) int64 { return f.counts().ListBytes }},
	{path: "observed.slowReads", explain: "Gets and lists among them that took longer than ten seconds.", number: func(f *Facts) int64 { return f.counts().SlowReads }},
	{path: "observed.watchStarts", explain: "Watches that began.", number: func(f *Facts) int64 { return f.counts().WatchStarts }},
	{path: "observed.shortWatches", explain: "Watches that ended within five seconds.", number: func(f *Facts) int64 { return f.counts().ShortWatches }},
	{path: "observed.writes", explain: "Writes among them.", number: func(f *Facts) int64 { return f.counts().Writes }},
	{path: "observed.noopWrites", explain: "Writes that left an object at the version at which the write before left it.", number: func(f *Facts) int64 { return f.counts().NoopWrites }},
	{path: "observed.conflicts", explain: "Requests that were answered 409.", number: func(f *Facts) int64 { return f.counts().Conflicts }},
	{path: "observed.expired", explain: "Requests that were answered 410 or 504.", number: func(f *Facts) int64 { return f.counts().Expired }},
	{path: "observed.throttled", explain: "Requests that were answered 429.", number: func(f *Facts) int64 { return f.counts().Throttled }},
	{path: "observed.errors", explain: "Requests that were answered 400 or more otherwise.", number: func(f *Facts) int64 { return f.counts().Errors }},
}

// parent is the object that a field is in, and its name there.
func (f *field) parent() (object, name string) {
	if object, name, ok := strings.Cut(f.path, "."); ok {
		return object, name
	}
	return "", f.path
}
