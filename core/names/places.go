package names

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/portico-proxy/portico/core/document"
)

// A sort is what stands at a place.
type sort int

const (
	_          sort = iota
	name            // the name of a namespace
	generated       // what the name of a namespace is made of
	account         // a user's or a group's name, which may be that of ServiceAccounts
	reference       // an object reference, which may be to a namespace
	attributes      // what a review asks about
	expression      // one requirement of a label selector
	text            // what people read: in answers only
	texts           // an array of those
	managers        // who manages which fields: not told where it names a namespace
	applied         // the whole object once more
)

// A place is where objects of some resources name namespaces.
type place struct {
	resources string // as in group/resource, separated by spaces; empty is all
	paths     string // JSON pointers, in which * stands for everything, separated by spaces
	sort      sort
}

const (
	nameLabel = "/kubernetes.io~1metadata.name"

	workloads = "apps/deployments apps/replicasets apps/statefulsets apps/daemonsets batch/jobs /replicationcontrollers"
)

// places are all in which names are exchanged, with the same for each way. Those of
// selectors and of pods are completed by [selects] and [podsIn].
var places = slices.Concat([]place{
	{"", "/metadata/namespace", name},
	{"", "/metadata/managedFields", managers},
	{"", "/metadata/annotations/kubectl.kubernetes.io~1last-applied-configuration", applied},
	{"", "/status/conditions/*/message", text},

	{"/pods", "/status/message", text},
	{"/pods", wherePodsTell(), text},

	{"/namespaces", "/metadata/name /metadata/labels" + nameLabel, name},
	{"/namespaces", "/metadata/generateName", generated},

	{"/events", "/involvedObject /related", reference},
	{"/events", "/message", text},
	{"events.k8s.io/events", "/regarding /related", reference},
	{"events.k8s.io/events", "/note", text},

	{"rbac.authorization.k8s.io/rolebindings rbac.authorization.k8s.io/clusterrolebindings", "/subjects/*/namespace", name},
	{"rbac.authorization.k8s.io/rolebindings rbac.authorization.k8s.io/clusterrolebindings", "/subjects/*/name", account},

	{"authorization.k8s.io/selfsubjectaccessreviews authorization.k8s.io/localsubjectaccessreviews authorization.k8s.io/subjectaccessreviews", "/spec/resourceAttributes", attributes},
	{"authorization.k8s.io/localsubjectaccessreviews authorization.k8s.io/subjectaccessreviews", "/spec/user /spec/groups/*", account},
	{"authorization.k8s.io/selfsubjectaccessreviews authorization.k8s.io/localsubjectaccessreviews authorization.k8s.io/subjectaccessreviews", "/status/reason /status/evaluationError", text},
	{"authorization.k8s.io/selfsubjectrulesreviews", "/spec/namespace", name},
	{"authorization.k8s.io/selfsubjectrulesreviews", "/status/evaluationError", text},
	{"authorization.k8s.io/selfsubjectrulesreviews", "/status/resourceRules/*/resourceNames", texts},
	{"authentication.k8s.io/tokenreviews", "/status/user/username /status/user/groups/*", account},
	{"authentication.k8s.io/tokenreviews", "/status/error", text},
	{"authentication.k8s.io/selfsubjectreviews", "/status/userInfo/username /status/userInfo/groups/*", account},
	{"certificates.k8s.io/certificatesigningrequests", "/spec/username /spec/groups/*", account},

	{"/endpoints", "/subsets/*/addresses/*/targetRef /subsets/*/notReadyAddresses/*/targetRef", reference},
	{"discovery.k8s.io/endpointslices", "/endpoints/*/targetRef", reference},
	{"/persistentvolumeclaims", "/spec/dataSourceRef/namespace", name},
	{"/persistentvolumes", "/spec/claimRef/namespace /spec/csi/*/namespace /spec/azureFile/secretNamespace /spec/cephfs/secretRef/namespace /spec/rbd/secretRef/namespace /spec/iscsi/secretRef/namespace /spec/scaleIO/secretRef/namespace /spec/storageos/secretRef/namespace /spec/flexVolume/secretRef/namespace", name},

	{"admissionregistration.k8s.io/validatingwebhookconfigurations admissionregistration.k8s.io/mutatingwebhookconfigurations", "/webhooks/*/clientConfig/service/namespace", name},
	{"admissionregistration.k8s.io/validatingadmissionpolicybindings admissionregistration.k8s.io/mutatingadmissionpolicybindings", "/spec/paramRef/namespace", name},
	{"apiextensions.k8s.io/customresourcedefinitions", "/spec/conversion/webhook/clientConfig/service/namespace", name},
	{"apiregistration.k8s.io/apiservices", "/spec/service/namespace", name},
	{"networking.k8s.io/ingressclasses", "/spec/parameters/namespace", name},
	{"flowcontrol.apiserver.k8s.io/flowschemas", "/spec/rules/*/subjects/*/serviceAccount/namespace /spec/rules/*/resourceRules/*/namespaces/*", name},
	{"flowcontrol.apiserver.k8s.io/flowschemas", "/spec/rules/*/subjects/*/user/name /spec/rules/*/subjects/*/group/name", account},
},
	selects("networking.k8s.io/networkpolicies", "/spec/ingress/*/from/*/namespaceSelector /spec/egress/*/to/*/namespaceSelector"),
	selects("admissionregistration.k8s.io/validatingwebhookconfigurations admissionregistration.k8s.io/mutatingwebhookconfigurations", "/webhooks/*/namespaceSelector"),
	selects("admissionregistration.k8s.io/validatingadmissionpolicies admissionregistration.k8s.io/mutatingadmissionpolicies", "/spec/matchConstraints/namespaceSelector"),
	selects("admissionregistration.k8s.io/validatingadmissionpolicybindings admissionregistration.k8s.io/mutatingadmissionpolicybindings", "/spec/matchResources/namespaceSelector"),
	podsIn("/pods", ""), podsIn("/podtemplates", "/template"), podsIn(workloads, "/spec/template"), podsIn("batch/cronjobs", "/spec/jobTemplate/spec/template"),
)

// wherePodsTell are the paths at which the kubelet writes why a container of a pod
// waits or has ended.
func wherePodsTell() string {
	var all []string
	for _, containers := range []string{"containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"} {
		for _, state := range []string{"state/waiting", "state/terminated", "lastState/waiting", "lastState/terminated"} {
			all = append(all, "/status/"+containers+"/*/"+state+"/message")
		}
	}
	return strings.Join(all, " ")
}

// selects are the places in selectors of namespaces by labels.
func selects(resources, paths string) (all []place) {
	for at := range strings.FieldsSeq(paths) {
		all = append(all, place{resources, at + "/matchLabels" + nameLabel, name}, place{resources, at + "/matchExpressions/*", expression})
	}
	return all
}

// podsIn are the places in pods, or in templates of pods that lie at a path.
func podsIn(resources, at string) (all []place) {
	for _, affinity := range []string{"podAffinity", "podAntiAffinity"} {
		for _, term := range []string{"/requiredDuringSchedulingIgnoredDuringExecution/*", "/preferredDuringSchedulingIgnoredDuringExecution/*/podAffinityTerm"} {
			at := at + "/spec/affinity/" + affinity + term
			all = append(all, place{resources, at + "/namespaces/*", name})
			all = append(all, selects(resources, at+"/namespaceSelector")...)
		}
	}
	return all
}

// A node is a value of objects in which there are places, or which is one.
type node struct {
	sort  sort
	below map[string]*node
}

// everywhere are the places of resources that have none of their own.
var everywhere, ofResource = compile(places)

func compile(all []place) (*node, map[schema.GroupResource]*node) {
	of := map[schema.GroupResource]*node{}
	common := &node{}
	for _, p := range all {
		for r := range strings.FieldsSeq(p.resources) {
			group, resource, _ := strings.Cut(r, "/")
			of[schema.GroupResource{Group: group, Resource: resource}] = &node{}
		}
		if p.resources == "" {
			common.add(p)
		}
	}
	for r, n := range of {
		for _, p := range all {
			if p.resources == "" || slices.Contains(strings.Fields(p.resources), r.Group+"/"+r.Resource) {
				n.add(p)
			}
		}
	}
	return common, of
}

func (n *node) add(p place) {
	for path := range strings.FieldsSeq(p.paths) {
		at := n
		for step := range strings.SplitSeq(path[1:], "/") {
			step = document.Name(step)
			if at.below == nil {
				at.below = map[string]*node{}
			}
			if at.below[step] == nil {
				at.below[step] = &node{}
			}
			at = at.below[step]
		}
		at.sort = p.sort
	}
}

// placesOf returns those of a resource.
func placesOf(r schema.GroupResource) *node {
	if n, ok := ofResource[r]; ok {
		return n
	}
	return everywhere
}

// at is what lies below n by a name, nil if there is no place in it. The names of
// strategic merges' directives are those of what they are about.
func (n *node) at(name string) *node {
	if directive, about, ok := strings.Cut(name, "/"); ok && strings.HasPrefix(directive, "$") {
		name = about
	}
	if below, ok := n.below[name]; ok {
		return below
	}
	return n.below["*"]
}
