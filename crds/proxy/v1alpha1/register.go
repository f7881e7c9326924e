// Package v1alpha1 holds proxy.elf.io/v1alpha1: what operators ask of the proxy.
// +kubebuilder:object:generate=true
// +groupName=proxy.elf.io
package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion is the group and version of this package's kinds.
var GroupVersion = schema.GroupVersion{Group: "proxy.elf.io", Version: "v1alpha1"}

// AddToScheme makes this package's kinds known to scheme.
func AddToScheme(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(GroupVersion,
		&CachePolicy{}, &CachePolicyList{},
		&WasmFilter{}, &WasmFilterList{},
		&FilterBinding{}, &FilterBindingList{},
		&RegoPolicy{}, &RegoPolicyList{},
		&NodePolicy{}, &NodePolicyList{},
		&VirtualView{}, &VirtualViewList{},
	)
	metav1.AddToGroupVersion(scheme, GroupVersion)
	return nil
}
