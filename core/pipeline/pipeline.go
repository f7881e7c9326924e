// Package pipeline says what a filter is and makes one handler of a list of
// them; it knows no filter by name.
package pipeline

import (
	"net/http"
	"slices"
	"sync/atomic"

	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// A Handler answers one API request. It either writes a complete response and
// returns nil, or writes nothing and returns an error. Only [Server] turns an
// error into a response, so a filter that forgets to answer cannot make a
// refused request look like a success.
type Handler interface {
	ServeHTTP(w http.ResponseWriter, r *http.Request) error
}

// HandlerFunc is a function that is a [Handler].
type HandlerFunc func(w http.ResponseWriter, r *http.Request) error

// ServeHTTP calls f.
func (f HandlerFunc) ServeHTTP(w http.ResponseWriter, r *http.Request) error { return f(w, r) }

// A Filter stands between a request and the rest of the chain. It refuses the
// request by returning an error, answers it by writing to w, or passes it on by
// calling next. What it learns for filters below it goes into the request's
// context. One Filter value serves all requests at once.
type Filter interface {
	// Name is the filter's directory name. It names the filter's span, its
	// metrics and its place in the configuration.
	Name() string
	ServeHTTP(w http.ResponseWriter, r *http.Request, next Handler) error
}

// Chain returns a handler that runs filters in the order given, then last. Each
// filter runs inside a span of its own, which ends when the filter calls next:
// spans tell what each filter costs and do not last as long as a watch.
func Chain(t trace.Tracer, last Handler, filters ...Filter) Handler {
	h := last
	for _, f := range slices.Backward(filters) {
		h = &link{tracer: t, filter: f, next: h}
	}
	return h
}

// link is one filter and what comes after it.
type link struct {
	tracer trace.Tracer
	filter Filter
	next   Handler
}

func (l *link) ServeHTTP(w http.ResponseWriter, r *http.Request) error {
	parent := trace.SpanFromContext(r.Context())
	if !parent.IsRecording() {
		return l.filter.ServeHTTP(w, r, l.next)
	}
	ctx, span := l.tracer.Start(r.Context(), "filter "+l.filter.Name())
	defer span.End()
	next := HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		span.End()
		return l.next.ServeHTTP(w, r.WithContext(trace.ContextWithSpan(r.Context(), parent)))
	})
	err := l.filter.ServeHTTP(w, r.WithContext(ctx), next)
	if err != nil {
		// Only the reason: an error's text may quote what the caller sent.
		span.SetStatus(codes.Error, string(StatusOf(err).Reason))
	}
	return err
}

// A Switch is a handler whose chain can be exchanged while it serves. A request
// keeps the chain it began with. The zero Switch refuses every request.
type Switch struct {
	current atomic.Pointer[Handler]
}

// Store makes h answer all requests that arrive from now on.
func (s *Switch) Store(h Handler) { s.current.Store(&h) }

// Ready is a healthz.Checker: nil once there is a chain.
func (s *Switch) Ready(*http.Request) error {
	if s.current.Load() == nil {
		return errNoChain
	}
	return nil
}

// ServeHTTP passes the request to the chain stored last.
func (s *Switch) ServeHTTP(w http.ResponseWriter, r *http.Request) error {
	if err := s.Ready(r); err != nil {
		return err
	}
	return (*s.current.Load()).ServeHTTP(w, r)
}

var _ Handler = (*Switch)(nil)
