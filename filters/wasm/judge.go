package wasm

import (
	"context"
	"net/http"

	"github.com/portico-proxy/portico/plugins/abi"
)

// A Verdict is what a module says of a request.
type Verdict struct {
	// Denial is nil if the request may pass.
	Denial   *Denial
	Warnings []string
}

// Request asks the module about a request. A module without on_request lets all
// pass. An error is the module's failure, never its refusal.
func (m *Module) Request(ctx context.Context, facts Facts) (Verdict, error) {
	if !m.onRequest {
		return Verdict{}, nil
	}
	i, err := m.acquire(ctx)
	if err != nil {
		return Verdict{}, err
	}
	c := &call{facts: facts, effects: true}
	answer, err := m.ask(i, i.onRequest, c)
	if err != nil {
		return Verdict{}, err
	}
	switch {
	case answer == abi.Continue:
		return Verdict{Warnings: c.warnings}, nil
	case answer == abi.Deny && c.denial != nil && c.denial.sound():
		return Verdict{Denial: c.denial, Warnings: c.warnings}, nil
	}
	return Verdict{}, errAnswer
}

// sound reports whether a client can make sense of d.
func (d *Denial) sound() bool {
	return d.Code >= 400 && d.Code < 600 && http.StatusText(d.Code) != "" && d.RetryAfter >= 0 && d.RetryAfter <= 3600
}

// A Pair is an object and what it was before, as JSON whose objects name no
// member twice. Previous is nil where there was none.
type Pair struct {
	Event             abi.Event
	Previous, Current []byte
}

// An ObjectVerdict is what a module says of an object. It is a function of the
// pair and of the request's facts alone.
type ObjectVerdict struct {
	Dropped bool
	// Denial says why, if the module does.
	Denial   *Denial
	Warnings []string
	// Patched is the object as the module wants it; nil leaves it as it is.
	Patched []byte
}

// Refusal is what the caller of a request is told if the module refuses the object
// that it carries: that it does not say why is no reason to let it pass. Nil lets it
// pass.
func (v *ObjectVerdict) Refusal() *Denial {
	if v.Dropped && v.Denial == nil {
		return &Denial{Code: http.StatusForbidden, Reason: "Forbidden", Message: "refused by a policy"}
	}
	return v.Denial
}

// Object asks the module about one object. A module without on_object keeps
// all. An error is the module's failure: it never hides an object.
func (m *Module) Object(ctx context.Context, facts Facts, p Pair) (ObjectVerdict, error) {
	if !m.onObject {
		return ObjectVerdict{}, nil
	}
	i, err := m.acquire(ctx)
	if err != nil {
		return ObjectVerdict{}, err
	}
	o := &objects{event: p.Event, previous: p.Previous, current: p.Current, sealed: p.Event == abi.Deleted}
	c := &call{facts: facts, object: o, effects: true}
	answer, err := m.ask(i, i.onObject, c)
	if err != nil {
		return ObjectVerdict{}, err
	}
	v := ObjectVerdict{Warnings: c.warnings}
	switch {
	case answer == abi.Keep && !o.changed:
	case answer == abi.Patched && o.changed:
		v.Patched = o.current
	case answer == abi.Drop && (c.denial == nil || c.denial.sound()):
		v.Dropped, v.Denial = true, c.denial
	default:
		return ObjectVerdict{}, errAnswer
	}
	return v, nil
}

// Ended tells the module how a request was answered.
func (m *Module) Ended(ctx context.Context, facts Facts, e End) error {
	if !m.onEnd {
		return nil
	}
	i, err := m.acquire(ctx)
	if err != nil {
		return err
	}
	c := &call{facts: facts, end: &e}
	if _, err = m.invoke(i, i.onEnd, c); err != nil {
		return err
	}
	m.idle <- i
	return c.unknown
}
