package wasm

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/portico-proxy/portico/core/body"
	"github.com/portico-proxy/portico/core/pipeline"
	"github.com/portico-proxy/portico/core/telemetry"
)

// A pass is a request that a guest of http_handler has handed on, and whose answer
// it is to be shown.
type pass struct {
	filter  *Filter // as it was then: the module that has seen the request sees the answer
	binding *binding
	facts   Facts
	trip    *roundTrip
	room    body.Room // for the answer
	told    bool      // of the answer
}

// passes are those of one request, in their order.
type passes struct{ all []*pass }

// handle has a module of http_handler look at a request, and returns it as it
// shall go on.
func (f *Filter) handle(w http.ResponseWriter, b *binding, facts Facts) (*http.Request, error) {
	began := time.Now()
	p := &pass{filter: f, binding: b, facts: facts, trip: newRoundTrip(&facts)}
	r, err := p.read(w)
	if err != nil {
		return r, f.unjudged(b, err, began)
	}
	next, err := b.module.handleRequest(r.Context(), p.trip)
	if err != nil {
		return r, f.failed(b, err, began)
	}
	v := Verdict{}
	if !next {
		v.Denial = p.trip.denial()
	}
	if err := f.decide(w, b, v, began); err != nil {
		return nil, err
	}
	if !next {
		return r, nil // it is audited
	}
	if !p.trip.streams {
		b.module.hold()
		facts.passed.all = append(facts.passed.all, p)
	}
	if b.audits() {
		return r, nil
	}
	maps.Copy(w.Header(), p.trip.response.header)
	return p.trip.apply(r), nil
}

// read gives the module the request's body, if there is one and it could want it.
// It is read before there is an instance: a slow caller keeps none from others.
func (p *pass) read(w http.ResponseWriter) (*http.Request, error) {
	r, f := p.facts.Request, p.filter
	if !p.binding.module.bodies || !p.trip.hasBody(r) {
		return r, nil
	}
	if err := f.rooms.Take(r.Context(), p.facts.room, p.facts.User, body.SizeOf(r)+body.Max); err != nil {
		return r, err
	}
	unlimited := f.rooms.Limit(w)
	defer unlimited()
	r, raw, err := body.Read(r)
	p.trip.request.body, p.trip.request.bodiless = raw, false
	return r, err
}

// around has guests see the answer of next, the last that saw the request first.
func (p *passes) around(next pipeline.Handler) pipeline.Handler {
	for _, one := range slices.Backward(p.all) {
		inner := next
		next = pipeline.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error { return one.serve(w, r, inner) })
	}
	return next
}

// end lets go of all modules, and tells those who were shown no answer that there
// is none.
func (p *passes) end(ctx context.Context) {
	ctx = context.WithoutCancel(ctx)
	for _, one := range p.all {
		if !one.told {
			one.tell(ctx, 0, nil, true)
		}
		one.room.Keep(0)
		one.binding.module.release(ctx)
	}
}

// tell shows the guest an answer that it cannot change any more.
func (p *pass) tell(ctx context.Context, code int, header http.Header, failed bool) {
	p.told = true
	p.trip.answered(code, header, nil)
	p.trip.response.fixed = true
	began := time.Now()
	if err := p.binding.module.handleResponse(context.WithoutCancel(ctx), p.trip, failed); err != nil {
		p.filter.observe(p.binding.spec, p.binding.name, telemetry.DecisionError, time.Since(began))
		p.filter.log.Error(err, "filter failed after the answer", "binding", p.binding.name)
	}
}

// serve passes r on, and shows the guest the answer: before its caller has it, if
// the guest asked for that.
func (p *pass) serve(w http.ResponseWriter, r *http.Request, next pipeline.Handler) error {
	if p.trip.features&bufferResponse == 0 || r.Method == http.MethodHead {
		m := &measure{ResponseWriter: w}
		err := next.ServeHTTP(m, r)
		p.tell(r.Context(), m.code, w.Header(), err != nil)
		return err
	}
	if !p.binding.audits() { // so that it can be read
		r = r.WithContext(r.Context())
		r.Header = r.Header.Clone()
		r.Header.Del("Accept-Encoding")
	}
	h := p.hold(w, r)
	err := next.ServeHTTP(h, r)
	switch {
	case err != nil:
		p.tell(r.Context(), int(pipeline.StatusOf(err).Code), nil, true)
		return err
	case h.err != nil:
		return p.unheld(r, h)
	}
	return p.rewrite(w, r, h)
}

func (p *pass) hold(w http.ResponseWriter, r *http.Request) *heldAnswer {
	take := func(n int64) error { return p.filter.rooms.Take(r.Context(), &p.room, p.facts.User, n) }
	return &heldAnswer{ResponseWriter: w, header: w.Header().Clone(), take: take, lenient: p.binding.audits() || p.binding.ignores()}
}

// unheld is what becomes of an answer that there was no room for.
func (p *pass) unheld(r *http.Request, h *heldAnswer) error {
	p.tell(r.Context(), h.code, h.header, true)
	if errors.Is(h.err, errLargeAnswer) {
		return p.filter.failed(p.binding, h.err, time.Now())
	}
	return p.filter.unjudged(p.binding, h.err, time.Now())
}

// rewrite sends the answer as the guest wants it.
func (p *pass) rewrite(w http.ResponseWriter, r *http.Request, h *heldAnswer) error {
	began, code, content := time.Now(), cmp.Or(h.code, http.StatusOK), h.body.Bytes()
	if err := h.take(int64(2*len(content)) + body.Max); err != nil {
		h.err = err
		return h.unless(p.unheld(r, h))
	}
	p.told = true
	p.trip.answered(code, h.header, content)
	err := p.binding.module.handleResponse(r.Context(), p.trip, false)
	if err == nil {
		err = p.trip.rewrites(code)
	}
	if err != nil {
		return h.unless(p.filter.failed(p.binding, err, began))
	}
	v := Verdict{}
	if p.trip.refused(code) {
		v.Denial = p.trip.denial()
	}
	if err := p.filter.decide(w, p.binding, v, began); err != nil {
		return err
	}
	if p.binding.audits() {
		return h.unless(nil)
	}
	header, content := p.trip.response.sent(content)
	return h.send(code, header, content)
}

// sent is the message as its receiver gets it, where content is what the body
// was.
func (m *message) sent(content []byte) (http.Header, []byte) {
	if !m.wrote {
		return m.header, content
	}
	header := m.header.Clone()
	header.Set("Content-Length", strconv.Itoa(len(m.written)))
	return header, m.written
}
