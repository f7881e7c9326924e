package view

import (
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/portico-proxy/portico/core/body"
	"github.com/portico-proxy/portico/core/names"
	"github.com/portico-proxy/portico/core/pipeline"
	"github.com/portico-proxy/portico/core/telemetry"
	"github.com/portico-proxy/portico/core/view"
	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
)

// A sight is one request through one lens.
type sight struct {
	lens    *lens
	asked   asked
	next    pipeline.Handler
	began   time.Time
	observe func(view string, mode v1alpha1.FilterMode, decision string, took time.Duration)
	rooms   *body.Rooms
	room    *body.Room // the request's, whichever lens it is at
}

var (
	errChanged   = errors.New("what exists for the caller changed while it was listed")
	errNodeProxy = errors.New("a node shows more than exists for you")
	errBinding   = errors.New("it does not say which pod it is about: use the pod's own subresource")
	errScale     = errors.New("it shows, and changes, fields that are hidden from you")
	errOutside   = errors.New("it would not exist for you")
	errUnclear   = errors.New("no selector says which of them exist for you: delete them one by one")
)

// serve answers r as the world that the caller sees would.
func (s *sight) serve(w http.ResponseWriter, r *http.Request) error {
	if s.lens.unknown {
		s.tell(telemetry.DecisionError)
		return unavailable("which namespaces exist for you is not known yet")
	}
	if s.lens.names != nil && s.lens.names.Key() != names.From(r.Context()).Key() {
		s.tell(telemetry.DecisionError)
		return unavailable("what namespaces are called for you has changed: try again")
	}
	next, err := s.judge(r)
	if err != nil {
		s.tell(telemetry.DecisionDeny)
		return err
	}
	s.tell(telemetry.DecisionPass)
	return next.ServeHTTP(w, r)
}

// judge refuses r, or says who goes on with it.
func (s *sight) judge(r *http.Request) (pipeline.Handler, error) {
	switch {
	case s.lens.isOpen():
		return pipeline.HandlerFunc(s.all), nil
	case s.asked.isNodeProxy():
		return nil, apierrors.NewForbidden(s.asked.resource, s.asked.name, errNodeProxy)
	case s.asked.resource == bindingResource && s.lens.judges(podResource):
		return nil, apierrors.NewForbidden(s.asked.resource, s.asked.name, errBinding)
	case s.asked.subresource == "scale" && s.lens.masksOf(s.asked.resource).touchScale(s.asked.resource):
		return nil, apierrors.NewForbidden(s.asked.resource, s.asked.name, errScale)
	case s.asked.isSelfReview():
		return pipeline.HandlerFunc(s.review), nil
	}
	switch s.asked.info.Verb {
	case "list", "watch", "deletecollection":
		return pipeline.HandlerFunc(s.many), s.selectable(r)
	}
	if !s.lens.mayBe(s.asked.key) {
		return nil, s.absent(r)
	}
	return pipeline.HandlerFunc(s.one), nil
}

// one serves a request for one object that may exist, or for one to be made.
func (s *sight) one(w http.ResponseWriter, r *http.Request) error {
	a := &s.asked
	looks := s.lens.looks(a.resource)
	switch {
	case a.name == "" && a.info.Verb == "create":
		return s.create(w, r)
	case a.info.Verb == "get" && a.subresource == "":
		return s.shown(w, r)
	case a.info.Verb == "delete" && a.subresource == "" && looks:
		return s.delete(w, r)
	case a.isWhole() && (a.info.Verb == "update" || a.info.Verb == "patch") && (looks || len(s.lens.masksOf(a.resource)) > 0):
		return s.change(w, r)
	case looks && a.subresource != "":
		if _, err := s.current(r); err != nil {
			return err
		}
	}
	if a.isWhole() {
		return s.shown(w, r)
	}
	return s.next.ServeHTTP(w, r)
}

// shown has the answer's objects seen through the lens.
func (s *sight) shown(w http.ResponseWriter, r *http.Request) error {
	return s.next.ServeHTTP(w, r.WithContext(view.With(r.Context(), s.lens)))
}

// all serves a request to which everything exists: what it shows is not looked at,
// but a watch ends, and a list breaks off, when less does.
func (s *sight) all(w http.ResponseWriter, r *http.Request) error {
	switch s.asked.info.Verb {
	case "watch":
		if err := s.resumes(r); err != nil {
			return err
		}
		return s.shown(w, r)
	case "list":
		if err := s.next.ServeHTTP(w, r); err != nil || !s.lens.isOver() {
			return err
		}
		return errChanged
	}
	return s.next.ServeHTTP(w, r)
}

// absent is what the API server says of what does not exist.
func (s *sight) absent(r *http.Request) error {
	a := &s.asked
	if a.namespace != "" && !s.lens.shows(a.namespace) && (a.info.Verb == "create" && a.name == "" || isApply(r)) {
		return apierrors.NewNotFound(namespaceResource, a.namespace)
	}
	if a.info.Verb == "create" && a.name == "" || isApply(r) {
		return apierrors.NewForbidden(a.resource, a.name, errOutside)
	}
	return apierrors.NewNotFound(a.resource, a.name)
}

// many serves a request for all that exists, or for all of it that is selected.
func (s *sight) many(w http.ResponseWriter, r *http.Request) error {
	a := &s.asked
	switch selector := s.lens.selects(a.resource); {
	case isAbout(s.lens.hidden, a.resource), a.namespace != "" && !s.lens.shows(a.namespace):
		r = narrowed(r, isImpossible)
	case a.info.Verb == "deletecollection" && s.lens.judges(a.resource) && (selector == nil || s.lens.names.MayHide(a.resource)):
		return apierrors.NewForbidden(a.resource, "", errUnclear)
	case selector != nil:
		r = narrowed(r, selector.String())
	}
	switch a.info.Verb {
	case "watch":
		if err := s.resumes(r); err != nil {
			return err
		}
	case "list":
		if err := s.shown(w, r); err != nil {
			return err
		}
		if s.lens.isOver() {
			// A watch from here would not tell what has changed since.
			return errChanged
		}
		return nil
	}
	return s.shown(w, r)
}

// selects returns a selector that means the same as the lens does, but for what names
// of namespaces hide, if there is one.
func (l *lens) selects(k schema.GroupResource) labels.Selector {
	rules := l.rulesOf(k)
	if len(rules) != 1 || l.follows(k) || k == namespaceResource && l.limits != nil {
		return nil
	}
	return rules[0].selects()
}

// narrowed returns r with one more label selector.
func narrowed(r *http.Request, selector string) *http.Request {
	if selector == "" {
		return r
	}
	u := *r.URL
	query := u.Query()
	if asked := query.Get("labelSelector"); asked != "" {
		selector = asked + "," + selector
	}
	query.Set("labelSelector", selector)
	u.RawQuery = query.Encode()
	info, _ := request.RequestInfoFrom(r.Context())
	narrow := *info
	narrow.LabelSelector = selector
	r = r.WithContext(request.WithRequestInfo(r.Context(), &narrow))
	r.URL = &u
	return r
}

// liesAsCalled reports whether a selectable field is known to lie where its name
// says. Others may be read from anywhere: successful Jobs are told by
// /status/succeeded, and custom resources have fields of any kind.
func liesAsCalled(r schema.GroupResource, field string) bool {
	switch r {
	case podResource:
		if field == "spec.nodeName" {
			return true
		}
	case eventResource:
		if strings.HasPrefix(field, "involvedObject.") {
			return true
		}
	}
	return field == "metadata.name" || field == "metadata.namespace"
}

// selectable refuses selectors that would tell what is hidden.
func (s *sight) selectable(r *http.Request) error {
	all := s.lens.masksOf(s.asked.resource)
	query, err := url.ParseQuery(r.URL.RawQuery)
	if len(all) == 0 {
		return nil
	}
	if err != nil {
		return apierrors.NewBadRequest("the query cannot be read")
	}
	for _, text := range query["fieldSelector"] {
		selector, err := fields.ParseSelector(text)
		if err != nil {
			return apierrors.NewBadRequest("the field selector cannot be read")
		}
		for _, of := range selector.Requirements() {
			if !liesAsCalled(s.asked.resource, of.Field) || all.touch(strings.Split(of.Field, ".")) {
				return apierrors.NewBadRequest("field label not supported: " + of.Field)
			}
		}
	}
	for _, text := range query["labelSelector"] {
		selector, err := labels.ParseToRequirements(text)
		if err != nil {
			return apierrors.NewBadRequest("the label selector cannot be read")
		}
		for i := range selector {
			if all.touch([]string{"metadata", "labels", selector[i].Key()}) {
				return apierrors.NewBadRequest("label not supported: " + selector[i].Key())
			}
		}
	}
	return nil
}

// resumes refuses a watch from a state that the caller saw through another lens:
// it would not tell what has come and gone with the change.
func (s *sight) resumes(r *http.Request) error {
	query := r.URL.Query()
	from := query.Get("resourceVersion")
	if from == "" || from == "0" || query.Get("sendInitialEvents") == "true" {
		return nil
	}
	rv, err := strconv.ParseUint(from, 10, 64)
	if err != nil {
		return nil //nolint:nilerr // the API server refuses it
	}
	floor, err := s.lens.floors.of(s.asked.version(), func() (uint64, error) { return s.newest(r) })
	if err != nil || rv >= floor {
		return err
	}
	return apierrors.NewResourceExpired("too old resource version: " + from + " (" + strconv.FormatUint(floor, 10) + ")")
}
