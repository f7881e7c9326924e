// Package noderestriction keeps the callers of nodes that are not trusted to what
// NodePolicies leave them.
package noderestriction

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/portico-proxy/portico/core/body"
	"github.com/portico-proxy/portico/core/config"
	"github.com/portico-proxy/portico/core/limit"
	"github.com/portico-proxy/portico/core/pipeline"
	"github.com/portico-proxy/portico/core/telemetry"
	"github.com/portico-proxy/portico/core/view"
)

// Filter refuses what no policy leaves to a node's callers, and narrows what they
// read. It fails closed.
type Filter struct {
	// Ask makes a request that has been narrowed one that memory may answer, if it
	// can; nil means that there is no memory.
	Ask func(*http.Request) (*http.Request, bool)
	// Twice says that [Filter.Again] comes after filters that change what is written.
	Twice bool

	library *Library
	rules   []*rule
}

// Name is "noderestriction".
func (f *Filter) Name() string { return "noderestriction" }

// Binds reports whether there is anything to do for any request.
func (f *Filter) Binds() bool { return len(f.rules) > 0 }

// Limits reports whether there are budgets to be kept.
func (f *Filter) Limits() bool {
	return slices.ContainsFunc(f.rules, func(r *rule) bool { return r.spec.Events != nil })
}

// Needs reports whether the caller of r must be known: whoever it is may belong to
// a node.
func (f *Filter) Needs(r *http.Request) bool {
	info, ok := request.RequestInfoFrom(r.Context())
	return ok && !f.isOpen(r, info)
}

func (f *Filter) isOpen(r *http.Request, info *request.RequestInfo) bool {
	return isOpen(info) && !impersonates(r)
}

// ServeHTTP judges r by each policy that is about its caller.
func (f *Filter) ServeHTTP(w http.ResponseWriter, r *http.Request, next pipeline.Handler) error {
	info, ok := request.RequestInfoFrom(r.Context())
	if !ok || f.isOpen(r, info) {
		return next.ServeHTTP(w, r)
	}
	q, rules, err := f.concerns(r, info)
	if err != nil {
		return err
	}
	if q == nil {
		return next.ServeHTTP(w, r)
	}
	e := &exchange{filter: f, question: q, next: next, w: w, r: r, room: &body.Room{}}
	defer e.room.Keep(0)
	for _, rule := range rules {
		if err := e.keep(rule); err != nil {
			return err
		}
	}
	if err := e.remember(rules); err != nil {
		return err
	}
	e.room.Keep(body.SizeOf(e.r))
	return e.pass(next)
}

// concerns returns what is asked and the rules that are about it. A nil question
// is none of a node's.
func (f *Filter) concerns(r *http.Request, info *request.RequestInfo) (*question, []*rule, error) {
	enforced := slices.ContainsFunc(f.rules, func(r *rule) bool { return !r.audits() })
	caller, err := config.CallerOf(r)
	if err != nil {
		return nil, nil, onlyIf(enforced, err)
	}
	if f.library == nil {
		return nil, nil, onlyIf(enforced, unavailable("this proxy keeps no NodePolicies"))
	}
	query := r.URL.Query()
	q := &question{origin: originOf(caller), info: info, fields: query["fieldSelector"], labels: query["labelSelector"], acts: impersonates(r)}
	q.limit, _ = strconv.ParseInt(query.Get("limit"), 10, 64)
	here := f.library.options.Node
	if q.origin.node == "" && here == "" {
		return nil, nil, f.unnamed(q)
	}
	name := q.origin.node
	if name == "" {
		name = here
	}
	if q.node, err = f.find(r.Context(), name); err != nil {
		return nil, nil, onlyIf(enforced, err)
	}
	if here != "" && name != here {
		if err := f.foreign(r.Context(), q, here); err != nil {
			return nil, nil, onlyIf(enforced, err)
		}
	}
	rules := slices.DeleteFunc(slices.Clone(f.rules), func(r *rule) bool { return !f.library.means(r, q) })
	if len(rules) == 0 {
		return q, nil, nil
	}
	f.library.load(q.node)
	if err := q.node.await(r.Context(), q.node.loaded); err != nil {
		return nil, nil, onlyIf(slices.ContainsFunc(rules, func(r *rule) bool { return !r.audits() }), err)
	}
	return q, rules, nil
}

func onlyIf(enforced bool, err error) error {
	if enforced {
		return err
	}
	return nil
}

// find returns a node whose labels are known, if a rule asks for labels.
func (f *Filter) find(ctx context.Context, name string) (*node, error) {
	n, err := f.library.node(name)
	if err != nil {
		return nil, unavailable(err.Error())
	}
	if selecting(f.rules) {
		return n, n.await(ctx, n.known)
	}
	return n, nil
}

// unnamed refuses a caller whose credential names no node, at a gateway.
func (f *Filter) unnamed(q *question) error {
	for _, r := range f.rules {
		if !r.gateway() || bootstraps(q.origin, q.info) {
			continue
		}
		err := q.forbidden(r, "the credential names no node")
		if f.decided(r, err, time.Now()); !r.audits() {
			return err
		}
		f.library.options.Log.Info("would refuse", "policy", r.name, "reason", "the credential names no node")
	}
	return nil
}

// foreign refuses a caller of another node on one that is not trusted.
func (f *Filter) foreign(ctx context.Context, q *question, here string) error {
	n, err := f.find(ctx, here)
	if err != nil {
		return err
	}
	for _, r := range f.rules {
		if !r.audits() && !r.gateway() && r.means(here, n.labels.Load()) {
			return q.forbidden(r, "the credential is another node's")
		}
	}
	return nil
}

func (f *Filter) decided(r *rule, err error, began time.Time) {
	decision := telemetry.DecisionPass
	switch {
	case err == nil:
	case apierrors.IsForbidden(err):
		decision = telemetry.DecisionDeny
	default:
		decision = telemetry.DecisionError
	}
	f.library.options.Observe(r.name, r.spec.Mode, decision, time.Since(began))
}

// An exchange is a request that is being judged.
type exchange struct {
	*question
	filter *Filter
	next   pipeline.Handler // what the request goes on to
	w      http.ResponseWriter
	r      *http.Request // as it is to go on
	room   *body.Room

	narrow []string
	views  []*sight
	limits []limit.Limit
	key    string
	looked bool // at what is written, or it was changed
}

// keep judges the request by one rule, and does what it says, or only tells.
func (e *exchange) keep(r *rule) error {
	began := time.Now()
	err := e.judge(r)
	e.filter.decided(r, err, began)
	if err != nil && r.audits() {
		e.filter.library.options.Log.Info("would refuse", "policy", r.name, "node", e.node.name, "user", e.caller.GetName(),
			"verb", e.info.Verb, "resource", e.info.Resource, "subresource", e.info.Subresource, "namespace", e.info.Namespace, "name", e.info.Name)
		return nil
	}
	return err
}

func (e *exchange) judge(r *rule) error {
	switch {
	case r.broken:
		return e.forbidden(r, "the policy cannot be read")
	case impersonates(e.r):
		return e.forbidden(r, "callers of this node may not act as others")
	case !e.info.IsResourceRequest:
		return e.forbidden(r, "it is not for this node")
	case !isRead(e.info):
		return e.write(r)
	case e.info.Subresource != "":
		return e.readPart(r)
	}
	p, err := r.read(e.question)
	if err != nil && p.missing {
		if p, err = e.lookAgain(r, err); err != nil {
			return err
		}
	}
	if err != nil || r.audits() {
		return err
	}
	e.key += p.key(r)
	if p.narrow != "" && !slices.Contains(e.narrow, p.narrow) {
		e.narrow = append(e.narrow, p.narrow)
	}
	if p.sight != nil {
		e.views = append(e.views, p.sight)
	}
	return nil
}

// lookAgain asks the API server what is refused for what is known of the node: a
// kubelet that was told of a pod may be faster than the watch here.
func (e *exchange) lookAgain(r *rule, refusal error) (plan, error) {
	if e.info.APIGroup == "" && e.info.Resource == "pods" {
		here, exists, err := e.node.isHere(e.r.Context(), e.info.Namespace, e.info.Name)
		if err != nil || !here && (exists || !e.node.pods.wasThere(e.info.Namespace, e.info.Name)) {
			return plan{}, orElse(err, refusal)
		}
		if !here {
			return plan{}, nil // it is gone, which the API server will say
		}
		return r.read(e.question)
	}
	if !refreshable[e.info.Resource] {
		return plan{}, refusal
	}
	if err := e.node.refresh(e.r.Context()); err != nil {
		return plan{}, err
	}
	return r.read(e.question)
}

// refreshable are the resources that pods refer to.
var refreshable = map[string]bool{secrets: true, configMaps: true, claims: true, accounts: true, resClaims: true, namespaces: true}

func orElse(err, other error) error {
	if err != nil {
		return err
	}
	return other
}

// readPart judges reads of subresources.
func (e *exchange) readPart(r *rule) error {
	e.hide(r)
	if e.info.Verb != "get" { // as paths with /watch/ may say
		return e.forbidden(r, "parts of objects are not watched")
	}
	switch e.info.Resource + "/" + e.info.Subresource {
	case "pods/log", "pods/status":
		if e.info.APIGroup == "" {
			_, err := e.ownPod(r)
			return err
		}
	case "nodes/status":
		if e.info.Name == e.node.name {
			return nil
		}
	}
	return e.forbidden(r, "it is not for this node")
}

// seenBy adds views to those of a request.
func seenBy(ctx context.Context, views []*sight) context.Context {
	if len(views) == 0 {
		return ctx
	}
	return seenBy(view.With(ctx, views[0]), views[1:])
}

// pass sends the request on as it was judged.
func (e *exchange) pass(next pipeline.Handler) error {
	r := e.r
	for _, term := range e.narrow {
		r = narrowed(r, term)
	}
	if len(e.narrow) > 0 && e.filter.Ask != nil {
		r, _ = e.filter.Ask(r)
	}
	if len(e.views) > 0 && r.Header.Get("Upgrade") != "" {
		return apierrors.NewBadRequest("what callers of this node see is looked at, which it cannot be on a WebSocket: send the request without Upgrade")
	}
	ctx := seenBy(limit.With(r.Context(), e.limits), e.views)
	if e.info.Verb == "watch" {
		w := &openWatch{question: *e.question, key: e.key + nobodys}
		for _, v := range e.views {
			w.views = append(w.views, v.changed)
		}
		ctx, w.end = view.WithEnd(context.WithValue(ctx, followedKey{}, true))
		defer e.filter.library.enter(w)()
	}
	return next.ServeHTTP(e.w, r.WithContext(ctx))
}

var _ pipeline.Filter = (*Filter)(nil)
