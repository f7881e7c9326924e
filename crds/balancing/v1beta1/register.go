// Package v1beta1 holds balancing.elf.io/v1beta1: which connections operators
// want drawn to other backends than their Service would choose.
// +kubebuilder:object:generate=true
// +groupName=balancing.elf.io
package v1beta1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion is the group and version of this package's kinds.
var GroupVersion = schema.GroupVersion{Group: "balancing.elf.io", Version: "v1beta1"}

// AddToScheme makes this package's kinds known to scheme.
func AddToScheme(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(GroupVersion,
		&LocalRedirectPolicy{}, &LocalRedirectPolicyList{},
		&BalancingPolicy{}, &BalancingPolicyList{},
	)
	metav1.AddToGroupVersion(scheme, GroupVersion)
	return nil
}
