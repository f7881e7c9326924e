package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// WasmFilter is a WebAssembly module that proxies may run, with its
// configuration and its limits. FilterBindings say for which requests it runs.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,path=wasmfilters,singular=wasmfilter,shortName=wf
// +kubebuilder:printcolumn:name="Accepted",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].status`
// +kubebuilder:printcolumn:name="Compiled",type=string,JSONPath=`.status.conditions[?(@.type=="Compiled")].status`
// +kubebuilder:printcolumn:name="Programmed",type=string,JSONPath=`.status.conditions[?(@.type=="Programmed")].status`
// +kubebuilder:printcolumn:name="Proxies",type=string,JSONPath=`.status.proxies.summary`
// +kubebuilder:printcolumn:name="Reason",type=string,priority=1,JSONPath=`.status.conditions[?(@.status=="False")].message`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type WasmFilter struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec says what is asked for.
	Spec WasmFilterSpec `json:"spec"`
	// Status says what has become of it. Proxies write it.
	Status WasmFilterStatus `json:"status,omitempty"`
}

// WasmFilterList is a list of WasmFilters.
//
// +kubebuilder:object:root=true
type WasmFilterList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []WasmFilter `json:"items"`
}

// WasmFilterSpec is what a WasmFilter asks for.
//
// +kubebuilder:validation:XValidation:rule="!has(self.abi) || self.abi != 'HTTPWasmV1' || !has(self.capabilities) || size(self.capabilities) == 0",message="a module of HTTPWasmV1 cannot be granted capabilities"
// +kubebuilder:validation:XValidation:rule="(has(self.capabilities) && 'lookup' in self.capabilities) == (has(self.contextResources) && size(self.contextResources) > 0)",message="the capability lookup and contextResources need each other"
type WasmFilterSpec struct {
	// Source is where the module is.
	Source WasmSource `json:"source"`

	// ABI is what the module and the proxy say to each other: PorticoV1, by
	// default, or HTTPWasmV1, which is http_handler of http-wasm.io.
	//
	// +optional
	ABI WasmABI `json:"abi,omitempty"`

	// Config is handed to the module as JSON. Its form is the module's own.
	//
	// +optional
	// +kubebuilder:pruning:PreserveUnknownFields
	Config *runtime.RawExtension `json:"config,omitempty"`

	// Capabilities are what the module may do besides looking at requests. A
	// module that asks for one that is not granted is refused.
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=8
	Capabilities []WasmCapability `json:"capabilities,omitempty"`

	// ContextResources are what the module may look up by the capability lookup.
	// Each proxy that runs the module keeps all their objects in memory, so its
	// identity must be allowed to list and watch them.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	ContextResources []ContextResource `json:"contextResources,omitempty"`

	// Limits bound what the module may use.
	//
	// +optional
	Limits WasmLimits `json:"limits,omitempty"`
}

// WasmABI is what a module and the proxy say to each other. PorticoV1 knows
// requests and objects of Kubernetes; HTTPWasmV1 knows HTTP alone.
//
// +kubebuilder:validation:Enum=PorticoV1;HTTPWasmV1
type WasmABI string

// The ABIs.
const (
	WasmPorticoV1  WasmABI = "PorticoV1"
	WasmHTTPWasmV1 WasmABI = "HTTPWasmV1"
)

// WasmSource is where a module is. Exactly one of file, url, oci, configMap and
// inline is set.
//
// +kubebuilder:validation:XValidation:rule="[has(self.file), has(self.url), has(self.oci), has(self.configMap), has(self.inline)].filter(set, set).size() == 1",message="set exactly one of file, url, oci, configMap and inline"
// +kubebuilder:validation:XValidation:rule="has(self.sha256) || (!has(self.url) && !has(self.configMap))",message="a module from a url or a configMap needs its sha256"
type WasmSource struct {
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
	// registry.example.org/filters/labels@sha256:… The module is its one layer.
	//
	// +optional
	// +kubebuilder:validation:Pattern=`^[^@]+@sha256:[0-9a-f]{64}$`
	// +kubebuilder:validation:MaxLength=1024
	OCI string `json:"oci,omitempty"`

	// ConfigMap holds the module in its binaryData.
	//
	// +optional
	ConfigMap *WasmConfigMap `json:"configMap,omitempty"`

	// Inline is the module itself, in base64.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1300000
	Inline string `json:"inline,omitempty"`

	// SHA256 is the digest that the module must have, as sha256sum prints it.
	//
	// +optional
	// +kubebuilder:validation:Pattern=`^[0-9a-f]{64}$`
	SHA256 string `json:"sha256,omitempty"`
}

// WasmConfigMap names a key of a ConfigMap.
type WasmConfigMap struct {
	// Namespace is the ConfigMap's.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace"`

	// Name is the ConfigMap's.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`

	// Key is the one of binaryData that holds the module.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Key string `json:"key"`
}

// ContextResource is a resource whose objects a module may look up: all of them,
// or those in one namespace.
type ContextResource struct {
	// Group is the resource's API group; empty is the core group.
	//
	// +optional
	// +kubebuilder:validation:Pattern=`^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$`
	// +kubebuilder:validation:MaxLength=253
	Group string `json:"group,omitempty"`

	// Version is the one that objects are read in; v1 by default.
	//
	// +optional
	// +kubebuilder:validation:Pattern=`^v[a-z0-9]+$`
	// +kubebuilder:validation:MaxLength=63
	Version string `json:"version,omitempty"`

	// Resource is the plural name, such as namespaces.
	//
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	// +kubebuilder:validation:MaxLength=63
	Resource string `json:"resource"`

	// Namespace is the one whose objects can be looked up; empty is all of them.
	//
	// +optional
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace,omitempty"`
}

// WasmCapability is something that a module may do only if it was granted: kv
// keeps counters between requests, clock tells the time, lookup looks up objects
// of contextResources.
//
// +kubebuilder:validation:Enum=kv;clock;lookup
type WasmCapability string

// The capabilities.
const (
	WasmKV     WasmCapability = "kv"
	WasmClock  WasmCapability = "clock"
	WasmLookup WasmCapability = "lookup"
)

// WasmLimits bound what a module may use. What is not set has its default.
type WasmLimits struct {
	// MemoryMiB is the memory of one instance, 16 by default. A module built
	// from Go needs 4 to begin with.
	//
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1024
	MemoryMiB int32 `json:"memoryMiB,omitempty"`

	// Instances is how many requests the module may look at at the same time; 2
	// by default. Others wait.
	//
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=64
	Instances int32 `json:"instances,omitempty"`

	// WallClock is how long one call into the module may take; 100ms by default,
	// and at most 10s.
	//
	// +optional
	// +kubebuilder:validation:XValidation:rule="duration(self) > duration('0s') && duration(self) <= duration('10s')",message="must be more than 0 and at most 10s"
	WallClock *metav1.Duration `json:"wallClock,omitempty"`
}

// WasmFilterStatus is how a WasmFilter fares.
type WasmFilterStatus struct {
	// Conditions say how the filter fares. Accepted says whether proxies
	// understood it, Compiled whether the module could be had and compiled, and
	// Programmed whether it is in force. One proxy writes for all of them, and
	// a refusal names the proxy that refuses.
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
