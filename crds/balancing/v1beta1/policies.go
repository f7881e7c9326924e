package v1beta1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// LocalRedirectPolicy draws connections to an address to pods on the same node.
// Where there is no such pod, or none that answers, connections go where they
// would have gone without the policy.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,path=localredirectpolicies,singular=localredirectpolicy,shortName=lr
// +kubebuilder:printcolumn:name="Service",type=string,JSONPath=`.spec.frontend.serviceMatcher.serviceName`
// +kubebuilder:printcolumn:name="Address",type=string,JSONPath=`.spec.frontend.addressMatcher.ip`
// +kubebuilder:printcolumn:name="Accepted",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].status`
// +kubebuilder:printcolumn:name="Active",type=string,JSONPath=`.status.conditions[?(@.type=="Active")].status`
// +kubebuilder:printcolumn:name="Nodes",type=integer,JSONPath=`.status.activeNodes`
// +kubebuilder:printcolumn:name="Backends",type=integer,JSONPath=`.status.activeBackends`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type LocalRedirectPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   LocalRedirectSpec `json:"spec"`
	Status PolicyStatus      `json:"status,omitempty"`
}

// LocalRedirectPolicyList is a list of LocalRedirectPolicies.
//
// +kubebuilder:object:root=true
type LocalRedirectPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []LocalRedirectPolicy `json:"items"`
}

// LocalRedirectSpec is what a LocalRedirectPolicy asks for.
type LocalRedirectSpec struct {
	// Config says where and for whom the policy holds. Without it, it holds
	// everywhere and for everybody.
	//
	// +optional
	Config *Config `json:"config,omitempty"`

	// Frontend is the address that programs connect to.
	Frontend Frontend `json:"frontend"`

	// Backend selects the pods that get the connections.
	Backend LocalBackend `json:"backend"`
}

// LocalBackend selects pods on the node where a connection begins.
type LocalBackend struct {
	// EndpointSelector selects pods by their labels. They must be ready, and
	// answer when the node probes them. An empty selector selects no pods.
	EndpointSelector metav1.LabelSelector `json:"endpointSelector"`

	// Namespace is where the pods are. Without it they may be in any namespace,
	// so that whoever may create pods anywhere can take part in the policy.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:MinLength=1
	Namespace string `json:"namespace,omitempty"`

	// ToPorts are the pods' ports.
	ToPorts Ports `json:"toPorts"`
}

// BalancingPolicy draws connections to an address to backends of your choice, in
// the cluster or outside.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,path=balancingpolicies,singular=balancingpolicy,shortName=bl
// +kubebuilder:printcolumn:name="Service",type=string,JSONPath=`.spec.frontend.serviceMatcher.serviceName`
// +kubebuilder:printcolumn:name="Address",type=string,JSONPath=`.spec.frontend.addressMatcher.ip`
// +kubebuilder:printcolumn:name="Mode",type=string,JSONPath=`.spec.backend.serviceEndpoint.redirectMode`
// +kubebuilder:printcolumn:name="Accepted",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].status`
// +kubebuilder:printcolumn:name="Active",type=string,JSONPath=`.status.conditions[?(@.type=="Active")].status`
// +kubebuilder:printcolumn:name="Nodes",type=integer,JSONPath=`.status.activeNodes`
// +kubebuilder:printcolumn:name="Backends",type=integer,JSONPath=`.status.activeBackends`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type BalancingPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   BalancingSpec `json:"spec"`
	Status PolicyStatus  `json:"status,omitempty"`
}

// BalancingPolicyList is a list of BalancingPolicies.
//
// +kubebuilder:object:root=true
type BalancingPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []BalancingPolicy `json:"items"`
}

// BalancingSpec is what a BalancingPolicy asks for.
type BalancingSpec struct {
	// Config says where and for whom the policy holds. Without it, it holds
	// everywhere and for everybody.
	//
	// +optional
	Config *Config `json:"config,omitempty"`

	// Frontend is the address that programs connect to.
	Frontend Frontend `json:"frontend"`

	// Backend says who gets the connections.
	Backend BalancingBackend `json:"backend"`
}

// BalancingBackend is either pods or addresses.
//
// +kubebuilder:validation:XValidation:rule="has(self.serviceEndpoint) != has(self.addressEndpoint)",message="give exactly one of serviceEndpoint and addressEndpoint"
type BalancingBackend struct {
	// ServiceEndpoint selects pods.
	//
	// +optional
	ServiceEndpoint *ServiceEndpoint `json:"serviceEndpoint,omitempty"`

	// AddressEndpoint lists addresses.
	//
	// +optional
	AddressEndpoint *AddressEndpoint `json:"addressEndpoint,omitempty"`
}

// RedirectMode says by which address a pod gets a connection.
//
// +kubebuilder:validation:Enum=podEndpoint;hostPort;nodeProxy
type RedirectMode string

// The modes.
const (
	// PodEndpoint is the pod's own address.
	PodEndpoint RedirectMode = "podEndpoint"
	// HostPort is an internal address of the pod's node.
	HostPort RedirectMode = "hostPort"
	// NodeProxy is the address that the pod's node is annotated with
	// (balancing.elf.io/nodeProxyIpv4 and nodeProxyIpv6), behind which somebody
	// forwards connections.
	NodeProxy RedirectMode = "nodeProxy"
)

// Annotations of a Node for [NodeProxy].
const (
	NodeProxyIPv4 = "balancing.elf.io/nodeProxyIpv4"
	NodeProxyIPv6 = "balancing.elf.io/nodeProxyIpv6"
)

// ServiceEndpoint selects pods of the whole cluster.
type ServiceEndpoint struct {
	// EndpointSelector selects pods by their labels. They must be ready. An
	// empty selector selects no pods.
	EndpointSelector metav1.LabelSelector `json:"endpointSelector"`

	// Namespace is where the pods are. Without it they may be in any namespace.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:MinLength=1
	Namespace string `json:"namespace,omitempty"`

	// RedirectMode says by which address a pod gets a connection: podEndpoint, its
	// own; hostPort, its node's; nodeProxy, the one its node is annotated with.
	//
	// +optional
	// +kubebuilder:default=podEndpoint
	RedirectMode RedirectMode `json:"redirectMode,omitempty"`

	// ToPorts are the ports at that address.
	ToPorts Ports `json:"toPorts"`
}

// AddressEndpoint lists addresses, which need not be in the cluster.
type AddressEndpoint struct {
	// Addresses are IPv4 and IPv6 addresses. A connection goes to one of its own
	// family.
	//
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=45
	// +kubebuilder:validation:XValidation:rule="self.all(a, isIP(a))",message="give IP addresses"
	// +listType=set
	Addresses []string `json:"addresses"`

	// ToPorts are the ports at each address.
	ToPorts Ports `json:"toPorts"`

	// Probe lets each node try the addresses, and leave out those that do not
	// answer. Without it, nobody looks whether they do.
	//
	// +optional
	Probe bool `json:"probe,omitempty"`
}
