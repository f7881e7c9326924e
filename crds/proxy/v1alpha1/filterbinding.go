package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// FilterBinding says for which requests a filter runs, and what becomes of them
// if it fails.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,path=filterbindings,singular=filterbinding,shortName=fb
// +kubebuilder:printcolumn:name="Filter",type=string,JSONPath=`.spec.filterRef.name`
// +kubebuilder:printcolumn:name="Phase",type=string,JSONPath=`.spec.phase`
// +kubebuilder:printcolumn:name="Priority",type=integer,JSONPath=`.spec.priority`
// +kubebuilder:printcolumn:name="Mode",type=string,JSONPath=`.spec.mode`
// +kubebuilder:printcolumn:name="Accepted",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].status`
// +kubebuilder:printcolumn:name="Programmed",type=string,JSONPath=`.status.conditions[?(@.type=="Programmed")].status`
// +kubebuilder:printcolumn:name="Proxies",type=string,JSONPath=`.status.proxies.summary`
// +kubebuilder:printcolumn:name="Resources",type=string,JSONPath=`.status.conditions[?(@.type=="ResourcesKnown")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,priority=1,JSONPath=`.status.conditions[?(@.status=="False")].message`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type FilterBinding struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec says what is asked for.
	Spec FilterBindingSpec `json:"spec"`
	// Status says what has become of it. Proxies write it.
	Status FilterBindingStatus `json:"status,omitempty"`
}

// FilterBindingList is a list of FilterBindings.
//
// +kubebuilder:object:root=true
type FilterBindingList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []FilterBinding `json:"items"`
}

// FilterBindingSpec is what a FilterBinding asks for.
//
// +kubebuilder:validation:XValidation:rule="self.phase != 'Throttle' || self.filterRef.kind == 'RegoPolicy'",message="only a RegoPolicy can throttle"
// +kubebuilder:validation:XValidation:rule="self.phase != 'View' || self.filterRef.kind != 'RegoPolicy' || (has(self.match) && ((has(self.match.users) && self.match.users.size() > 0) || (has(self.match.groups) && self.match.groups.size() > 0)))",message="where a RegoPolicy says what exists, match says for whom: name users or groups"
// +kubebuilder:validation:XValidation:rule="self.phase != 'View' || self.filterRef.kind != 'RegoPolicy' || !has(self.match) || !(has(self.match.userAgents) || has(self.match.verbs) || has(self.match.resources) || has(self.match.namespaces))",message="what exists for a caller is the same in all that he asks for: match users and groups only, and have the policy's selectors name resources and namespaces"
type FilterBindingSpec struct {
	// FilterRef names the filter that runs.
	FilterRef FilterRef `json:"filterRef"`

	// Phase is when it runs. Restrict is before anything else is done for the
	// request: it may be refused, or the object that it carries changed. Throttle
	// comes after it, and says to what limits the request is kept; only a
	// RegoPolicy can. View says what exists for the caller. A RegoPolicy is asked
	// about the caller, and its selectors hold as a VirtualView does; match may then
	// have users and groups and nothing else. A WasmFilter is asked about each object
	// in the answer, knows the caller and the resource and nothing else of the
	// request, and may have no capabilities.
	//
	// +optional
	// +kubebuilder:default=Restrict
	Phase FilterPhase `json:"phase,omitempty"`

	// Priority orders the filters of one kind in a phase: the highest runs first,
	// and of equals the one whose binding's name comes first.
	//
	// +optional
	Priority int32 `json:"priority,omitempty"`

	// Match says for which requests it runs. Empty means for all.
	//
	// +optional
	Match RequestMatch `json:"match,omitempty"`

	// FailurePolicy is what becomes of a request if the filter fails. Fail
	// refuses it, Ignore passes it on as if the filter were not there. Where it
	// is not set, Restrict and View fail and Throttle ignores. Fail in View
	// ends the answer: an object is never left out because a filter failed.
	//
	// +optional
	FailurePolicy FailurePolicy `json:"failurePolicy,omitempty"`

	// Mode says whether what the filter decides is done. Audit runs it, counts
	// and logs what it decides, and leaves the request alone.
	//
	// +optional
	// +kubebuilder:default=Enforce
	Mode FilterMode `json:"mode,omitempty"`
}

// FilterRef names a filter.
type FilterRef struct {
	// Kind is the filter's.
	Kind FilterKind `json:"kind"`

	// Name is the filter's.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
}

// FilterKind is a kind of filter.
//
// +kubebuilder:validation:Enum=WasmFilter;RegoPolicy
type FilterKind string

// The kinds of filters.
const (
	FilterKindWasm FilterKind = "WasmFilter"
	FilterKindRego FilterKind = "RegoPolicy"
)

// FilterPhase is when a filter runs.
//
// +kubebuilder:validation:Enum=Restrict;Throttle;View
type FilterPhase string

// The phases.
const (
	// PhaseRestrict is before anything else is done for a request.
	PhaseRestrict FilterPhase = "Restrict"
	// PhaseThrottle says to what limits a request is kept.
	PhaseThrottle FilterPhase = "Throttle"
	// PhaseView says what of each object in an answer exists for the caller.
	PhaseView FilterPhase = "View"
)

// FailurePolicy is what becomes of a request if a filter fails.
//
// +kubebuilder:validation:Enum=Fail;Ignore
type FailurePolicy string

// The failure policies.
const (
	FailurePolicyFail   FailurePolicy = "Fail"
	FailurePolicyIgnore FailurePolicy = "Ignore"
)

// FilterMode says whether what a filter decides is done.
//
// +kubebuilder:validation:Enum=Enforce;Audit
type FilterMode string

// The modes.
const (
	ModeEnforce FilterMode = "Enforce"
	ModeAudit   FilterMode = "Audit"
)

// RequestMatch says which requests are meant. A request must fit every list
// that is not empty, and fits a list if it fits one of its entries. Users
// and groups together are one list.
type RequestMatch struct {
	// Users are callers' names as the API server knows them. A * at the end
	// stands for anything: system:serviceaccount:shop:* is all of a namespace.
	//
	// +optional
	// +kubebuilder:validation:MaxItems=100
	Users []string `json:"users,omitempty"`

	// Groups are groups of callers.
	//
	// +optional
	// +kubebuilder:validation:MaxItems=100
	Groups []string `json:"groups,omitempty"`

	// UserAgents are what clients call themselves. A * at the end stands for
	// anything. Any client can call itself anything: use it for guard rails.
	//
	// +optional
	// +kubebuilder:validation:MaxItems=100
	UserAgents []string `json:"userAgents,omitempty"`

	// Verbs are the API's: get, list, watch, create, update, patch, delete,
	// deletecollection, proxy; or * for all. Requests that are about no resource
	// have their method's: get, head, post, put, patch, delete, options.
	//
	// +optional
	// +kubebuilder:validation:MaxItems=20
	// +kubebuilder:validation:items:Enum=get;list;watch;create;update;patch;delete;deletecollection;proxy;head;post;put;options;*
	Verbs []string `json:"verbs,omitempty"`

	// Resources are what the request is about. Requests that are about no
	// resource fit only an empty list.
	//
	// +optional
	// +kubebuilder:validation:MaxItems=100
	Resources []MatchedResource `json:"resources,omitempty"`

	// Namespaces are the namespaces of the objects. Requests for cluster-scoped
	// resources and for all namespaces fit only an empty list.
	//
	// +optional
	// +kubebuilder:validation:MaxItems=100
	Namespaces []string `json:"namespaces,omitempty"`
}

// MatchedResource names a resource, in all its versions.
type MatchedResource struct {
	// Group is the API group; "" is the core group and "*" is all groups.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Group string `json:"group,omitempty"`

	// Resource is the plural name, as in pods; with a subresource, as in
	// pods/exec; or * for all, and pods/* for a resource with all it has.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="!self.matches('^[^/]*[A-Z]')",message="write the plural name, in lower case, as in secrets: it is not the kind that is meant"
	Resource string `json:"resource"`
}

// FilterBindingStatus is how a FilterBinding fares.
type FilterBindingStatus struct {
	// Conditions say how the binding fares. Accepted says whether proxies
	// understood it, and Programmed whether it is in force and its filter runs.
	// ResourcesKnown says whether the API server has the resources that it names;
	// what it says of others has no effect.
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
