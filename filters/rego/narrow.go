package rego

import (
	"net/http"
	"reflect"

	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/portico-proxy/portico/core/config"
	"github.com/portico-proxy/portico/core/view"
	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
)

// everything is what exists where a policy shows all, or has failed and that is
// ignored. A watch that begins under it has to end when the policy shows less.
var everything = []World{{Spec: &v1alpha1.VirtualViewSpec{}, Key: "everything"}}

// Views reports whether policies may say what exists for somebody.
func (f *Filter) Views() bool { return len(*f.library.views.Load()) > 0 }

// see puts bindings of phase View in force. Watches end of those that do not go on
// as they were.
func (l *Library) see(now []*binding) {
	on := map[chan struct{}]bool{}
	was := *l.views.Load()
	for _, b := range now {
		b.changed = make(chan struct{})
		for _, old := range was {
			if old.name == b.name && old.policy == b.policy && reflect.DeepEqual(old.spec, b.spec) {
				b.changed = old.changed
			}
		}
		on[b.changed] = true
	}
	l.views.Store(&now)
	for _, old := range was {
		if !on[old.changed] {
			close(old.changed)
		}
	}
}

// Narrowed returns a watch that is open with what policies say exists for its caller
// now. An error says that it would be refused.
func (f *Filter) Narrowed(r *http.Request) (*http.Request, error) {
	r = r.WithContext(view.WithoutNarrowings(r.Context()))
	info, ok := request.RequestInfoFrom(r.Context())
	if !ok {
		return r, nil
	}
	return f.narrow(r, &Facts{Info: info, Request: r, Node: f.options.Node, Account: f.options.Account})
}

// narrow returns r with what policies say exists for who sends it, and for whom he
// would act as: those policies that are in force now, even if the configuration
// that r came with is not any more.
func (f *Filter) narrow(r *http.Request, facts *Facts) (*http.Request, error) {
	bindings := *f.library.views.Load()
	if len(bindings) == 0 || !facts.Info.IsResourceRequest {
		return r, nil
	}
	callers, unknown := config.CallersOf(r)
	if unknown != nil {
		callers = append(callers, nil) // whoever it is
	}
	var all []view.Narrowing
	for _, b := range bindings {
		for _, caller := range callers {
			if unknown == nil && !config.SentBy(&b.spec.Match, caller) {
				continue
			}
			of := *facts
			of.User = caller
			a, err := f.ask(b, &of, unknown, (*Policy).Selectors)
			if err != nil {
				return nil, err
			}
			f.tell(b.policy)
			worlds := a.Worlds
			if len(worlds) == 0 && !b.audits() {
				worlds = everything
			}
			for _, w := range worlds {
				all = append(all, view.Narrowing{Policy: b.name, Audits: b.audits(), Spec: w.Spec, Key: w.Key, Size: w.Size, Changed: b.changed})
			}
		}
	}
	if len(all) > 0 {
		r = r.WithContext(view.WithNarrowings(r.Context(), all...))
	}
	return r, nil
}
