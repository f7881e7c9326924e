package wasm

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"reflect"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/portico-proxy/portico/core/body"
	"github.com/portico-proxy/portico/core/config"
	"github.com/portico-proxy/portico/core/document"
	"github.com/portico-proxy/portico/core/pipeline"
	"github.com/portico-proxy/portico/core/telemetry"
	"github.com/portico-proxy/portico/core/view"
)

// becomeView makes b one that says what is seen. What it says is remembered, so it
// must not depend on anything but what it is remembered by.
func (b *binding) becomeView() {
	b.changed = make(chan struct{})
	if b.module == nil {
		return
	}
	if err := b.module.sees(); err != nil {
		b.module, b.err = nil, err
	}
}

// sees is an error if a module cannot say what is seen.
func (m *Module) sees() error {
	switch {
	case m.handler:
		return errNoObjects
	case len(m.spec.Capabilities) > 0:
		return errImpure
	}
	return nil
}

// View asks the module about an object of an answer, as bindings of phase View do. A
// denial and warnings reach nobody.
func (m *Module) View(ctx context.Context, facts Facts, object []byte) (ObjectVerdict, error) {
	if err := m.sees(); err != nil {
		return ObjectVerdict{}, err
	}
	return m.see(ctx, facts.ofViewer(), object)
}

// see tells the module of no event: what is seen is a function of the object. What
// names it, and its resourceVersion, no module can change.
func (m *Module) see(ctx context.Context, viewer Facts, object []byte) (ObjectVerdict, error) {
	v, err := m.Object(ctx, viewer, Pair{Current: object})
	if err == nil && v.Patched != nil {
		v.Patched, err = withoutEchoes(v.Patched)
	}
	return v, err
}

// keepViews lets those of now that are as they were before go on, so that their
// watches do.
func keepViews(before, now []*binding) {
	for i, b := range now {
		for _, old := range before {
			if old.name == b.name && old.key == b.key && old.module == b.module && reflect.DeepEqual(old.spec, b.spec) {
				now[i].changed = old.changed
			}
		}
	}
}

// endViews ends the watches of those views that do not go on.
func (f *Filter) endViews(next *Filter) {
	if next == nil {
		return // the proxy ends, and with it all watches
	}
	on := map[chan struct{}]bool{}
	for _, b := range next.views {
		on[b.changed] = true
	}
	for _, b := range f.views {
		if !on[b.changed] {
			close(b.changed)
		}
	}
}

// behindViews is next, whose answer shows what the modules of phase View leave.
func (f *Filter) behindViews(facts Facts, next pipeline.Handler) pipeline.Handler {
	if len(f.views) == 0 {
		return next
	}
	return pipeline.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		r, release, err := f.addViews(r, facts)
		defer release()
		if err != nil {
			return err
		}
		return next.ServeHTTP(w, r)
	})
}

// addViews adds those that concern r. Their modules stay until release is called.
func (f *Filter) addViews(r *http.Request, facts Facts) (_ *http.Request, release func(), err error) {
	var held []*Module
	release = func() {
		for _, m := range held {
			m.release(context.WithoutCancel(r.Context()))
		}
	}
	f, err = f.enter()
	if err != nil {
		return r, release, err
	}
	defer f.leave(r.Context())
	var sights []view.View
	for _, b := range f.views {
		switch {
		case !b.concerns(&facts):
		case facts.unknown != nil:
			err = f.unjudged(b, facts.unknown, time.Now())
		case b.module == nil:
			err = f.failed(b, b.err, time.Now())
		case b.module.onObject:
			b.module.hold()
			held = append(held, b.module)
			sights = append(sights, newSight(f, b, facts))
		}
		if err != nil {
			return r, release, err
		}
	}
	if len(sights) > 0 {
		r = r.WithContext(view.With(r.Context(), sights...))
	}
	return r, release, nil
}

// Sees returns what of its phase View narrows a watch that is open. Where it cannot be
// told, it does.
func (f *Filter) Sees(r *http.Request) (by []any) {
	info, ok := request.RequestInfoFrom(r.Context())
	if !ok {
		return nil
	}
	caller, unknown := config.CallerOf(r)
	facts := Facts{User: caller, Info: info, Request: r, unknown: unknown}
	for _, b := range f.views {
		fails := b.module == nil || unknown != nil
		if !b.audits() && b.concerns(&facts) && (fails && !b.ignores() || b.module != nil && b.module.onObject) {
			by = append(by, b.changed)
		}
	}
	return by
}

// sight is what a module says that one caller sees.
type sight struct {
	filter  *Filter
	binding *binding
	facts   Facts
	key     string
}

func newSight(f *Filter, b *binding, facts Facts) *sight {
	return &sight{f, b, facts.ofViewer(), b.name + b.key + keyOfCaller(facts.User)}
}

// ofViewer keeps from a module all that does not stay the same as long as the caller
// and the resource do.
func (f *Facts) ofViewer() Facts {
	info := &request.RequestInfo{
		IsResourceRequest: true, APIGroup: f.Info.APIGroup, APIVersion: f.Info.APIVersion, Resource: f.Info.Resource,
	}
	blank := &http.Request{Header: http.Header{}, URL: &url.URL{}}
	return Facts{User: f.User, Info: info, Request: blank, room: &body.Room{}}
}

// keyOfCaller is equal for callers of whom modules learn the same.
func keyOfCaller(u user.Info) string {
	// Strings, and nothing else, always marshal.
	text, _ := json.Marshal([]any{u.GetName(), u.GetUID(), u.GetGroups(), u.GetExtra()})
	return string(text)
}

func (s *sight) Key() string              { return s.key }
func (s *sight) Changed() <-chan struct{} { return s.binding.changed }

// See asks the module about o.
func (s *sight) See(ctx context.Context, o view.Object) ([]byte, error) {
	began := time.Now()
	v, err := s.binding.module.see(ctx, s.facts, o.JSON)
	switch {
	case err != nil:
		return s.failed(ctx, o, err, began)
	case v.Dropped:
		s.observe(telemetry.DecisionDeny, began)
	default:
		s.observe(telemetry.DecisionPass, began)
	}
	switch {
	case s.binding.audits():
		return o.JSON, nil
	case v.Dropped:
		return nil, nil
	case v.Patched != nil:
		return v.Patched, nil
	}
	return o.JSON, nil
}

// echoes repeat names and values of an object's fields, of such as a module has
// changed or taken out too.
var echoes = []string{"/metadata/managedFields", "/metadata/annotations/kubectl.kubernetes.io~1last-applied-configuration"}

func withoutEchoes(object []byte) ([]byte, error) {
	for _, pointer := range echoes {
		left, err := document.Remove(object, pointer)
		if errors.Is(err, document.ErrNotThere) {
			continue
		}
		if err != nil {
			return nil, err
		}
		object = left
	}
	return object, nil
}

func (s *sight) observe(decision string, began time.Time) {
	s.filter.observe(s.binding.spec, s.binding.name, decision, time.Since(began))
}

// failed never hides the object. That it is shown whole once, where failures are
// ignored, is no reason to show it so for good.
func (s *sight) failed(ctx context.Context, o view.Object, err error, began time.Time) ([]byte, error) {
	s.observe(telemetry.DecisionError, began)
	if s.binding.audits() {
		return o.JSON, nil
	}
	if s.binding.ignores() {
		view.Doubt(ctx)
		return o.JSON, nil
	}
	status := apierrors.NewInternalError(err)
	status.ErrStatus.Message = "filter " + s.binding.name + ": " + err.Error()
	return nil, status
}

var _ view.View = (*sight)(nil)
