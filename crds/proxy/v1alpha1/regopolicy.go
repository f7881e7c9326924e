package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// RegoPolicy is a policy in Rego. FilterBindings say for which requests it is
// asked, and for what: one of phase Restrict for its sets deny and warn, one of
// phase Throttle for its set limits, one of phase View for its set selectors.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,path=regopolicies,singular=regopolicy,shortName=rp
// +kubebuilder:printcolumn:name="Compiled",type=string,JSONPath=`.status.conditions[?(@.type=="Compiled")].status`
// +kubebuilder:printcolumn:name="Programmed",type=string,JSONPath=`.status.conditions[?(@.type=="Programmed")].status`
// +kubebuilder:printcolumn:name="Proxies",type=string,JSONPath=`.status.proxies.summary`
// +kubebuilder:printcolumn:name="Evaluated",type=string,JSONPath=`.status.conditions[?(@.type=="Evaluated")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,priority=1,JSONPath=`.status.conditions[?(@.status=="False")].message`
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

// RegoPolicySpec is what a RegoPolicy asks for: a policy that stands in rego, or a
// bundle that source names.
//
// +kubebuilder:validation:XValidation:rule="has(self.rego) != has(self.source)",message="set one of rego and source"
type RegoPolicySpec struct {
	// Rego is the policy: one module, as in a file. What its package calls deny,
	// warn, limits and selectors is asked for.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=262144
	Rego string `json:"rego,omitempty"`

	// Source is where a bundle is: modules, and data that they read, as opa build
	// packs them.
	//
	// +optional
	Source *RegoSource `json:"source,omitempty"`

	// Settings are what the policy reads as data.settings, so that one policy
	// fits several clusters. Their form is the policy's own. They take the place of
	// those that a bundle has.
	//
	// +optional
	// +kubebuilder:pruning:PreserveUnknownFields
	Settings *runtime.RawExtension `json:"settings,omitempty"`

	// Deadline is how long one evaluation may take; 100ms by default.
	//
	// +optional
	Deadline *metav1.Duration `json:"deadline,omitempty"`
}

// RegoSource is where a bundle is. Exactly one of file, url and oci is set.
//
// +kubebuilder:validation:XValidation:rule="[has(self.file), has(self.url), has(self.oci)].filter(set, set).size() == 1",message="set exactly one of file, url and oci"
// +kubebuilder:validation:XValidation:rule="has(self.sha256) || !has(self.url)",message="a bundle from a url needs its sha256"
type RegoSource struct {
	// File is a path on the proxy's machine, read again when it changes. With a
	// sha256, no other file will do.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=4096
	File string `json:"file,omitempty"`

	// URL is an https address.
	//
	// +optional
	// +kubebuilder:validation:Pattern=`^https://`
	// +kubebuilder:validation:MaxLength=2048
	URL string `json:"url,omitempty"`

	// OCI is an image or artifact, pinned by its digest:
	// registry.example.org/policies/lists@sha256:… The bundle is its one layer.
	//
	// +optional
	// +kubebuilder:validation:Pattern=`^[^@]+@sha256:[0-9a-f]{64}$`
	// +kubebuilder:validation:MaxLength=1024
	OCI string `json:"oci,omitempty"`

	// SHA256 is the digest that the bundle must have, as sha256sum prints it.
	//
	// +optional
	// +kubebuilder:validation:Pattern=`^[0-9a-f]{64}$`
	SHA256 string `json:"sha256,omitempty"`

	// Package is the one whose sets are asked for, as in shop.limits. A bundle of
	// only one package need not say which.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Package string `json:"package,omitempty"`

	// SignedBy is who must have signed the bundle; nobody, if it is not set.
	//
	// +optional
	SignedBy *RegoSigner `json:"signedBy,omitempty"`
}

// RegoSigner is known by a key.
type RegoSigner struct {
	// PublicKey is the key in PEM.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=8192
	PublicKey string `json:"publicKey"`

	// Algorithm is how the bundle is signed; RS256 by default, as by opa sign.
	//
	// +optional
	// +kubebuilder:validation:Enum=ES256;ES384;ES512;PS256;PS384;PS512;RS256;RS384;RS512
	Algorithm string `json:"algorithm,omitempty"`
}

// RegoPolicyStatus is how a RegoPolicy fares.
type RegoPolicyStatus struct {
	// Conditions say how the policy fares. Compiled says whether it could be
	// compiled, and if not, in which line and column it is wrong. Evaluated is
	// false once the policy has said something of a request that proxies refuse, such
	// as a limit with a misspelt field.
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
