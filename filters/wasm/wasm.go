package wasm

import (
	"cmp"
	"net/http"
	"slices"
	"strings"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/portico-proxy/portico/core/pipeline"
	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
)

// A Binding is a module and when it runs.
type Binding struct {
	Name   string
	Spec   v1alpha1.FilterBindingSpec
	Module *Module
}

func (b *Binding) audits() bool  { return b.Spec.Mode == v1alpha1.ModeAudit }
func (b *Binding) ignores() bool { return b.Spec.FailurePolicy == v1alpha1.FailurePolicyIgnore }

// Filter runs the modules that are bound to a request. It fails closed.
type Filter struct {
	log      logr.Logger
	bindings []*Binding // in their order
}

// New returns the filter of these bindings, whose modules it does not own.
func New(bindings []*Binding, log logr.Logger) *Filter {
	bindings = slices.SortedFunc(slices.Values(bindings), func(a, b *Binding) int {
		return cmp.Or(cmp.Compare(b.Spec.Priority, a.Spec.Priority), cmp.Compare(a.Name, b.Name))
	})
	return &Filter{log: log, bindings: bindings}
}

// Name is "wasm".
func (f *Filter) Name() string { return "wasm" }

// Needs reports whether some module may run for r, so that its caller must be
// known.
func (f *Filter) Needs(r *http.Request) bool {
	info, ok := request.RequestInfoFrom(r.Context())
	return ok && slices.ContainsFunc(f.bindings, func(b *Binding) bool { return concerns(&b.Spec.Match, info, r.UserAgent()) })
}

// ServeHTTP asks each module that is bound to r, in order.
func (f *Filter) ServeHTTP(w http.ResponseWriter, r *http.Request, next pipeline.Handler) error {
	info, ok := request.RequestInfoFrom(r.Context())
	if !ok || !f.Needs(r) {
		return next.ServeHTTP(w, r)
	}
	caller, err := callerOf(r)
	if err != nil {
		return err
	}
	for _, b := range f.bindings {
		if !concerns(&b.Spec.Match, info, r.UserAgent()) || !sentBy(&b.Spec.Match, caller) {
			continue
		}
		facts := Facts{User: caller, Info: info, Request: r}
		if err := f.judge(w, b, facts); err != nil {
			return err
		}
		if r, err = f.judgeObject(w, b, facts); err != nil {
			return err
		}
	}
	return next.ServeHTTP(w, r)
}

// callerOf returns who sent r. A credential that nobody could review must not
// lead past what is bound to its owner.
func callerOf(r *http.Request) (user.Info, error) {
	if caller, ok := request.UserFrom(r.Context()); ok {
		return caller, nil
	}
	if r.Header.Get("Authorization") != "" || r.Header.Get("Sec-Websocket-Protocol") != "" {
		return nil, apierrors.NewUnauthorized("Unauthorized")
	}
	return &user.DefaultInfo{Name: user.Anonymous, Groups: []string{user.AllUnauthenticated}}, nil
}

func (f *Filter) judge(w http.ResponseWriter, b *Binding, facts Facts) error {
	v, err := b.Module.Request(facts.Request.Context(), facts)
	if err != nil {
		return f.failed(b, err)
	}
	return f.decide(w, b, v)
}

// decide does what a module says, or only tells of it.
func (f *Filter) decide(w http.ResponseWriter, b *Binding, v Verdict) error {
	if b.audits() {
		if v.Denial != nil {
			f.log.Info("would refuse", "binding", b.Name, "code", v.Denial.Code, "reason", v.Denial.Message)
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
	return v.Denial.status(b.Name)
}

// failed is what becomes of a request whose module failed.
func (f *Filter) failed(b *Binding, err error) error {
	if b.audits() || b.ignores() {
		f.log.Error(err, "filter failed; the request passes", "binding", b.Name)
		return nil
	}
	status := apierrors.NewInternalError(err)
	status.ErrStatus.Message = "filter " + b.Name + ": " + err.Error()
	return status
}

// judgeObject asks about the object that a request carries, if it carries one,
// and returns the request as it shall go on.
func (f *Filter) judgeObject(w http.ResponseWriter, b *Binding, facts Facts) (*http.Request, error) {
	r := facts.Request
	if !b.Module.onObject || !carriesObject(r, facts.Info) {
		return r, nil
	}
	raw, object, err := readObject(r)
	if err != nil {
		return nil, err
	}
	r = withBody(r, raw)
	v, err := b.Module.Object(r.Context(), facts, Pair{Current: object})
	if err != nil {
		return r, f.failed(b, err)
	}
	if v.Dropped && v.Denial == nil {
		v.Denial = &Denial{Code: http.StatusForbidden, Message: "refused by a policy"}
	}
	if err := f.decide(w, b, Verdict{Denial: v.Denial, Warnings: v.Warnings}); err != nil {
		return nil, err
	}
	if v.Patched != nil && !b.audits() {
		r = patched(r, v.Patched)
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
