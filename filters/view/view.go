// Package view shows each caller his own world: namespaces, objects and fields
// that do not exist for him are as if nobody had made them.
package view

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/portico-proxy/portico/core/body"
	"github.com/portico-proxy/portico/core/config"
	"github.com/portico-proxy/portico/core/pipeline"
	"github.com/portico-proxy/portico/core/telemetry"
	"github.com/portico-proxy/portico/core/view"
	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
)

// Filter has each request meet its caller's views. It fails closed.
type Filter struct{ library *Library }

// Binds reports whether there is anything to do for any request.
func (f *Filter) Binds() bool { return len(*f.library.current.Load()) > 0 }

// Name is "view".
func (f *Filter) Name() string { return "view" }

// Needs reports whether r may have a view, so that its caller must be known.
func (f *Filter) Needs(r *http.Request) bool {
	info, ok := request.RequestInfoFrom(r.Context())
	return ok && (info.IsResourceRequest || isDiscovery(r) && f.hiding())
}

// ServeHTTP has r meet one view after the other. It takes those that are in force
// now, even if the configuration that it came with is not any more.
func (f *Filter) ServeHTTP(w http.ResponseWriter, r *http.Request, next pipeline.Handler) error {
	if !f.Needs(r) {
		return next.ServeHTTP(w, r)
	}
	var all []*lens
	callers, unknown := config.CallersOf(r)
	for _, world := range *f.library.current.Load() {
		switch l := world.lens.Load(); {
		case unknown != nil && !l.audits:
			return unknown
		case unknown == nil && l.isOf(callers):
			all = append(all, l)
		}
	}
	for _, n := range view.NarrowingsFrom(r.Context()) {
		l, err := f.library.lensOf(&n)
		if err != nil {
			return err
		}
		all = append(all, l)
	}
	if isDiscovery(r) {
		return discover(all, next).ServeHTTP(w, r)
	}
	room := &body.Room{}
	defer room.Keep(0)
	return f.through(all, room, next).ServeHTTP(w, r)
}

// discover returns next behind those lenses that hide whole resources.
func discover(all []*lens, next pipeline.Handler) pipeline.Handler {
	h := hides(slices.DeleteFunc(all, func(l *lens) bool { return !l.hidesResources() }))
	if len(h) == 0 {
		return next
	}
	return pipeline.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error { return h.discover(w, r, next) })
}

// through returns next behind all of some lenses, which look at what is written in
// one room.
func (f *Filter) through(all []*lens, room *body.Room, next pipeline.Handler) pipeline.Handler {
	if len(all) == 0 {
		return next
	}
	l, next := all[0], f.through(all[1:], room, next)
	return pipeline.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		s := &sight{lens: l, asked: readAsked(r), next: next, began: time.Now(), observe: f.library.options.Observe, rooms: f.library.options.Rooms, room: room}
		if l.audits {
			return s.audit(w, r, f.library.options.Log)
		}
		return s.serve(w, r)
	})
}

// Sees returns the lenses that may keep from the caller of a watch something of what
// it shows.
func (f *Filter) Sees(r *http.Request) (by []any) {
	info, ok := request.RequestInfoFrom(r.Context())
	if !ok || !info.IsResourceRequest {
		return nil
	}
	a := readAsked(r)
	callers, unknown := config.CallersOf(r)
	for _, world := range *f.library.current.Load() {
		l := world.lens.Load()
		if !l.audits && (unknown != nil || l.isOf(callers)) && l.narrows(&a) {
			by = append(by, l.id())
		}
	}
	for _, n := range view.NarrowingsFrom(r.Context()) {
		l, err := f.library.lensOf(&n)
		if !n.Audits && (err != nil || l.narrows(&a)) {
			by = append(by, madeKey{n.Changed, n.Key})
		}
	}
	return by
}

// Met returns the lenses that a watch has gone through, each as [Filter.Sees] does.
func Met(r *http.Request) (by []any) {
	for _, v := range view.From(r.Context()) {
		if l, is := v.(*lens); is {
			by = append(by, l.id())
		}
	}
	return by
}

// id tells a lens from others for as long as it sees the same.
func (l *lens) id() any {
	if l.made {
		return madeKey{l.changed, l.key}
	}
	return l.changed
}

// isOf reports whether a lens is one of these callers'.
func (l *lens) isOf(callers []user.Info) bool {
	for _, c := range callers {
		if config.SentBy(&l.subjects, c) {
			return true
		}
	}
	return false
}

// unavailable is a refusal that clients try again after a second.
func unavailable(message string) error {
	err := apierrors.NewServiceUnavailable(message)
	err.ErrStatus.Details = &metav1.StatusDetails{RetryAfterSeconds: 1}
	return err
}

// isImpossible is what no object's labels fit.
const isImpossible = "proxy.elf.io/none,!proxy.elf.io/none"

// audit says what would not exist, and leaves r alone.
func (s *sight) audit(w http.ResponseWriter, r *http.Request, log logr.Logger) error {
	decision := telemetry.DecisionPass
	switch {
	case s.lens.unknown:
		decision = telemetry.DecisionError
	case !s.lens.mayBe(s.asked.key):
		decision = telemetry.DecisionDeny
		log.Info("would not exist", "view", s.lens.name, "verb", s.asked.info.Verb, "resource", s.asked.resource.String(),
			"namespace", s.asked.namespace, "name", strings.ToValidUTF8(s.asked.name, ""))
	}
	s.tell(decision)
	return s.next.ServeHTTP(w, r)
}

// tell counts what was decided. Who made the lens has counted that it passed.
func (s *sight) tell(decision string) {
	if s.lens.made && decision == telemetry.DecisionPass {
		return
	}
	mode := v1alpha1.ModeEnforce
	if s.lens.audits {
		mode = v1alpha1.ModeAudit
	}
	s.observe(s.lens.name, mode, decision, time.Since(s.began))
}

var _ pipeline.Filter = (*Filter)(nil)
