package v1beta1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Config says where and for whom a policy holds, and what happens without a
// backend.
type Config struct {
	// NodeLabelSelector selects nodes by their labels, also when these change.
	// Without it, the policy holds on all nodes.
	//
	// +optional
	NodeLabelSelector *metav1.LabelSelector `json:"nodeLabelSelector,omitempty"`

	// EnableOutCluster lets the policy hold on machines that are no nodes of the
	// cluster too, whatever nodeLabelSelector says.
	//
	// +optional
	// +kubebuilder:default=true
	EnableOutCluster *bool `json:"enableOutCluster,omitempty"`

	// Fallback says what happens where there is no backend: Service, as if there
	// were no policy; Refuse, connections are refused.
	//
	// +optional
	// +kubebuilder:default=Service
	Fallback Fallback `json:"fallback,omitempty"`

	// Clients are those the policy is for. Without it, it is for all processes.
	//
	// +optional
	Clients *Clients `json:"clients,omitempty"`

	// SessionAffinity lets a client keep its backend.
	//
	// +optional
	SessionAffinity *SessionAffinity `json:"sessionAffinity,omitempty"`

	// RedirectBackends lets the policy hold for the backends' own connections too.
	// Without it, a backend that connects to the frontend reaches what is behind
	// it, and not itself.
	//
	// +optional
	RedirectBackends bool `json:"redirectBackends,omitempty"`
}

// Fallback says what happens where a policy has no backend.
//
// +kubebuilder:validation:Enum=Service;Refuse
type Fallback string

// The fallbacks.
const (
	FallbackService Fallback = "Service"
	FallbackRefuse  Fallback = "Refuse"
)

// Clients selects pods on the node. Processes that are in no pod are not among
// them.
type Clients struct {
	// Namespace is where the pods are. Without it they may be in any namespace.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:MinLength=1
	Namespace string `json:"namespace,omitempty"`

	// PodSelector selects pods by their labels. An empty selector selects all.
	PodSelector metav1.LabelSelector `json:"podSelector"`
}

// SessionAffinity lets a client keep its backend, while the backend is there.
type SessionAffinity struct {
	// TimeoutSeconds is how long after its last connection a client still gets
	// the same backend.
	//
	// +optional
	// +kubebuilder:default=10800
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=86400
	TimeoutSeconds int32 `json:"timeoutSeconds,omitempty"`

	// Client says what one client is: NetworkNamespace, which is a pod, or the
	// host with all its processes; or Cgroup, which is a container or a service
	// of the host.
	//
	// +optional
	// +kubebuilder:default=NetworkNamespace
	// +kubebuilder:validation:Enum=NetworkNamespace;Cgroup
	Client AffinityClient `json:"client,omitempty"`
}

// AffinityClient says what one client is.
type AffinityClient string

// The clients.
const (
	ClientNetworkNamespace AffinityClient = "NetworkNamespace"
	ClientCgroup           AffinityClient = "Cgroup"
)

// Frontend is what programs connect to: the addresses of a Service, or an
// address that no Service has.
//
// +kubebuilder:validation:XValidation:rule="has(self.serviceMatcher) != has(self.addressMatcher)",message="give exactly one of serviceMatcher and addressMatcher"
// +kubebuilder:validation:XValidation:rule="!has(self.toPorts) || !has(self.serviceMatcher) || !has(self.serviceMatcher.toPorts)",message="give toPorts beside serviceMatcher or inside it, not both"
// +kubebuilder:validation:XValidation:rule="!has(self.toPorts) || !has(self.addressMatcher) || !has(self.addressMatcher.toPorts)",message="give toPorts beside addressMatcher or inside it, not both"
// +kubebuilder:validation:XValidation:rule="!has(self.addressMatcher) || has(self.toPorts) || has(self.addressMatcher.toPorts)",message="addressMatcher needs toPorts"
type Frontend struct {
	// ServiceMatcher names a Service.
	//
	// +optional
	ServiceMatcher *ServiceMatcher `json:"serviceMatcher,omitempty"`

	// AddressMatcher gives an address.
	//
	// +optional
	AddressMatcher *AddressMatcher `json:"addressMatcher,omitempty"`

	// ToPorts are the ports that the policy concerns. They may be given inside
	// the matcher instead. For a Service, none means all of its ports.
	//
	// +optional
	ToPorts Ports `json:"toPorts,omitempty"`
}

// ServiceMatcher names a Service, whose cluster addresses become frontends.
type ServiceMatcher struct {
	// ServiceName is the Service's name.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	ServiceName string `json:"serviceName"`

	// Namespace is the Service's namespace.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace"`

	// ToPorts are the ports that the policy concerns, if they are not given beside
	// the matcher.
	//
	// +optional
	ToPorts Ports `json:"toPorts,omitempty"`
}

// AddressMatcher gives an address that no Service has.
type AddressMatcher struct {
	// IP is an IPv4 or IPv6 address. Loopback addresses are each pod's own, and
	// addresses of Services are for serviceMatcher.
	//
	// +kubebuilder:validation:MaxLength=45
	// +kubebuilder:validation:XValidation:rule="isIP(self) && !ip(self).isLoopback() && !ip(self).isUnspecified() && !ip(self).isLinkLocalMulticast()",message="give the IP address of another machine or service"
	IP string `json:"ip"`

	// ToPorts are the ports that the policy concerns, if they are not given beside
	// the matcher.
	//
	// +optional
	ToPorts Ports `json:"toPorts,omitempty"`
}

// Ports are paired, frontend and backend, by equal name and protocol; if there is
// one of each, names need not be equal.
//
// +kubebuilder:validation:MinItems=1
// +kubebuilder:validation:MaxItems=32
// +kubebuilder:validation:XValidation:rule="self.size() == 1 || self.all(p, has(p.name))",message="name the ports if there are several"
// +kubebuilder:validation:XValidation:rule="self.all(p, self.exists_one(q, q.protocol == p.protocol && has(q.name) == has(p.name) && (!has(p.name) || q.name == p.name)))",message="ports of the same protocol need different names"
// +listType=atomic
type Ports []Port

// Port is a port and what is spoken there.
type Port struct {
	// Port is the number, from 1 to 65535.
	//
	// +kubebuilder:validation:Pattern=`^([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])$`
	// +kubebuilder:validation:MaxLength=5
	Port string `json:"port"`

	// Protocol is TCP or UDP.
	//
	// +optional
	// +kubebuilder:default=TCP
	// +kubebuilder:validation:Enum=TCP;UDP
	Protocol string `json:"protocol,omitempty"`

	// Name pairs the port with the one of the other side.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name,omitempty"`
}

// PolicyStatus is what the nodes make of a policy.
type PolicyStatus struct {
	// Conditions are Accepted, whether the policy can be kept at all, and
	// Active, whether some node redirects by it.
	//
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// ActiveNodes is how many nodes redirect.
	//
	// +optional
	ActiveNodes int32 `json:"activeNodes,omitempty"`

	// ActiveBackends is how many backends the nodes have, taken together.
	//
	// +optional
	ActiveBackends int32 `json:"activeBackends,omitempty"`

	// Nodes are those where the policy holds.
	//
	// +optional
	// +listType=map
	// +listMapKey=name
	Nodes []NodeStatus `json:"nodes,omitempty"`
}

// NodeStatus is what one node makes of a policy.
type NodeStatus struct {
	// Name is the node's.
	Name string `json:"name"`

	// ObservedGeneration is that of the policy the node has seen.
	//
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// Frontends is how many addresses with their ports are redirected.
	//
	// +optional
	Frontends int32 `json:"frontends,omitempty"`

	// Backends is how many backends they have.
	//
	// +optional
	Backends int32 `json:"backends,omitempty"`

	// Reason is why nothing is redirected, in one word.
	//
	// +optional
	Reason string `json:"reason,omitempty"`
}

// The condition types and their reasons.
const (
	// ConditionAccepted says whether the policy can be kept at all.
	ConditionAccepted = "Accepted"
	// ConditionActive says whether some node redirects by it.
	ConditionActive = "Active"

	ReasonAccepted         = "Accepted"
	ReasonInvalid          = "Invalid"          // it contradicts itself
	ReasonNoService        = "NoService"        // its Service is not there, or has no cluster address
	ReasonNoPort           = "NoPort"           // its Service or backend has no such port
	ReasonAddressOwned     = "AddressOwned"     // its address is a Service's
	ReasonConflict         = "Conflict"         // an older policy has the same frontend
	ReasonRedirecting      = "Redirecting"      // at least one node redirects
	ReasonNoBackend        = "NoBackend"        // nowhere is there a backend
	ReasonNodeNotSelected  = "NodeNotSelected"  // nodeLabelSelector does not select the node
	ReasonOutsideOfCluster = "OutsideOfCluster" // the machine is no node, and the policy is not for those
)
