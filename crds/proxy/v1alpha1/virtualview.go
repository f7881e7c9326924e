package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// VirtualView says what exists for some callers: which namespaces, which
// objects, and which of their fields. What does not exist for a caller is not
// listed, not watched, not found and not changed by him, as if nobody had ever
// made it. A view gives nobody a right: what exists is still judged by the API
// server. Where several views are about a caller, only what all of them leave
// exists for him.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,path=virtualviews,singular=virtualview,shortName=vv
// +kubebuilder:printcolumn:name="Mode",type=string,JSONPath=`.spec.mode`
// +kubebuilder:printcolumn:name="Namespaces",type=string,JSONPath=`.spec.namespaces.names`
// +kubebuilder:printcolumn:name="Accepted",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].status`
// +kubebuilder:printcolumn:name="Programmed",type=string,JSONPath=`.status.conditions[?(@.type=="Programmed")].status`
// +kubebuilder:printcolumn:name="Proxies",type=string,JSONPath=`.status.proxies.summary`
// +kubebuilder:printcolumn:name="Resources",type=string,JSONPath=`.status.conditions[?(@.type=="ResourcesKnown")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,priority=1,JSONPath=`.status.conditions[?(@.status=="False")].message`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type VirtualView struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec says what is asked for.
	Spec VirtualViewSpec `json:"spec"`
	// Status says what has become of it. Proxies write it.
	Status VirtualViewStatus `json:"status,omitempty"`
}

// VirtualViewList is a list of VirtualViews.
//
// +kubebuilder:object:root=true
type VirtualViewList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []VirtualView `json:"items"`
}

// VirtualViewSpec is what a VirtualView asks for.
type VirtualViewSpec struct {
	// Subjects are the callers whose view this is.
	Subjects ViewSubjects `json:"subjects"`

	// Namespaces are those that exist, with all that is in them. Without it, all
	// do.
	//
	// +optional
	Namespaces *ViewNamespaces `json:"namespaces,omitempty"`

	// Hidden are resources of which no object exists.
	//
	// +optional
	// +kubebuilder:validation:MaxItems=50
	Hidden []ViewResource `json:"hidden,omitempty"`

	// Objects are rules on objects. An object exists if it fits one of those that
	// are about its resource; of resources that no rule is about, all do.
	//
	// +optional
	// +kubebuilder:validation:MaxItems=50
	Objects []ViewRule `json:"objects,omitempty"`

	// Masks take fields from objects, or put a text in their place. Callers who
	// write an object back leave in it what was masked, and cannot change it.
	//
	// +optional
	// +kubebuilder:validation:MaxItems=32
	Masks []ViewMask `json:"masks,omitempty"`

	// Mode says whether the view is in force. Audit counts and logs the requests
	// that are about what would not exist, and leaves them and their answers
	// alone.
	//
	// +optional
	// +kubebuilder:default=Enforce
	Mode FilterMode `json:"mode,omitempty"`
}

// ViewSubjects are callers. Users and groups together are one list. A caller who
// impersonates somebody has both his own views and the other's.
//
// +kubebuilder:validation:XValidation:rule="(has(self.users) && self.users.size() > 0) || (has(self.groups) && self.groups.size() > 0)",message="name users or groups"
type ViewSubjects struct {
	// Users are callers' names as the API server knows them. A * at the end
	// stands for anything: system:serviceaccount:shop:* is all of a namespace.
	//
	// +optional
	// +kubebuilder:validation:MaxItems=100
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=253
	Users []string `json:"users,omitempty"`

	// Groups are groups of callers.
	//
	// +optional
	// +kubebuilder:validation:MaxItems=100
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=253
	Groups []string `json:"groups,omitempty"`
}

// ViewNamespaces are namespaces. One is meant if its name fits, or its labels do;
// without names and selector, if it begins with the prefix or is renamed. With a
// prefix, and with some renamed, only those exist that have a name for the callers.
//
// +kubebuilder:validation:XValidation:rule="has(self.names) || has(self.selector) || has(self.prefix) || has(self.renamed)",message="set names, selector, prefix or renamed"
// +kubebuilder:validation:XValidation:rule="!has(self.renamed) || self.renamed.all(r, self.renamed.exists_one(o, o.cluster == r.cluster))",message="renamed gives one namespace of the cluster two names"
type ViewNamespaces struct {
	// Names are namespaces' names in the cluster. A * at the end stands for anything.
	//
	// +optional
	// +kubebuilder:validation:MaxItems=200
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=253
	Names []string `json:"names,omitempty"`

	// Selector chooses namespaces by their labels. The proxy's identity has to
	// list and watch namespaces for it; until it knows them, the view's subjects
	// are told to try again. Whoever may label namespaces decides what exists.
	//
	// +optional
	Selector *metav1.LabelSelector `json:"selector,omitempty"`

	// Prefix is what the names of namespaces begin with in the cluster and not for
	// the callers: with tenant-a-, their default is the cluster's tenant-a-default,
	// and what they make as team is made as tenant-a-team. It ends with a dash. No
	// view's prefix should begin with another's.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=50
	// +kubebuilder:validation:Pattern=`^[a-z0-9][a-z0-9-]*-$`
	Prefix string `json:"prefix,omitempty"`

	// Renamed are namespaces whose names for the callers are told one by one, in
	// place of what the prefix says. A namespace whose name in the cluster is one of
	// theirs for another does not exist for them.
	//
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=100
	Renamed []ViewRenaming `json:"renamed,omitempty"`
}

// ViewRenaming is a namespace that has another name for the callers.
type ViewRenaming struct {
	// Name is the callers'.
	//
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`
	Name string `json:"name"`

	// Cluster is the name in the cluster.
	//
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`
	Cluster string `json:"cluster"`
}

// Renames reports whether namespaces have other names for the callers.
func (n *ViewNamespaces) Renames() bool {
	return n != nil && (n.Prefix != "" || len(n.Renamed) > 0)
}

// ViewResource names a resource, in all its versions and with all its
// subresources.
type ViewResource struct {
	// Group is the API group; "" is the core group and "*" is all groups.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Group string `json:"group,omitempty"`

	// Resource is the plural name, as in pods, or * for all.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^([^/*]+|[*])$`
	// +kubebuilder:validation:XValidation:rule="!self.matches('^[^/]*[A-Z]')",message="write the plural name, in lower case, as in secrets: it is not the kind that is meant"
	Resource string `json:"resource"`
}

// ViewRule says which objects of some resources exist. An object fits if it fits
// all that is set.
//
// +kubebuilder:validation:XValidation:rule="has(self.names) || has(self.selector) || has(self.owners) || has(self.fields)",message="set names, selector, owners or fields"
type ViewRule struct {
	// Resources are those that the rule is about.
	//
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=50
	Resources []ViewResource `json:"resources"`

	// Names are objects' names. A * at the end stands for anything.
	//
	// +optional
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=200
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=253
	Names []string `json:"names,omitempty"`

	// Selector chooses objects by their labels.
	//
	// +optional
	Selector *metav1.LabelSelector `json:"selector,omitempty"`

	// Owners are objects of which one has to own the object.
	//
	// +optional
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=50
	Owners []ViewOwner `json:"owners,omitempty"`

	// Fields are all to have a certain value.
	//
	// +optional
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=20
	Fields []ViewField `json:"fields,omitempty"`
}

// ViewOwner is an owner, as objects' metadata.ownerReferences name it.
type ViewOwner struct {
	// Kind is the owner's, as in Deployment.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Kind string `json:"kind"`

	// Name is the owner's. A * at the end stands for anything.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
}

// ViewField is a field and what it has to be.
type ViewField struct {
	// Path is the field's JSON pointer, as in /spec/nodeName.
	//
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:Pattern=`^(/[^/]+)+$`
	Path string `json:"path"`

	// Value is the text, number or truth value that the field has. A field that
	// is not there has the empty text.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=512
	Value string `json:"value,omitempty"`
}

// ViewMask says which fields of some resources' objects nobody sees.
//
// +kubebuilder:validation:XValidation:rule="!self.paths.exists(p, p.matches('^/(apiVersion|kind|metadata|[*])$|^/[*]/|^/metadata/(name|namespace|uid|resourceVersion|[*])(/|$)'))",message="what an object is cannot be masked: apiVersion, kind, all of metadata, its name, namespace, uid and resourceVersion, and /*"
type ViewMask struct {
	// Resources are those that the mask is about.
	//
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=50
	Resources []ViewResource `json:"resources"`

	// Paths are the fields' JSON pointers, in which * stands for any member or
	// element: /data/*, /spec/containers/*/env. In a name, ~1 stands for a slash
	// and ~0 for ~: /metadata/annotations/example.com~1key.
	//
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MaxLength=256
	// +kubebuilder:validation:items:Pattern=`^(/[^/]+)+$`
	Paths []string `json:"paths"`

	// Replacement is the text that stands in a masked field's place. Without it,
	// the field is not there at all. It has to be something that clients can read
	// there: base64 in a Secret's data, no text at all where a number is due.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=512
	Replacement *string `json:"replacement,omitempty"`
}

// VirtualViewStatus is how a VirtualView fares.
type VirtualViewStatus struct {
	// Conditions say how the view fares. Accepted says whether proxies understood
	// it, and Programmed whether it is in force. ResourcesKnown says whether the
	// API server has the resources that it names; what it says of others has no
	// effect.
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
