package noderestriction

import (
	"context"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/portico-proxy/portico/core/document"
	"github.com/portico-proxy/portico/core/view"
)

const (
	certificatesGroup = "certificates.k8s.io"
	coordinationGroup = "coordination.k8s.io"
	discoveryGroup    = "discovery.k8s.io"
	resourceGroup     = "resource.k8s.io"
	storageGroup      = "storage.k8s.io"

	leaseNamespace = "kube-node-lease"
	nodeNameField  = "spec.nodeName"
	apiService     = "kubernetes" // of the namespace default
)

// An own says which objects of a resource are a node's own, or needed by its pods.
type own struct {
	// named reports it of an object's name, if that says it all. Nil if the object
	// itself must be seen.
	named func(q *question, namespace, name string) bool
	// field is what the API server can select by: then value is what it has.
	field string
	value func(q *question) string
	// sees reports it of an object. state is equal for equal answers.
	sees func(q *question) (sees func(view.Object) bool, state string)
}

func text(pointer string, is func(q *question) string) func(*question) (func(view.Object) bool, string) {
	return func(q *question) (func(view.Object) bool, string) {
		want := is(q)
		return func(o view.Object) bool { return document.Text(o.JSON, pointer) == want }, ""
	}
}

func nodeName(q *question) string { return q.node.name }

// isNode is for objects that are called as their node.
var isNode = own{
	named: func(q *question, _, name string) bool { return name == q.node.name },
	field: "metadata.name", value: nodeName,
	sees: func(q *question) (func(view.Object) bool, string) {
		return func(o view.Object) bool { return o.Name == q.node.name }, ""
	},
}

// onNode is for objects that say which node they are on. The API server selects
// by that if selects is set.
func onNode(selects bool) own {
	o := own{sees: text("/spec/nodeName", nodeName)}
	if selects {
		o.field, o.value = nodeNameField, nodeName
	}
	return o
}

// needed is for objects that pods refer to.
func needed(resource string) own {
	return own{
		named: func(q *question, namespace, name string) bool {
			if resource == namespaces {
				namespace = "" // RequestInfo says its own name
			}
			return q.node.pods.needs(ref{resource, namespace, name})
		},
		sees: func(q *question) (func(view.Object) bool, string) {
			namespace := q.info.Namespace
			if resource == namespaces {
				namespace = "" // a namespace's own is itself
			}
			all, state := q.node.pods.all(resource, namespace)
			if q.info.Name != "" && (q.info.Namespace != "" || resource == namespaces) {
				one := ref{resource, namespace, q.info.Name}
				all, state = map[ref]bool{one: all[one]}, fmt.Sprint(all[one])
			}
			return func(o view.Object) bool { return all[ref{resource, o.Namespace, o.Name}] }, state
		},
	}
}

// fixed is for one object that everybody needs.
func fixed(namespace, name string) own {
	return own{
		named: func(_ *question, ns, n string) bool { return ns == namespace && n == name },
		sees: func(*question) (func(view.Object) bool, string) {
			return func(o view.Object) bool { return o.Namespace == namespace && o.Name == name }, ""
		},
	}
}

// owns are the objects that exist for a node whatever a policy says.
var owns = map[schema.GroupResource]own{
	{Resource: "nodes"}: isNode,
	{Resource: "pods"}: {
		named: func(q *question, namespace, name string) bool {
			return q.node.pods.pod(namespace, name) != nil
		},
		field: nodeNameField, value: nodeName, sees: text("/spec/nodeName", nodeName),
	},
	{Resource: secrets}:                         needed(secrets),
	{Resource: configMaps}:                      needed(configMaps),
	{Resource: claims}:                          needed(claims),
	{Resource: accounts}:                        needed(accounts),
	{Resource: namespaces}:                      needed(namespaces),
	{Group: resourceGroup, Resource: resClaims}: needed(resClaims),
	{Resource: "persistentvolumes"}: {sees: func(q *question) (func(view.Object) bool, string) {
		all, state := q.node.pods.all(claims, "")
		return func(o view.Object) bool {
			return all[ref{claims, document.Text(o.JSON, "/spec/claimRef/namespace"), document.Text(o.JSON, "/spec/claimRef/name")}]
		}, state
	}},
	{Group: storageGroup, Resource: "csinodes"}:          isNode,
	{Group: storageGroup, Resource: "volumeattachments"}: onNode(false),
	{Group: resourceGroup, Resource: "resourceslices"}:   onNode(true),
	{Group: coordinationGroup, Resource: "leases"}: {
		named: func(q *question, namespace, name string) bool {
			return namespace == leaseNamespace && name == q.node.name
		},
		sees: func(q *question) (func(view.Object) bool, string) {
			return func(o view.Object) bool { return o.Namespace == leaseNamespace && o.Name == q.node.name }, ""
		},
	},
	{Group: certificatesGroup, Resource: "certificatesigningrequests"}: {
		sees: text("/spec/username", func(q *question) string { return q.caller.GetName() }),
	},
	{Resource: "services"}:  fixed("default", apiService),
	{Resource: "endpoints"}: fixed("default", apiService),
	{Group: discoveryGroup, Resource: "endpointslices"}: {sees: func(*question) (func(view.Object) bool, string) {
		return func(o view.Object) bool {
			return o.Namespace == "default" && o.Labels.Get("kubernetes.io/service-name") == apiService
		}, ""
	}},
}

// shared are resources that kubelets need all of, and that say nothing of others.
var shared = map[schema.GroupResource]bool{
	{Group: storageGroup, Resource: "csidrivers"}:               true,
	{Group: "node.k8s.io", Resource: "runtimeclasses"}:          true,
	{Group: certificatesGroup, Resource: "clustertrustbundles"}: true,
}

// A plan is how a read is let pass.
type plan struct {
	// narrow is a term for the field selector; empty adds nothing.
	narrow string
	sight  *sight // nil sees everything
	// missing says that it is refused for what is known of the node, which may be
	// old.
	missing bool
}

// key is equal for plans of a rule that let the same pass.
func (p *plan) key(r *rule) string {
	if p.sight != nil {
		return p.sight.key + "\x00"
	}
	return r.digest + " " + p.narrow + "\x00"
}

// A sight is what a caller of a node sees of a resource.
type sight struct {
	key     string
	own     func(view.Object) bool // nil sees none
	grants  []grant
	all     bool // whatever there is
	mask    mask
	changed chan struct{}
}

func (s *sight) Key() string              { return s.key }
func (s *sight) Changed() <-chan struct{} { return s.changed }

// See takes away what is not the node's, and what is masked.
func (s *sight) See(_ context.Context, o view.Object) ([]byte, error) {
	if !s.all && (s.own == nil || !s.own(o)) && !s.isGranted(o) {
		return nil, nil
	}
	object, err := s.mask.fields.Apply(o.JSON)
	if err != nil || !s.mask.metadataOnly {
		return object, err
	}
	return view.MetadataOnly(object)
}

func (s *sight) isGranted(o view.Object) bool {
	for i := range s.grants {
		if s.grants[i].fits(o) {
			return true
		}
	}
	return false
}

// read says how a read of a resource passes a rule, by what is known now.
func (r *rule) read(q *question) (plan, error) {
	if r.broken {
		return plan{}, q.forbidden(r, "the policy cannot be read")
	}
	of := schema.GroupResource{Group: q.info.APIGroup, Resource: q.info.Resource}
	s := &sight{grants: r.granted(q.info), mask: r.mask(of, q.kind), changed: make(chan struct{})}
	if err := r.searchable(q, &s.mask); err != nil {
		return plan{}, err
	}
	s.all = shared[of]
	for i := range s.grants {
		s.all = s.all || s.grants[i].isAll(q.info)
	}
	mine, has := owns[of]
	switch {
	case s.all:
	case q.isNamed() && has && mine.named != nil && mine.named(q, q.info.Namespace, q.info.Name):
	case len(s.grants) == 0 && !has:
		return plan{}, q.forbidden(r, "it is not for this node")
	case len(s.grants) == 0 && mine.named != nil && q.isNamed():
		return plan{missing: true}, q.forbidden(r, "no relationship found between node '"+q.node.name+"' and this object")
	}
	if len(s.grants) > 0 && q.isTooMuch(r.spec.MaxList) {
		return plan{}, q.forbidden(r, fmt.Sprintf("ask for at most %d objects at once (limit), or watch", r.spec.MaxList))
	}
	p := plan{sight: s}
	if !s.all && has && mine.field != "" && len(s.grants) == 0 && q.info.Verb != "get" {
		if other := q.selected(mine.field); other != "" && other != mine.value(q) {
			return plan{}, q.forbidden(r, mine.field+" is another node's")
		}
		p.narrow = fields.OneTermEqualSelector(mine.field, mine.value(q)).String()
	}
	var state string
	if !s.all && has {
		s.own, state = mine.sees(q)
	}
	s.key = fmt.Sprintf("node %s %s %s %s %s %x %s", q.node.name, q.kind, r.digest, q.info.Namespace, q.info.Name, state, q.caller.GetName())
	if s.all || p.narrow != "" {
		s.own, s.all = nil, true // what comes is all his
		if s.mask.isNone() {
			p.sight = nil
		}
	}
	return p, nil
}

// searchable refuses to select by what is masked: that would tell of it.
func (r *rule) searchable(q *question, m *mask) error {
	if m.isNone() {
		return nil
	}
	if slices.ContainsFunc(q.labels, func(s string) bool { return s != "" }) && m.hides("/metadata/labels") {
		return q.forbidden(r, "its labels are masked")
	}
	for _, text := range q.fields {
		selector, err := fields.ParseSelector(text)
		if err != nil {
			continue // the API server will say so
		}
		for _, term := range selector.Requirements() {
			if !slices.Contains(plain, term.Field) || m.hides(pointerTo(term.Field)) {
				return q.forbidden(r, "fields of it are masked, so it is not selected by "+term.Field)
			}
		}
	}
	return nil
}

// plain are the fields that are called as they lie. Others may select by what is
// masked under another name.
var plain = []string{"metadata.name", "metadata.namespace", nodeNameField}
