package wasm

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/portico-proxy/portico/core/body"
	"github.com/portico-proxy/portico/core/config"
	"github.com/portico-proxy/portico/core/pipeline"
	"github.com/portico-proxy/portico/core/telemetry"
	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
)

// A binding is a module and when it runs.
type binding struct {
	name   string
	spec   *v1alpha1.FilterBindingSpec
	module *Module // nil if it could not be had
	err    error   // why it could not

	// Of a view: the key of its module, and what is closed when another takes its
	// place.
	key     string
	changed chan struct{}
}

func (b *binding) audits() bool  { return b.spec.Mode == v1alpha1.ModeAudit }
func (b *binding) ignores() bool { return b.spec.FailurePolicy == v1alpha1.FailurePolicyIgnore }

// concerns reports whether b is about a request. Of a caller who is not known it
// is about whoever that may be.
func (b *binding) concerns(facts *Facts) bool {
	return config.Concerns(&b.spec.Match, facts.Info, facts.Request.UserAgent()) && (facts.unknown != nil || config.SentBy(&b.spec.Match, facts.User))
}

// An Observer is told what a binding decided, and how long that took.
type Observer func(binding *v1alpha1.FilterBindingSpec, name, decision string, took time.Duration)

// Filter runs the modules that are bound to a request. It fails closed.
type Filter struct {
	log      logr.Logger
	observe  Observer
	rooms    *body.Rooms
	bindings []*binding // in their order
	views    []*binding // those of phase View

	mu      sync.Mutex // guards following
	users   int        // requests that are being judged
	retired bool
	next    *Filter // what judges once this one is retired; nil when the proxy ends
}

// newFilter holds its bindings' modules until it is retired and nobody uses it.
func newFilter(bindings, views []*binding, rooms *body.Rooms, observe Observer, log logr.Logger) *Filter {
	f := &Filter{log: log, observe: observe, rooms: rooms, bindings: bindings, views: views}
	f.each(func(m *Module) { m.hold() })
	return f
}

// each calls do for the module of each binding that has one.
func (f *Filter) each(do func(*Module)) {
	for _, b := range slices.Concat(f.bindings, f.views) {
		if b.module != nil {
			do(b.module)
		}
	}
}

// retire makes next judge all requests that come from now on.
func (f *Filter) retire(ctx context.Context, next *Filter) {
	f.mu.Lock()
	f.retired, f.next = true, next
	idle := f.users == 0
	f.mu.Unlock()
	f.endViews(next)
	if idle {
		f.free(ctx)
	}
}

func (f *Filter) free(ctx context.Context) { f.each(func(m *Module) { m.release(ctx) }) }

// enter returns the filter that judges now, which is f or came after it. Whoever
// enters it leaves it. A request that began with an older chain is so judged
// by the newest policies, and an old module can be closed.
func (f *Filter) enter() (*Filter, error) {
	for first := f; f != nil; {
		f.mu.Lock()
		next := f.next
		if !f.retired {
			f.users++
			f.mu.Unlock()
			first.shorten(f)
			return f, nil
		}
		f.mu.Unlock()
		f = next
	}
	return nil, unavailable("the proxy is shutting down")
}

// shorten lets go of all filters between f and one that came after it.
func (f *Filter) shorten(to *Filter) {
	if f == to {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.next = to
}

func (f *Filter) leave(ctx context.Context) {
	f.mu.Lock()
	f.users--
	last := f.retired && f.users == 0
	f.mu.Unlock()
	if last {
		f.free(context.WithoutCancel(ctx))
	}
}

// Binds reports whether there is anything to do for any request.
func (f *Filter) Binds() bool { return len(f.bindings)+len(f.views) > 0 }

// Name is "wasm".
func (f *Filter) Name() string { return "wasm" }

// Needs reports whether some module may run for r, so that its caller must be
// known.
func (f *Filter) Needs(r *http.Request) bool {
	info, ok := request.RequestInfoFrom(r.Context())
	concerned := func(b *binding) bool { return config.Concerns(&b.spec.Match, info, r.UserAgent()) }
	return ok && (slices.ContainsFunc(f.bindings, concerned) || slices.ContainsFunc(f.views, concerned))
}

// ServeHTTP asks each module that is bound to r, in order.
func (f *Filter) ServeHTTP(w http.ResponseWriter, r *http.Request, next pipeline.Handler) error {
	if !f.Needs(r) {
		return next.ServeHTTP(w, r)
	}
	info, _ := request.RequestInfoFrom(r.Context())
	caller, unknown := config.CallerOf(r)
	began := time.Now()
	facts := Facts{User: caller, Info: info, Request: r, unknown: unknown, room: &body.Room{}, passed: &passes{}}
	defer facts.room.Keep(0)
	defer facts.passed.end(r.Context())
	r, asked, err := f.ask(w, facts, next)
	next = facts.passed.around(f.behindViews(facts, next))
	if len(asked) == 0 {
		if err != nil {
			return err
		}
		return next.ServeHTTP(w, r)
	}
	return f.follow(w, r, asked, ended{facts, began, next, err})
}

// ask has each module judge, and returns the request as it shall go on and the
// names of those bindings whose modules want to know how it ends.
func (f *Filter) ask(w http.ResponseWriter, facts Facts, next pipeline.Handler) (_ *http.Request, ending []string, err error) {
	f, err = f.enter()
	if err != nil {
		return nil, nil, err
	}
	defer f.leave(facts.Request.Context())
	for _, b := range f.bindings {
		if !b.concerns(&facts) {
			continue
		}
		if facts.unknown != nil {
			if err := f.unjudged(b, facts.unknown, time.Now()); err != nil {
				return nil, ending, err
			}
			continue
		}
		if b.module != nil && b.module.handler {
			if facts.Request, err = f.handle(w, b, facts); err != nil {
				return nil, ending, err
			}
			continue
		}
		if b.module != nil && b.module.onEnd {
			ending = append(ending, b.name)
		}
		if err := f.judge(w, b, facts); err != nil {
			return nil, ending, err
		}
		if facts.Request, err = f.judgeObject(w, b, facts, next); err != nil {
			return nil, ending, err
		}
	}
	facts.room.Keep(body.SizeOf(facts.Request))
	return facts.Request, ending, nil
}

func (f *Filter) judge(w http.ResponseWriter, b *binding, facts Facts) error {
	began := time.Now()
	if b.module == nil {
		return f.failed(b, b.err, began)
	}
	v, err := b.module.Request(facts.Request.Context(), facts)
	if err != nil {
		return f.failed(b, err, began)
	}
	return f.decide(w, b, v, began)
}

// decide does what a module says, or only tells of it.
func (f *Filter) decide(w http.ResponseWriter, b *binding, v Verdict, began time.Time) error {
	decision := telemetry.DecisionPass
	if v.Denial != nil {
		decision = telemetry.DecisionDeny
	}
	f.observe(b.spec, b.name, decision, time.Since(began))
	if b.audits() {
		if v.Denial != nil {
			f.log.Info("would refuse", "binding", b.name, "code", v.Denial.Code, "reason", v.Denial.Message)
		}
		return nil
	}
	for _, text := range v.Warnings {
		if header, err := utilnet.NewWarningHeader(299, "-", text); err == nil {
			w.Header().Add("Warning", header)
		}
	}
	if v.Denial == nil {
		return nil
	}
	return v.Denial.status(b.name)
}

// unjudged is what becomes of a request that no module can be asked about: why is
// what its caller is told if it is refused.
func (f *Filter) unjudged(b *binding, why error, began time.Time) error {
	f.observe(b.spec, b.name, telemetry.DecisionError, time.Since(began))
	if b.audits() || b.ignores() {
		f.log.Info("the request cannot be judged, and passes", "binding", b.name, "reason", why.Error())
		return nil
	}
	return why
}

// failed is what becomes of a request whose module failed.
func (f *Filter) failed(b *binding, err error, began time.Time) error {
	f.observe(b.spec, b.name, telemetry.DecisionError, time.Since(began))
	if b.audits() || b.ignores() {
		f.log.Error(err, "filter failed; the request passes", "binding", b.name)
		return nil
	}
	if errors.Is(err, errNotKnown) {
		err = errNotKnown // why is the operator's business
	}
	message := "filter " + b.name + ": " + err.Error()
	if b.module == nil || errors.Is(err, errBusy) || errors.Is(err, errNotKnown) {
		return unavailable(message)
	}
	f.log.Error(err, "filter failed; the request is refused", "binding", b.name)
	status := apierrors.NewInternalError(err)
	status.ErrStatus.Message = message
	return status
}

// unavailable is a refusal that clients try again after a second.
func unavailable(message string) error {
	err := apierrors.NewServiceUnavailable(message)
	err.ErrStatus.Details = &metav1.StatusDetails{RetryAfterSeconds: 1}
	return err
}

// judgeObject asks about the object that a request carries, or makes, if there is
// one, and returns the request as it shall go on.
func (f *Filter) judgeObject(w http.ResponseWriter, b *binding, facts Facts, next pipeline.Handler) (*http.Request, error) {
	r := facts.Request
	switch {
	case b.module == nil || !b.module.onObject:
		return r, nil
	case !body.Changes(r, facts.Info) && !body.Carries(r, facts.Info):
		return r, nil
	}
	began := time.Now()
	if err := f.rooms.Enter(facts.room, r, facts.User); err != nil {
		return r, f.unjudged(b, err, began)
	}
	if body.Changes(r, facts.Info) {
		return f.judgePatch(w, b, facts, next)
	}
	unlimited := f.rooms.Limit(w)
	r, object, err := body.Object(r)
	unlimited()
	if err != nil {
		return r, f.unjudged(b, err, began)
	}
	v, err := b.module.Object(r.Context(), facts, Pair{Current: object})
	if err != nil {
		return r, f.failed(b, err, began)
	}
	if err := f.decide(w, b, Verdict{Denial: v.Refusal(), Warnings: v.Warnings}, began); err != nil {
		return nil, err
	}
	if v.Patched != nil && !b.audits() {
		r = body.WithObject(r, v.Patched)
	}
	return r, nil
}

// status is what the caller is told.
func (d *Denial) status(filter string) error {
	reason := metav1.StatusReason(strings.ReplaceAll(d.Reason, " ", ""))
	s := metav1.Status{
		Status: metav1.StatusFailure, Code: int32(d.Code), Reason: cmp.Or(reason, metav1.StatusReasonForbidden),
		Message: cmp.Or(d.Message, "refused") + " (filter " + filter + ")",
	}
	if d.RetryAfter > 0 {
		s.Details = &metav1.StatusDetails{RetryAfterSeconds: int32(d.RetryAfter)}
	}
	return &apierrors.StatusError{ErrStatus: s}
}

var _ pipeline.Filter = (*Filter)(nil)
