// Package rego asks policies in Rego whether a request may pass, and to what
// limits it is kept. It alone knows OPA.
package rego

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/portico-proxy/portico/core/config"
	"github.com/portico-proxy/portico/core/limit"
	"github.com/portico-proxy/portico/core/pipeline"
	"github.com/portico-proxy/portico/core/telemetry"
	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
)

// A binding is a policy and when it is asked.
type binding struct {
	name   string
	spec   *v1alpha1.FilterBindingSpec
	policy *Policy // nil if it could not be had
	digest string  // of what policy was made of
	err    error   // why it could not

	changed chan struct{} // of one of phase View: closed when another takes its place
}

func (b *binding) audits() bool { return b.spec.Mode == v1alpha1.ModeAudit }

func (b *binding) throttles() bool { return b.spec.Phase == v1alpha1.PhaseThrottle }

// ignores reports what becomes of a request if the policy fails: unless the
// binding says otherwise, who throttles lets it pass.
func (b *binding) ignores() bool {
	if b.spec.FailurePolicy == "" {
		return b.throttles()
	}
	return b.spec.FailurePolicy == v1alpha1.FailurePolicyIgnore
}

// question is what a binding asks; nil if its policy has no answer to that.
func (b *binding) question() *question {
	switch b.spec.Phase {
	case v1alpha1.PhaseThrottle:
		return b.policy.limits
	case v1alpha1.PhaseView:
		return b.policy.selectors
	}
	return b.policy.decision
}

// asked is [binding.question], or nil if there is no policy.
func (b *binding) asked() *question {
	if b.policy == nil {
		return nil
	}
	return b.question()
}

// names reports that the binding's author means just such requests, and not
// those of a kind.
func (b *binding) names(info *request.RequestInfo, caller user.Info) bool {
	m := &b.spec.Match
	return caller != nil && slices.Contains(m.Users, caller.GetName()) ||
		slices.ContainsFunc(m.Resources, func(r v1alpha1.MatchedResource) bool {
			resource, _, _ := strings.Cut(r.Resource, "/")
			return resource == info.Resource && r.Group == info.APIGroup
		})
}

// Filter asks the policies that are bound to a request.
type Filter struct {
	options  *Options
	library  *Library        // has those of phase View
	faulted  chan<- struct{} // takes one when a policy has failed first
	restrict []*binding      // in their order
	throttle []*binding
}

// Name is "rego".
func (f *Filter) Name() string { return "rego" }

// Binds reports whether there is anything to do for any request.
func (f *Filter) Binds() bool { return len(f.restrict)+len(f.throttle) > 0 || f.Views() }

// Throttles reports whether there may be limits.
func (f *Filter) Throttles() bool { return len(f.throttle) > 0 }

// Needs reports whether some policy may be asked about r, so that its caller
// must be known.
func (f *Filter) Needs(r *http.Request) bool {
	info, ok := request.RequestInfoFrom(r.Context())
	if !ok {
		return false
	}
	concerned := func(b *binding) bool { return config.Concerns(&b.spec.Match, info, r.UserAgent()) }
	restricts := slices.ContainsFunc(f.restrict, concerned)
	return restricts || info.IsResourceRequest && f.Views() || slices.ContainsFunc(f.throttle, func(b *binding) bool {
		return concerned(b) && (!limit.Exempt(info, nil) || b.names(info, nil) || len(b.spec.Match.Users) > 0)
	})
}

// ServeHTTP refuses r if a policy denies it, and otherwise passes it on with the
// limits that policies set for it.
func (f *Filter) ServeHTTP(w http.ResponseWriter, r *http.Request, next pipeline.Handler) error {
	if !f.Needs(r) {
		return next.ServeHTTP(w, r)
	}
	info, _ := request.RequestInfoFrom(r.Context())
	caller, unknown := config.CallerOf(r)
	facts := &Facts{User: caller, Info: info, Request: r, Node: f.options.Node, Servable: f.options.Servable(r), Account: f.options.Account}
	for _, b := range f.restrict {
		if !f.concerns(b, facts) {
			continue
		}
		if err := f.judge(w, b, facts, unknown); err != nil {
			return err
		}
	}
	limits, err := f.limits(facts, unknown)
	if err != nil {
		return err
	}
	if len(limits) > 0 {
		r = r.WithContext(limit.With(r.Context(), limits))
	}
	r, err = f.narrow(r, facts)
	if err != nil {
		return err
	}
	return next.ServeHTTP(w, r)
}

// limits are those that all policies together set for a request.
func (f *Filter) limits(facts *Facts, unknown error) ([]limit.Limit, error) {
	var all []limit.Limit
	for _, b := range f.throttle {
		if !f.concerns(b, facts) || limit.Exempt(facts.Info, facts.User) && !b.names(facts.Info, facts.User) {
			continue
		}
		limits, err := f.bound(b, facts, unknown)
		if err != nil {
			return nil, err
		}
		all = append(all, limits...)
	}
	return all, nil
}

// concerns reports whether b is about a request. Of a caller who is not known it
// is about whoever that may be.
func (f *Filter) concerns(b *binding, facts *Facts) bool {
	return config.Concerns(&b.spec.Match, facts.Info, facts.Request.UserAgent()) && (facts.User == nil || config.SentBy(&b.spec.Match, facts.User))
}

// ask asks a binding's policy, and says what it decided.
func (f *Filter) ask(b *binding, facts *Facts, unknown error, ask func(*Policy, context.Context, *Facts) (Answer, error)) (Answer, error) {
	began := time.Now()
	var a Answer
	err := b.err
	switch {
	case unknown != nil:
		err = unknown
	case b.policy != nil:
		if a, err = ask(b.policy, facts.Request.Context(), facts); err != nil {
			f.blame(facts.Request.Context(), b, err)
		}
	}
	decision := telemetry.DecisionPass
	switch {
	case err != nil:
		decision = telemetry.DecisionError
	case len(a.Deny) > 0:
		decision = telemetry.DecisionDeny
	}
	took := time.Since(began)
	f.options.Observe(b.spec, b.name, decision, took)
	f.options.Decisions.record(&decided{binding: b, facts: facts, known: unknown == nil, answer: a, said: decision, err: err, took: took})
	if err != nil {
		return Answer{}, f.failed(b, err, unknown != nil)
	}
	return a, nil
}

// judge asks whether a request may pass.
func (f *Filter) judge(w http.ResponseWriter, b *binding, facts *Facts, unknown error) error {
	a, err := f.ask(b, facts, unknown, (*Policy).Decide)
	if err != nil {
		return err
	}
	if b.audits() {
		if len(a.Deny) > 0 {
			f.options.Log.Info("would refuse", "binding", b.name, "reason", strings.Join(a.Deny, "; "))
		}
		return nil
	}
	for _, text := range a.Warn {
		if header, err := utilnet.NewWarningHeader(299, "-", printable(text)); err == nil {
			w.Header().Add("Warning", header)
		}
	}
	if len(a.Deny) == 0 {
		return nil
	}
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusForbidden, Reason: metav1.StatusReasonForbidden,
		Message: strings.Join(a.Deny, "; ") + " (filter " + b.name + ")",
	}}
}

// bound asks to what limits a request is kept.
func (f *Filter) bound(b *binding, facts *Facts, unknown error) ([]limit.Limit, error) {
	a, err := f.ask(b, facts, unknown, (*Policy).Limits)
	if err != nil || !b.audits() {
		return a.Limits, err
	}
	audited := slices.Clone(a.Limits)
	for i := range audited {
		audited[i].Audit = true
	}
	return audited, nil
}

// failed is what becomes of a request whose policy failed: nil if it passes.
func (f *Filter) failed(b *binding, err error, unknown bool) error {
	if b.audits() || b.ignores() {
		f.options.Log.V(1).Info("policy failed; the request passes", "binding", b.name, "reason", err.Error())
		return nil
	}
	if unknown {
		return err
	}
	message := "filter " + b.name + ": " + err.Error()
	if b.policy == nil || errors.Is(err, errDeadline) {
		unavailable := apierrors.NewServiceUnavailable(message)
		unavailable.ErrStatus.Details = &metav1.StatusDetails{RetryAfterSeconds: 1}
		return unavailable
	}
	status := apierrors.NewInternalError(err)
	status.ErrStatus.Message = message
	return status
}

// maxWarning is the longest warning, in bytes.
const maxWarning = 512

// printable makes what a policy says fit for a header.
func printable(s string) string {
	s = strings.Map(func(c rune) rune {
		if c < ' ' || c > '~' {
			return ' '
		}
		return c
	}, s)
	return s[:min(len(s), maxWarning)]
}

var _ pipeline.Filter = (*Filter)(nil)
