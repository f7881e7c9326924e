package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// NodePolicy says which nodes are not trusted, and what their kubelets and pods
// may read and write through a proxy: what the node's own pods need, and what is
// listed here. It takes away; what a caller may do is the API server's to say.
//
// Where several policies mean a node, a request must pass all of them.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,path=nodepolicies,singular=nodepolicy,shortName=np
// +kubebuilder:printcolumn:name="Mode",type=string,JSONPath=`.spec.mode`
// +kubebuilder:printcolumn:name="Placement",type=string,JSONPath=`.spec.placement`
// +kubebuilder:printcolumn:name="Accepted",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].status`
// +kubebuilder:printcolumn:name="Programmed",type=string,JSONPath=`.status.conditions[?(@.type=="Programmed")].status`
// +kubebuilder:printcolumn:name="Proxies",type=string,JSONPath=`.status.proxies.summary`
// +kubebuilder:printcolumn:name="Resources",type=string,JSONPath=`.status.conditions[?(@.type=="ResourcesKnown")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,priority=1,JSONPath=`.status.conditions[?(@.status=="False")].message`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type NodePolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec says what is asked for.
	Spec NodePolicySpec `json:"spec"`
	// Status says what has become of it. Proxies write it.
	Status NodePolicyStatus `json:"status,omitempty"`
}

// NodePolicyList is a list of NodePolicies.
//
// +kubebuilder:object:root=true
type NodePolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []NodePolicy `json:"items"`
}

// NodePolicySpec is what a NodePolicy asks for.
type NodePolicySpec struct {
	// Nodes are those that are not trusted.
	Nodes MeantNodes `json:"nodes"`

	// Mode says whether the policy is kept. Audit counts and logs what would be
	// refused, and leaves requests and answers alone.
	//
	// +optional
	// +kubebuilder:default=Enforce
	Mode FilterMode `json:"mode,omitempty"`

	// Placement says where the proxy is that keeps the policy, and with that what
	// becomes of callers whose credential names no node. OnNode: a proxy that runs
	// on such a node (--node-name) takes them for the node's pods. It is a guard
	// rail: who has taken the node over goes around it. Gateway: a proxy that runs
	// elsewhere, without --node-name, stands in front of such nodes and refuses
	// them. It is a boundary if the nodes reach the API server in no other way.
	//
	// +optional
	// +kubebuilder:default=OnNode
	Placement NodePlacement `json:"placement,omitempty"`

	// Reads are objects that exist for the node besides those that its own pods
	// need, such as Services.
	//
	// +optional
	// +kubebuilder:validation:MaxItems=100
	Reads []NodeRead `json:"reads,omitempty"`

	// Masks take fields out of objects that are read.
	//
	// +optional
	// +kubebuilder:validation:MaxItems=100
	Masks []NodeMask `json:"masks,omitempty"`

	// OwnNode is what the node may change of its own Node besides the status.
	//
	// +optional
	OwnNode OwnNodeWrites `json:"ownNode,omitempty"`

	// Writes are those that the node may make besides those that a kubelet must.
	//
	// +optional
	// +kubebuilder:validation:MaxItems=100
	Writes []NodeWrite `json:"writes,omitempty"`

	// Events bound how many events the node may write. Without it, as many as it
	// likes.
	//
	// +optional
	Events *EventBudget `json:"events,omitempty"`

	// MaxList is the most objects that a list of what Reads grants may ask for at
	// once. One that asks for more, or for all, is refused: clients are to ask page
	// by page, or to watch. 0 means no bound. It bounds what is asked for, not what the
	// API server does: a list that memory does not answer and that is seen through
	// masks or other views is asked for whole there, and streams through.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	MaxList int64 `json:"maxList,omitempty"`
}

// MeantNodes says which nodes are meant: those that are named, and those that
// the selector selects.
//
// +kubebuilder:validation:XValidation:rule="has(self.names) || has(self.selector)",message="set names or selector"
type MeantNodes struct {
	// Names are nodes' names.
	//
	// +optional
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=1000
	Names []string `json:"names,omitempty"`

	// Selector selects nodes by their labels; an empty one selects all. A node may
	// change its own labels unless they begin with node-restriction.kubernetes.io/;
	// those that the selector reads are not changed through the proxy.
	//
	// +optional
	Selector *metav1.LabelSelector `json:"selector,omitempty"`
}

// NodePlacement says where the proxy is that keeps a policy.
//
// +kubebuilder:validation:Enum=OnNode;Gateway
type NodePlacement string

// The placements.
const (
	PlacementOnNode  NodePlacement = "OnNode"
	PlacementGateway NodePlacement = "Gateway"
)

// NodeRead grants objects of one resource. An object must fit every list that is
// not empty, and the selector if there is one.
type NodeRead struct {
	// Group is the API group; "" is the core group.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Group string `json:"group,omitempty"`

	// Resource is the resource's plural name.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="!self.matches('^[^/]*[A-Z]')",message="write the plural name, in lower case, as in secrets: it is not the kind that is meant"
	Resource string `json:"resource"`

	// Namespaces are the objects'.
	//
	// +optional
	// +kubebuilder:validation:MaxItems=100
	Namespaces []string `json:"namespaces,omitempty"`

	// Names are the objects'.
	//
	// +optional
	// +kubebuilder:validation:MaxItems=1000
	Names []string `json:"names,omitempty"`

	// Selector selects objects by their labels.
	//
	// +optional
	Selector *metav1.LabelSelector `json:"selector,omitempty"`
}

// NodeMask takes fields out of the objects of one resource. Callers who see them
// without those fields may not change them, as they would lose what they do not see.
//
// +kubebuilder:validation:XValidation:rule="has(self.fields) != (has(self.metadataOnly) && self.metadataOnly)",message="set either fields or metadataOnly"
type NodeMask struct {
	// Group is the API group; "" is the core group.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Group string `json:"group,omitempty"`

	// Resource is the resource's plural name.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="!self.matches('^[^/]*[A-Z]')",message="write the plural name, in lower case, as in secrets: it is not the kind that is meant"
	Resource string `json:"resource"`

	// Fields are taken out: JSON pointers, in which * stands for every element or
	// member, as in /spec/containers/*/env.
	//
	// +optional
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=100
	// +kubebuilder:validation:items:MaxLength=1024
	// +kubebuilder:validation:items:Pattern=`^(/[^/]+)+$`
	// +kubebuilder:validation:XValidation:rule="self.all(f, !f.startsWith('/*') && !(f in ['/kind', '/apiVersion', '/metadata', '/metadata/*', '/metadata/name', '/metadata/namespace', '/metadata/uid', '/metadata/resourceVersion']))",message="clients need kind, apiVersion and the name, namespace, uid and resourceVersion of every object"
	Fields []string `json:"fields,omitempty"`

	// MetadataOnly leaves nothing but the metadata.
	//
	// +optional
	MetadataOnly bool `json:"metadataOnly,omitempty"`

	// Callers are those whose reads are masked; without any, all of the node's.
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=2
	Callers []NodeCaller `json:"callers,omitempty"`
}

// NodeCaller is a kind of caller of a node: its kubelet, or its pods, by which
// all others are meant as well.
//
// +kubebuilder:validation:Enum=Kubelet;Pods
type NodeCaller string

// The kinds of callers.
const (
	CallerKubelet NodeCaller = "Kubelet"
	CallerPods    NodeCaller = "Pods"
)

// OwnNodeWrites is what a node may change of its own Node besides the status.
type OwnNodeWrites struct {
	// LabelPrefixes are what labels begin with that it may set and remove.
	//
	// +optional
	// +kubebuilder:validation:MaxItems=100
	// +kubebuilder:validation:items:MinLength=1
	LabelPrefixes []string `json:"labelPrefixes,omitempty"`

	// AnnotationPrefixes are what annotations begin with that it may set and remove.
	//
	// +optional
	// +kubebuilder:validation:MaxItems=100
	// +kubebuilder:validation:items:MinLength=1
	AnnotationPrefixes []string `json:"annotationPrefixes,omitempty"`
}

// NodeWrite allows writes of one resource. A request must fit every list that is
// not empty.
type NodeWrite struct {
	// Group is the API group; "" is the core group.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Group string `json:"group,omitempty"`

	// Resource is the plural name, as in leases, or with a subresource, as in
	// deployments/scale. Nothing allows exec, attach, portforward and proxy.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="!self.matches('^[^/]*[A-Z]')",message="write the plural name, in lower case, as in secrets: it is not the kind that is meant"
	Resource string `json:"resource"`

	// Verbs are the API's.
	//
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=5
	// +kubebuilder:validation:items:Enum=create;update;patch;delete;deletecollection
	Verbs []string `json:"verbs"`

	// Namespaces are the objects'.
	//
	// +optional
	// +kubebuilder:validation:MaxItems=100
	Namespaces []string `json:"namespaces,omitempty"`

	// Names are the objects'. Requests that name none in their path, as those that
	// create, do not fit.
	//
	// +optional
	// +kubebuilder:validation:MaxItems=1000
	Names []string `json:"names,omitempty"`
}

// EventBudget bounds how many events a node may write. Who has none left gets 429.
//
// +kubebuilder:validation:XValidation:rule="has(self.perObject) || has(self.perNode)",message="set perObject or perNode"
type EventBudget struct {
	// PerObject is for each object that events are about.
	//
	// +optional
	PerObject *EventRate `json:"perObject,omitempty"`

	// PerNode is for all of the node's callers together.
	//
	// +optional
	PerNode *EventRate `json:"perNode,omitempty"`
}

// EventRate is how many events there may be.
type EventRate struct {
	// PerMinute is how many there may be in the long run.
	//
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100000
	PerMinute int32 `json:"perMinute"`

	// Burst is how many there may be at once.
	//
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100000
	Burst int32 `json:"burst"`
}

// NodePolicyStatus is how a NodePolicy fares.
type NodePolicyStatus struct {
	// Conditions say how the policy fares. Accepted says whether proxies understood
	// it, and if not, which field is to blame. Programmed says whether a proxy has
	// put it in force. One proxy writes for all of them. ResourcesKnown says
	// whether the API server has the resources that it names; what it says of
	// others has no effect.
	//
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// Proxies says on how many proxies it is in force.
	//
	// +optional
	Proxies *PolicyProxies `json:"proxies,omitempty"`
}
