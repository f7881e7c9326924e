package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// RegoPolicy is a policy in Rego. FilterBindings say for which requests it is
// asked, and for what: one of phase Restrict for its sets deny and warn, one of
// phase Throttle for its set limits.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,path=regopolicies,singular=regopolicy,shortName=rp
// +kubebuilder:printcolumn:name="Compiled",type=string,JSONPath=`.status.conditions[?(@.type=="Compiled")].status`
// +kubebuilder:printcolumn:name="Programmed",type=string,JSONPath=`.status.conditions[?(@.type=="Programmed")].status`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Compiled")].message`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type RegoPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   RegoPolicySpec   `json:"spec"`
	Status RegoPolicyStatus `json:"status,omitempty"`
}

// RegoPolicyList is a list of RegoPolicies.
//
// +kubebuilder:object:root=true
type RegoPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []RegoPolicy `json:"items"`
}

// RegoPolicySpec is what a RegoPolicy asks for.
type RegoPolicySpec struct {
	// Rego is the policy: one module, as in a file. What its package calls deny,
	// warn and limits is asked for.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=262144
	Rego string `json:"rego"`

	// Settings are what the policy reads as data.settings, so that one policy
	// fits several clusters. Their form is the policy's own.
	//
	// +optional
	// +kubebuilder:pruning:PreserveUnknownFields
	Settings *runtime.RawExtension `json:"settings,omitempty"`

	// Deadline is how long one evaluation may take; 100ms by default.
	//
	// +optional
	Deadline *metav1.Duration `json:"deadline,omitempty"`
}

// RegoPolicyStatus is how a RegoPolicy fares.
type RegoPolicyStatus struct {
	// Conditions say how the policy fares. Compiled says whether it could be
	// compiled, and if not, in which line and column it is wrong.
	//
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}
