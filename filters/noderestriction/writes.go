package noderestriction

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/portico-proxy/portico/core/body"
	"github.com/portico-proxy/portico/core/document"
	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
)

// What a kubelet's writes look like.
const (
	mirrorAnnotation = "kubernetes.io/config.mirror"
	podKind          = "Pod"
	nodeKind         = "Node"
)

// never are subresources by which one reaches into nodes, pods and Services, past
// whatever is said of objects.
var never = []string{"exec", "attach", "portforward", "proxy"}

// write judges a request that is no read.
func (e *exchange) write(r *rule) error {
	if slices.Contains(never, e.info.Subresource) || e.info.Verb == "proxy" {
		return e.forbidden(r, "nothing on this node may")
	}
	masked := e.hide(r)
	if r.allows(e.info) {
		if e.info.Verb == "deletecollection" {
			return e.searchable(r)
		}
		if masked && (e.info.Verb == "update" || e.info.Verb == "patch") {
			// What it does not see would be lost, or told by what becomes of the change.
			return e.forbidden(r, "fields of it are masked")
		}
		return nil
	}
	kubelet := e.kind == v1alpha1.CallerKubelet
	resource := e.info.Resource
	if e.info.Subresource != "" {
		resource += "/" + e.info.Subresource
	}
	switch (schema.GroupResource{Group: e.info.APIGroup, Resource: resource}) {
	case schema.GroupResource{Resource: "nodes"}, schema.GroupResource{Resource: "nodes/status"}:
		return e.writeNode(r)
	case schema.GroupResource{Resource: "pods"}:
		return e.writePod(r)
	case schema.GroupResource{Resource: "pods/status"}:
		return e.writePodStatus(r)
	case schema.GroupResource{Resource: "pods/eviction"}:
		return e.evict(r)
	case schema.GroupResource{Resource: "serviceaccounts/token"}:
		return e.token(r)
	case schema.GroupResource{Resource: "events"}, schema.GroupResource{Group: "events.k8s.io", Resource: "events"}:
		return e.event(r)
	case schema.GroupResource{Group: coordinationGroup, Resource: "leases"}:
		if e.info.Namespace == leaseNamespace {
			return e.namedAsNode(r)
		}
	case schema.GroupResource{Group: storageGroup, Resource: "csinodes"}:
		return e.namedAsNode(r)
	case schema.GroupResource{Resource: "persistentvolumeclaims/status"}:
		return e.writeClaimStatus(r)
	case schema.GroupResource{Group: certificatesGroup, Resource: "certificatesigningrequests"},
		schema.GroupResource{Group: "authentication.k8s.io", Resource: "tokenreviews"},
		schema.GroupResource{Group: "authorization.k8s.io", Resource: "subjectaccessreviews"}:
		if kubelet && e.info.Verb == "create" {
			return nil
		}
	}
	return e.forbidden(r, "it is not for this node")
}

// hide masks what is answered, and reports whether there is a mask.
func (e *exchange) hide(r *rule) bool {
	m := r.mask(schema.GroupResource{Group: e.info.APIGroup, Resource: e.info.Resource}, e.kind)
	if m.isNone() {
		return false
	}
	if !r.audits() {
		e.views = append(e.views, &sight{key: fmt.Sprintf("mask %s %s", r.digest, e.kind), all: true, mask: m, changed: make(chan struct{})})
	}
	return true
}

// searchable refuses to choose what is deleted by what is masked: the answer, of a
// trial even, would tell of it.
func (e *exchange) searchable(r *rule) error {
	m := r.mask(schema.GroupResource{Group: e.info.APIGroup, Resource: e.info.Resource}, e.kind)
	return r.searchable(e.question, &m)
}

// object reads the object in the request's body as JSON.
func (e *exchange) object() ([]byte, error) {
	e.looked = true
	if err := e.filter.library.options.Rooms.Enter(e.room, e.r, e.caller); err != nil {
		return nil, err
	}
	unlimited := e.filter.library.options.Rooms.Limit(e.w)
	defer unlimited()
	var object []byte
	var err error
	e.r, object, err = body.Object(e.r)
	return object, err
}

// namedAsNode lets the node write an object that is called as it is.
func (e *exchange) namedAsNode(r *rule) error {
	name := e.info.Name
	if e.info.Verb == "create" {
		object, err := e.object()
		if err != nil {
			return err
		}
		name = document.Text(object, "/metadata/name")
	}
	if name != e.node.name || e.info.Verb == "deletecollection" {
		return e.forbidden(r, "it is another node's")
	}
	return nil
}

// ownPod returns the pod of the node's that the request is about.
func (e *exchange) ownPod(r *rule) (*pod, error) {
	p := e.node.pods.pod(e.info.Namespace, e.info.Name)
	if p != nil {
		return p, nil
	}
	here, exists, err := e.node.isHere(e.r.Context(), e.info.Namespace, e.info.Name)
	switch {
	case err != nil:
		return nil, err
	case here:
		if p = e.node.pods.pod(e.info.Namespace, e.info.Name); p != nil {
			return p, nil
		}
	case !exists && e.node.pods.wasThere(e.info.Namespace, e.info.Name):
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "pods"}, e.info.Name)
	}
	return nil, e.forbidden(r, "the pod is not on this node")
}

// writePod lets the node show its static pods, and delete its own.
func (e *exchange) writePod(r *rule) error {
	switch {
	case e.info.Verb == "delete":
		p, err := e.ownPod(r)
		if err != nil {
			return err
		}
		return e.pin(r, p, "/preconditions/uid")
	case e.info.Verb == "create" && e.kind == v1alpha1.CallerKubelet:
		return e.mirror(r)
	}
	return e.forbidden(r, "it is not for this node")
}

// mirror lets pass what shows a static pod. Through one that needed a Secret the
// node could read that.
func (e *exchange) mirror(r *rule) error {
	object, err := e.object()
	if err != nil {
		return err
	}
	p, err := podOf(object)
	switch {
	case err != nil:
		return apierrors.NewBadRequest("the pod in the request cannot be read")
	case p.Spec.NodeName != e.node.name || p.Annotations[mirrorAnnotation] == "":
		return e.forbidden(r, "a node makes no pods but mirrors of its static ones")
	case slices.ContainsFunc(remember(p).refs, func(n ref) bool { return n.resource != namespaces }):
		return e.forbidden(r, "a static pod needs no objects of the API")
	}
	return nil
}

// evict lets the node evict its own pods.
func (e *exchange) evict(r *rule) error {
	if e.info.Verb != "create" {
		return e.forbidden(r, "it is not for this node")
	}
	p, err := e.ownPod(r)
	if err != nil {
		return err
	}
	return e.pin(r, p, "/deleteOptions/preconditions/uid")
}

// pin lets a request pass for one pod only: another may get its name at any time.
// Where the client has pinned it itself, the body stays as it is.
func (e *exchange) pin(r *rule, p *pod, pointer string) error {
	e.looked = true
	options, err := e.options()
	if err != nil {
		return err
	}
	switch uid := document.Text(options, pointer); {
	case uid == p.uid:
		return nil
	case uid != "":
		return apierrors.NewConflict(schema.GroupResource{Resource: "pods"}, e.info.Name, errors.New("there is another pod of that name"))
	case r.audits():
		return nil
	}
	pinned, err := document.Set(options, pointer, []byte(`"`+p.uid+`"`))
	if err != nil {
		return apierrors.NewBadRequest("the options of the deletion cannot be read")
	}
	e.r = body.WithObject(e.r, pinned)
	return nil
}

// options are a body that says how to delete, or, as an empty one says nothing,
// what the query says then.
func (e *exchange) options() ([]byte, error) {
	if e.info.Verb == "create" {
		return e.object()
	}
	if e.r.ContentLength != 0 {
		raw, err := e.object()
		if err == nil && len(raw) > 0 {
			return raw, nil
		}
		if err != nil && e.r.ContentLength > 0 {
			return nil, err
		}
		if err != nil {
			var bytes []byte
			if e.r, bytes, _ = body.Read(e.r); len(bytes) > 0 {
				return nil, err
			}
		}
	}
	query := e.r.URL.Query()
	var o metav1.DeleteOptions
	if err := metav1.Convert_url_Values_To_v1_DeleteOptions(&query, &o, nil); err != nil {
		return nil, apierrors.NewBadRequest("the options of the deletion cannot be read")
	}
	o.TypeMeta = metav1.TypeMeta{Kind: "DeleteOptions", APIVersion: "v1"}
	return asJSON(&o)
}

// token lets the node have tokens for its own pods only.
func (e *exchange) token(r *rule) error {
	if e.info.Verb != "create" {
		return e.forbidden(r, "it is not for this node")
	}
	object, err := e.object()
	if err != nil {
		return err
	}
	if document.Text(object, "/spec/boundObjectRef/kind") != podKind {
		return e.forbidden(r, "tokens are for pods of this node")
	}
	name, uid := document.Text(object, "/spec/boundObjectRef/name"), document.Text(object, "/spec/boundObjectRef/uid")
	p := e.node.pods.pod(e.info.Namespace, name)
	if p == nil {
		if _, _, err := e.node.isHere(e.r.Context(), e.info.Namespace, name); err != nil {
			return err
		}
		p = e.node.pods.pod(e.info.Namespace, name)
	}
	if p == nil || p.uid != uid || p.account != e.info.Name {
		return e.forbidden(r, "no pod of this node has that ServiceAccount")
	}
	return nil
}

// writeClaimStatus lets the kubelet say how the resizing of a volume goes.
func (e *exchange) writeClaimStatus(r *rule) error {
	if e.kind != v1alpha1.CallerKubelet || !e.node.pods.needs(ref{claims, e.info.Namespace, e.info.Name}) {
		return e.forbidden(r, "no pod of this node needs it")
	}
	if e.info.Verb != "patch" {
		return e.forbidden(r, "only a patch says what it changes")
	}
	return e.patch(r, func(p []string) bool { return p[0] == "status" })
}

// writePodStatus lets the node say how its own pods fare, and nothing else of them.
func (e *exchange) writePodStatus(r *rule) error {
	p, err := e.ownPod(r)
	if err != nil {
		return err
	}
	switch e.info.Verb {
	case "patch":
		err = e.patch(r, func(p []string) bool { return p[0] == "status" })
		if err == nil && !r.audits() {
			err = e.pinPatch(p)
		}
		return err
	case "update":
		return e.update(r, func(pointer string) bool { return isBelow(pointer, "/status") }, "/spec")
	}
	return e.forbidden(r, "it is not for this node")
}

func isBelow(pointer, root string) bool {
	return pointer == root || strings.HasPrefix(pointer, root+"/")
}

// writeNode lets the node register, say how it fares, and change those of its
// labels and annotations that are its own.
func (e *exchange) writeNode(r *rule) error {
	if e.kind == v1alpha1.CallerKubelet && e.info.Verb == "create" && e.info.Subresource == "" {
		return e.register(r)
	}
	if e.info.Name != e.node.name {
		return e.forbidden(r, "it is another node")
	}
	mine := func(p []string) bool { return p[0] == "status" || r.isOwnMeta(p) }
	switch e.info.Verb {
	case "patch":
		return e.patch(r, mine)
	case "update":
		unread := "/status"
		if e.info.Subresource != "" {
			unread = "/spec"
		}
		return e.update(r, func(pointer string) bool { return mine(tokensOf(pointer)) }, unread)
	}
	return e.forbidden(r, "a node does not remove itself")
}

// register lets a kubelet make its Node, with what kubelets say of themselves.
func (e *exchange) register(r *rule) error {
	object, err := e.object()
	if err != nil {
		return err
	}
	if document.Text(object, "/metadata/name") != e.node.name {
		return e.forbidden(r, "it is another node")
	}
	sent := labels.Set{}
	for _, pointer := range []string{"/metadata/labels", "/metadata/annotations"} {
		for _, member := range document.Children(object, pointer) {
			tokens := tokensOf(member)
			if !r.isOwnMeta(tokens) && !isUsual(tokens[2]) {
				return e.forbidden(r, tokens[2]+" is not the node's to set")
			}
			if tokens[1] == "labels" {
				sent[tokens[2]] = document.Text(object, member)
			}
		}
	}
	for label := range sent {
		if r.selects(label) && !r.means(e.node.name, &sent) {
			return e.forbidden(r, label+" says which policies mean the node")
		}
	}
	for _, member := range document.Children(object, "/metadata") {
		if slices.Contains([]string{"/metadata/ownerReferences", "/metadata/finalizers"}, member) {
			return e.forbidden(r, member+" is not the node's to set")
		}
	}
	return nil
}

// usual are the labels and annotations that a kubelet gives itself when it
// registers.
var usual = []string{
	"kubernetes.io/hostname", "kubernetes.io/arch", "kubernetes.io/os", "beta.kubernetes.io/arch", "beta.kubernetes.io/os",
	"node.kubernetes.io/instance-type", "beta.kubernetes.io/instance-type", "topology.kubernetes.io/zone", "topology.kubernetes.io/region",
	"failure-domain.beta.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/region",
	"volumes.kubernetes.io/controller-managed-attach-detach", "alpha.kubernetes.io/provided-node-ip", "node.alpha.kubernetes.io/ttl",
}

func isUsual(key string) bool { return slices.Contains(usual, key) }

// isOwnMeta reports labels and annotations that a node may set, by where they are.
// Those that say which policies mean it are not among them.
func (r *rule) isOwnMeta(p []string) bool {
	if len(p) != 3 || p[0] != "metadata" {
		return false
	}
	begins := func(prefix string) bool { return strings.HasPrefix(p[2], prefix) }
	switch p[1] {
	case "labels":
		return slices.ContainsFunc(r.spec.OwnNode.LabelPrefixes, begins) && !r.selects(p[2])
	case "annotations":
		return slices.ContainsFunc(r.spec.OwnNode.AnnotationPrefixes, begins)
	}
	return false
}

// selects reports that the rule means nodes by a label.
func (r *rule) selects(label string) bool {
	if r.selector == nil {
		return false
	}
	requirements, _ := r.selector.Requirements()
	for _, q := range requirements {
		if q.Key() == label {
			return true
		}
	}
	return false
}

// isIdentity reports what a change names an object by, and does not change.
func isIdentity(pointer string) bool {
	switch pointer {
	case "/kind", "/apiVersion", "/metadata/name", "/metadata/namespace", "/metadata/uid", "/metadata/resourceVersion":
		return true
	}
	return false
}
