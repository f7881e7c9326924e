package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// CachePolicy says which resources proxies keep in memory, and how new a read
// that is answered from there must be.
//
// Without any policy every resource may be kept but Secrets, ConfigMaps, Leases
// and Events, and every read is as new as one that the API server answers.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,path=cachepolicies,singular=cachepolicy,shortName=cp
// +kubebuilder:printcolumn:name="Memory",type=string,JSONPath=`.spec.memory`
// +kubebuilder:printcolumn:name="Reads",type=string,JSONPath=`.spec.reads`
// +kubebuilder:printcolumn:name="Accepted",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].status`
// +kubebuilder:printcolumn:name="Programmed",type=string,JSONPath=`.status.conditions[?(@.type=="Programmed")].status`
// +kubebuilder:printcolumn:name="Proxies",type=string,JSONPath=`.status.proxies.summary`
// +kubebuilder:printcolumn:name="Resources",type=string,JSONPath=`.status.conditions[?(@.type=="ResourcesKnown")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,priority=1,JSONPath=`.status.conditions[?(@.status=="False")].message`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type CachePolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec says what is asked for.
	Spec CachePolicySpec `json:"spec"`
	// Status says what has become of it. Proxies write it.
	Status CachePolicyStatus `json:"status,omitempty"`
}

// CachePolicyList is a list of CachePolicies.
//
// +kubebuilder:object:root=true
type CachePolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []CachePolicy `json:"items"`
}

// CachePolicySpec is what a CachePolicy asks for.
//
// +kubebuilder:validation:XValidation:rule="self.memory != 'Refuse' || self.reads == 'Linearizable'",message="resources that are refused have no session reads"
// +kubebuilder:validation:XValidation:rule="self.memory != 'Refuse' || !has(self.staleIfError)",message="resources that are refused are not in memory to be stale"
// +kubebuilder:validation:XValidation:rule="!has(self.callers) || self.reads == 'Session'",message="callers are those who get session reads; set reads to Session"
type CachePolicySpec struct {
	// Resources are those that the policy is about.
	//
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=100
	Resources []CachedResource `json:"resources"`

	// Memory says whether the resources may be kept in memory. Parts keeps what
	// is asked for of single namespaces, of single names and, of pods, of single
	// nodes, and never a whole collection. Refuse wins over Parts, and Parts over Keep, where
	// several policies speak of one resource. Secrets, ConfigMaps,
	// Leases and Events are kept only if a policy names them; "*" does not.
	//
	// +optional
	// +kubebuilder:default=Keep
	Memory MemoryMode `json:"memory,omitempty"`

	// Reads says how new a read must be. Linearizable reads show every write
	// that was made before, by anybody, as the API server's own do. Session
	// reads cost the API server nothing and show every write that was made
	// through the same proxy.
	//
	// +optional
	// +kubebuilder:default=Linearizable
	Reads ReadMode `json:"reads,omitempty"`

	// StaleIfError lets reads of single objects and lists be answered from memory
	// while the API server cannot be reached, or fails of itself, as long as it
	// proved what is in memory current no longer ago than this; at most an hour.
	// Such answers carry a Warning, and are never older than what the caller asks
	// for or what was written through the proxy. For as long, who could be
	// identified and was allowed the same before is taken to be so still: that a
	// token or a right was withdrawn meanwhile is not noticed. Without it such
	// reads fail. Of several policies the shortest holds.
	//
	// +optional
	// +kubebuilder:validation:XValidation:rule="duration(self) > duration('0s') && duration(self) <= duration('1h')",message="must be more than 0 and at most 1h"
	StaleIfError *metav1.Duration `json:"staleIfError,omitempty"`

	// Callers are those who get session reads. Without any, everybody does.
	//
	// +optional
	// +kubebuilder:validation:MaxItems=100
	Callers []Caller `json:"callers,omitempty"`
}

// MemoryMode says whether a resource may be kept in memory.
//
// +kubebuilder:validation:Enum=Keep;Parts;Refuse
type MemoryMode string

// The memory modes.
const (
	MemoryKeep   MemoryMode = "Keep"
	MemoryParts  MemoryMode = "Parts"
	MemoryRefuse MemoryMode = "Refuse"
)

// ReadMode says how new a read must be.
//
// +kubebuilder:validation:Enum=Linearizable;Session
type ReadMode string

// The read modes.
const (
	ReadsLinearizable ReadMode = "Linearizable"
	ReadsSession      ReadMode = "Session"
)

// CachedResource names a resource, in all its versions.
type CachedResource struct {
	// Group is the API group; "" is the core group.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Group string `json:"group,omitempty"`

	// Resource is the resource's plural name, or "*" for all of the group.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="!self.matches('^[^/]*[A-Z]')",message="write the plural name, in lower case, as in secrets: it is not the kind that is meant"
	Resource string `json:"resource"`
}

// Caller is somebody who calls the proxy.
type Caller struct {
	// Kind is what Name names.
	Kind CallerKind `json:"kind"`

	// Name is a user's or group's name as the API server knows it
	// ("system:serviceaccount:shop:web" is a user, "system:serviceaccounts:shop"
	// a group).
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	Name string `json:"name"`
}

// CallerKind says what a caller's name names.
//
// +kubebuilder:validation:Enum=User;Group
type CallerKind string

// The kinds of callers.
const (
	CallerUser  CallerKind = "User"
	CallerGroup CallerKind = "Group"
)

// CachePolicyStatus is how a CachePolicy fares.
type CachePolicyStatus struct {
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
