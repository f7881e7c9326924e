package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Proxy tells of one running proxy, which makes it, keeps it and takes it away
// itself, and of what it has put in force. Nobody else writes it.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,path=proxies,singular=proxy,shortName=px
// +kubebuilder:printcolumn:name="Version",type=string,JSONPath=`.status.version`
// +kubebuilder:printcolumn:name="InForce",type=integer,JSONPath=`.status.inForce`
// +kubebuilder:printcolumn:name="Policies",type=integer,JSONPath=`.status.policies`
// +kubebuilder:printcolumn:name="Refused",type=string,priority=1,JSONPath=`.status.refused[*].name`
// +kubebuilder:printcolumn:name="Seen",type=date,JSONPath=`.status.renewTime`
type Proxy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Status is how the proxy fares.
	Status ProxyStatus `json:"status,omitempty"`
}

// ProxyStatus is how a proxy fares.
type ProxyStatus struct {
	// Version is the proxy's.
	//
	// +optional
	Version string `json:"version,omitempty"`

	// RenewTime is when the proxy has last told of itself, which it does every five
	// minutes, by its own clock. One that has not for a quarter of an hour is gone.
	//
	// +optional
	RenewTime metav1.Time `json:"renewTime,omitempty"`

	// Policies is how many of the API's policies it knows, and InForce how many of
	// them are in force as they are now.
	//
	// +optional
	Policies int32 `json:"policies,omitempty"`
	// +optional
	InForce int32 `json:"inForce,omitempty"`

	// Refused are policies that are not in force, and why: the first twenty.
	//
	// +optional
	// +kubebuilder:validation:MaxItems=20
	Refused []RefusedPolicy `json:"refused,omitempty"`

	// Digests are four bytes of each policy that is in force, and RefusedDigests of
	// each that is not. Proxies count by them on how many of them a policy is.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=32768
	Digests []byte `json:"digests,omitempty"`
	// +optional
	// +kubebuilder:validation:MaxLength=32768
	RefusedDigests []byte `json:"refusedDigests,omitempty"`
}

// RefusedPolicy is a policy that a proxy has not put in force.
type RefusedPolicy struct {
	// Resource is what it is, by its plural name.
	Resource string `json:"resource"`
	// Name is the policy's.
	Name string `json:"name"`
	// Message says why it is not in force.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=512
	Message string `json:"message,omitempty"`
}

// PolicyProxies says on how many proxies a policy is in force. Of proxies whose
// identity may not tell of themselves, it does not know.
type PolicyProxies struct {
	// Summary is how many of how many, as in 3/4.
	//
	// +optional
	Summary string `json:"summary,omitempty"`

	// ObservedGeneration is the policy's that was counted.
	//
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// InForce is how many proxies have put this generation in force, Refused how
	// many could not, and Total how many there are. The others have not heard of it
	// yet.
	//
	// +optional
	InForce int32 `json:"inForce,omitempty"`
	// +optional
	Refused int32 `json:"refused,omitempty"`
	// +optional
	Total int32 `json:"total,omitempty"`

	// Time is when they were counted.
	//
	// +optional
	Time metav1.Time `json:"time,omitempty"`
}
