package noderestriction

import (
	"slices"
	"strings"

	"github.com/portico-proxy/portico/core/document"
	"github.com/portico-proxy/portico/core/limit"
	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
)

// event lets the node tell what happens to its own objects, as often as its budget
// allows.
func (e *exchange) event(r *rule) error {
	var about ref
	switch e.info.Verb {
	case "create":
		object, err := e.object()
		if err != nil {
			return err
		}
		if about, err = e.subject(r, object); err != nil {
			return err
		}
	case "update", "patch":
		var own bool
		if about, own = e.namedAfter(); !own {
			return e.forbidden(r, "it is about no pod of this node")
		}
		if err := e.changeEvent(r); err != nil {
			return err
		}
	default:
		return e.forbidden(r, "it is not for this node")
	}
	if r.spec.Events != nil {
		e.limits = append(e.limits, r.budget(e.node.name, about)...)
	}
	return nil
}

// subject is what an event is about: a pod of the node, the node, or what a pod of
// it needs.
func (e *exchange) subject(r *rule, object []byte) (ref, error) {
	at := "/involvedObject"
	if e.info.APIGroup != "" {
		at = "/regarding"
	}
	kind, namespace, name := document.Text(object, at+"/kind"), document.Text(object, at+"/namespace"), document.Text(object, at+"/name")
	about := ref{kind, namespace, name}
	switch kind {
	case nodeKind:
		if name == e.node.name {
			return ref{nodeKind, "", name}, nil // in whatever namespace it claims to be
		}
	case podKind:
		if e.node.pods.pod(namespace, name) != nil || e.node.pods.wasThere(namespace, name) {
			return about, nil
		}
		if here, _, err := e.node.isHere(e.r.Context(), namespace, name); here || err != nil {
			return about, err
		}
	case "PersistentVolumeClaim":
		if e.node.pods.needs(ref{claims, namespace, name}) {
			return about, nil
		}
	}
	return about, e.forbidden(r, "it is about no pod of this node")
}

// changeEvent lets an event be told again, but not be made one about something else.
func (e *exchange) changeEvent(r *rule) error {
	if e.info.Verb == "patch" {
		return e.patch(r, func(p []string) bool {
			return !slices.Contains([]string{"involvedObject", "regarding", "metadata"}, p[0])
		})
	}
	object, err := e.object()
	if err == nil {
		_, err = e.subject(r, object)
	}
	return err
}

// namedAfter is what an event is about by its name, and whether that is the node or
// a pod of it. Names of its own would each have a budget of its own.
func (e *exchange) namedAfter() (about ref, own bool) {
	i := strings.LastIndexByte(e.info.Name, '.')
	if i < 0 {
		return ref{}, false
	}
	namespace, name := e.info.Namespace, e.info.Name[:i]
	if name == e.node.name {
		return ref{nodeKind, "", name}, true
	}
	return ref{podKind, namespace, name}, e.node.pods.pod(namespace, name) != nil || e.node.pods.wasThere(namespace, name)
}

// budget is what the rule leaves for events about an object.
func (r *rule) budget(node string, about ref) (all []limit.Limit) {
	of := func(rate *v1alpha1.EventRate, id string, key ...string) {
		if rate == nil {
			return
		}
		all = append(all, limit.Limit{
			Policy: "NodePolicy/" + r.name, ID: id, Key: key, Applies: limit.Client, OnExceed: limit.Reject, Audit: r.audits(),
			Tokens: &limit.Tokens{Rate: float64(rate.PerMinute) / 60, Burst: float64(rate.Burst)}, Cost: limit.Cost{Fixed: 1},
			Message: "there are too many events of this node",
		})
	}
	of(r.spec.Events.PerObject, "events-per-object", node, about.resource, about.namespace, about.name)
	of(r.spec.Events.PerNode, "events-per-node", node)
	return all
}
