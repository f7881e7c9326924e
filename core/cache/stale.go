package cache

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/portico-proxy/portico/core/cache/internal/stream"
	"github.com/portico-proxy/portico/core/cache/wire"
	"github.com/portico-proxy/portico/core/pipeline"
	"github.com/portico-proxy/portico/core/upstream"
)

// Where a policy says staleIfError, a read that upstream fails to answer is answered
// from memory, with a warning (RFC 5861). What upstream has to be asked for is asked
// first, so answers are as consistent as ever once it is back.
//
// Nobody is to see less than what was told through here before upstream was lost. So
// it is kept how far that was, in a ledger of its own: what was written, the objects
// that were read past memory, and the collections. Of some answers it is not known
// how far they are: that is found out at once, while upstream is there to be asked,
// and memory is made to catch up.

// outage is whether upstream could not be reached, or failed to answer the proxy's own
// question, when it was last asked about a resource. While that is so, one request at a
// time finds out whether it is back. How a caller's request fails says nothing of
// others: any caller can have one fail.
type outage struct {
	known  atomic.Bool
	trying atomic.Bool // somebody finds out
}

// enter reports whether a request is to ask upstream. The caller calls leave once it
// knows how upstream is: who reads its answer may take as long as he likes.
func (o *outage) enter() (leave func(), ok bool) {
	switch {
	case o == nil || !o.known.Load():
		return nobody, true
	case !o.trying.CompareAndSwap(false, true):
		return nobody, false
	}
	return sync.OnceFunc(func() { o.trying.Store(false) }), true
}

func (o *outage) end() {
	if o != nil {
		o.known.Store(false)
	}
}

// outage is that of one resource, nil if there has been none.
func (c *Cache) outage(gr schema.GroupResource) *outage {
	found, _ := c.outages.Load(gr)
	o, _ := found.(*outage)
	return o
}

// lost notes that upstream could not be asked about a resource. Callers can name any:
// what is not in memory is not answered from there.
func (c *Cache) lost(gr schema.GroupResource) {
	if len(c.streams.of(gr)) == 0 {
		return
	}
	o := c.outage(gr)
	if o == nil {
		made, _ := c.outages.LoadOrStore(cloned(gr), &outage{})
		o = made.(*outage)
	}
	o.known.Store(true)
}

var errTried = errors.New("somebody else finds out whether upstream is back")

// probe asks how new a linearizable read must be.
func (a *answer) probe() (uint64, error) {
	leave, ok := a.cache.outage(a.gvr.GroupResource()).enter()
	defer leave()
	if a.gone = !ok && a.stale > 0; a.gone {
		return 0, errTried
	}
	now, err := a.cache.newest(a.r.Context(), a.entry)
	if paused := (*stream.PausedError)(nil); errors.As(err, &paused) {
		return 0, err // the caller's own request will find out
	}
	if a.r.Context().Err() == nil && a.stale > 0 {
		if a.gone = upstream.IsGone(err); a.gone {
			a.cache.lost(a.gvr.GroupResource())
		} else {
			a.cache.outage(a.gvr.GroupResource()).end()
		}
	}
	return now, err
}

// passOrStale hands r on, whose answer goes to where to writes, and answers from memory
// if upstream fails.
func (c *Cache) passOrStale(w, to http.ResponseWriter, r *http.Request, next pipeline.Handler) error {
	info, _ := request.RequestInfoFrom(r.Context())
	gr := schema.GroupResource{Group: info.APIGroup, Resource: info.Resource}
	leave, ok := c.outage(gr).enter()
	defer leave()
	if !ok && c.stale(w, r) {
		return nil
	}
	told := &heldResponse{ResponseWriter: to, settle: func(h *heldResponse) { c.tellOf(info, h) }}
	f := &fallback{ResponseWriter: told, header: http.Header{}, knows: leave, instead: func() bool { return c.stale(w, r) }}
	if info.Verb == "list" { // which may be too long to be held back
		f.ResponseWriter = to
		f.begins = func(code int) { c.tellRead(gr, code) }
	}
	err := next.ServeHTTP(f, r)
	if r.Context().Err() == nil && upstream.IsLost(err) {
		c.lost(gr)
	}
	switch {
	case err == nil && f.ResponseWriter == told && f.begun:
		return told.finish()
	case err == nil:
		return nil
	}
	leave()
	if !f.begun && r.Context().Err() == nil && upstream.IsGone(err) && f.instead() {
		return nil
	}
	return err
}

// fallback is an answer of upstream's, in whose place another is given if it says
// that upstream has failed.
type fallback struct {
	http.ResponseWriter
	header  http.Header    // what is to be sent, until that has begun
	knows   func()         // is called once it is known whether upstream has failed
	instead func() bool    // answers, if it can
	begins  func(code int) // may be nil
	begun   bool           // of upstream's answer something is sent
	dropped bool           // it was answered instead
}

func (f *fallback) Header() http.Header {
	if f.begun {
		return f.ResponseWriter.Header()
	}
	return f.header
}

func (f *fallback) WriteHeader(code int) {
	if f.dropped || f.begun || code < http.StatusOK {
		return
	}
	f.knows()
	if f.dropped = upstream.IsFailure(code) && f.instead(); f.dropped {
		return
	}
	f.begun = true
	if f.begins != nil {
		f.begins(code)
	}
	to := f.ResponseWriter.Header()
	for name, values := range f.header {
		to[name] = append(to[name], values...) // filters may have set some
	}
	f.ResponseWriter.WriteHeader(code)
}

func (f *fallback) Write(p []byte) (int, error) {
	if f.WriteHeader(http.StatusOK); f.dropped {
		return len(p), nil
	}
	return f.ResponseWriter.Write(p)
}

// FlushError flushes what has been sent.
func (f *fallback) FlushError() error {
	if !f.begun {
		return nil
	}
	return http.NewResponseController(f.ResponseWriter).Flush()
}

// tellRead notes that an answer that begins with code tells of what is not known.
func (c *Cache) tellRead(gr schema.GroupResource, code int) {
	switch {
	case code == http.StatusOK:
		c.tellUnknown(gr)
	case !upstream.IsFailure(code):
		c.outage(gr).end()
	}
}

// tellOf notes what the answer to a request has told of an object.
func (c *Cache) tellOf(info *request.RequestInfo, h *heldResponse) {
	gr := schema.GroupResource{Group: info.APIGroup, Resource: info.Resource}
	rv := wire.ResponseVersion(h.body.Bytes())
	switch {
	case h.code == http.StatusNotFound && !c.remembers(gr, info):
	case h.code == http.StatusNotFound, h.code == http.StatusConflict, h.code < http.StatusMultipleChoices && (rv == 0 || h.tooLong):
		c.tellUnknown(gr)
	case h.code < http.StatusMultipleChoices:
		c.told.note(gr, rv)
	}
	if !upstream.IsFailure(h.code) {
		c.outage(gr).end()
	}
}

// remembers reports whether the object that a request names is in memory, or may be.
func (c *Cache) remembers(gr schema.GroupResource, info *request.RequestInfo) bool {
	key := wire.Key(info.Namespace, info.Name)
	if gr.Resource == "namespaces" && gr.Group == "" {
		key = info.Name // of which RequestInfo has it twice
	}
	for _, e := range c.streams.of(gr) {
		if st := e.State(); st == nil || st.Now().Get(key) != nil {
			return true
		}
	}
	return false
}

// tellUnknown notes that an answer has told of a state that is not known, and finds
// out.
func (c *Cache) tellUnknown(gr schema.GroupResource) {
	c.outage(gr).end()
	s := c.streams
	all := s.of(gr)
	if len(all) == 0 {
		return // what begins later begins with what is newer
	}
	c.told.note(gr, 0)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return
	}
	s.wg.Go(func() {
		now, err := c.told.floor(s.ctx, gr, all[0].Stream, 0)
		if err != nil {
			return // the next one will find out
		}
		// What is loaded later is compared with what was told.
		ctx, cancel := context.WithTimeout(s.ctx, catchUpPatience)
		defer cancel()
		for _, e := range all {
			if st := e.Loaded(ctx); st != nil && st.Applied < now {
				e.CatchUp(now)
			}
		}
	})
}

// of returns the streams of a resource, also those that have no state yet.
func (s *streams) of(gr schema.GroupResource) []*entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []*entry
	for k, e := range s.open {
		if k.gvr.GroupResource() == gr && e.Err() == nil {
			all = append(all, e)
		}
	}
	return all
}

// tell notes what a coalesced list has told, unless memory has the same.
func (a *answer) tell(got *recorded) {
	if a.stale == 0 {
		return
	}
	gr := a.gvr.GroupResource()
	a.cache.outage(gr).end()
	l, err := got.listing(a.entry)
	switch {
	case err != nil:
		a.cache.tellUnknown(gr)
	case a.limit > 0 || !a.has(l):
		a.cache.told.note(gr, l.rv)
		a.entry.CatchUp(l.rv)
	}
}

// has reports whether memory has what was listed, and nothing else that is asked for.
func (a *answer) has(l *listing) bool {
	n, same := 0, true
	a.entry.State().Now().Ascend(a.within(a.entry.Schema), "", func(o *wire.Object) bool {
		if a.selects(o) {
			n++
			same = l.has(o.Key, o)
		}
		return same
	})
	return same && n == len(l.versions)
}

// stale answers r from memory, while upstream is gone, if it may. It reports whether
// it has; otherwise nothing has been written.
func (c *Cache) stale(w http.ResponseWriter, r *http.Request) bool {
	if !pipeline.Granted(r.Context()) && !upstream.GrantedBefore(r.Context()) {
		return false
	}
	q, ok := c.question(r)
	if !ok || q.stale == 0 {
		return false
	}
	a := c.prepareStale(w, r, q)
	if a == nil {
		return false
	}
	defer a.entry.release()
	done, err := a.answerStale()
	return done && err == nil
}

// answerStale answers from what is in memory if that is not too old, and not older
// than what was told.
func (a *answer) answerStale() (bool, error) {
	st, age := a.entry.State(), a.entry.Age()
	if age > a.stale || !a.isToldBy(st) {
		return false, nil
	}
	a.show(st.Altered)
	a.old = true
	from, at, ok := "", st.Now(), true
	switch {
	case a.verb == get:
		return a.getFrom(st)
	case a.token != "":
		var rv uint64
		if from, rv, ok = a.place(); ok {
			at, ok = st.At(rv)
		}
	case a.match == "Exact" || a.isLegacyExact():
		_, single := a.single(a.entry.Schema)
		at, ok = st.At(a.rv)
		ok = ok && !(single && a.isLegacyExact())
	}
	if !ok {
		return false, nil
	}
	index := a.indexed()
	if a.token != "" || a.match == "Exact" {
		index = stream.Scope{}
	}
	return a.page(at, from, index, age)
}

// isToldBy reports whether st has all that was told of the resource here, and what the
// request asks for.
func (a *answer) isToldBy(st *stream.State) bool {
	gr, c := a.gvr.GroupResource(), a.cache
	floor, ok := c.told.known(gr, 0)
	floor = max(floor, a.rv)
	for _, e := range c.streams.of(gr) { // what their readers were told
		if other := e.State(); other != nil {
			floor = max(floor, other.Altered)
		}
	}
	if !a.session {
		return ok && st.Applied >= floor
	}
	since, inTouch := c.replicas.Touch()
	written, known := c.ledger.known(gr, since)
	return ok && inTouch && known && st.Applied >= max(floor, written)
}

// warnStale says that an answer is old, to caches and then to people: client-go shows
// 299 and nothing else.
func warnStale(h http.Header, age time.Duration) {
	h.Add("Warning", `110 - "Response is Stale"`)
	h.Add("Warning", fmt.Sprintf(`299 - "the API server cannot be reached: this is what it said %s ago, or longer"`, age.Round(time.Second)))
}

// prepareStale finds a collection in memory that can answer q. Nothing is begun for
// it, and nobody waits.
func (c *Cache) prepareStale(w http.ResponseWriter, r *http.Request, q *question) *answer {
	s := c.streams
	s.mu.Lock()
	known := s.resources[q.gvr]
	s.mu.Unlock()
	if known == nil {
		return nil
	}
	select {
	case <-known.learned:
	default:
		return nil
	}
	if known.schema == nil || !q.resolve(known.schema) {
		return nil
	}
	f, ok := s.forms.negotiate(r, q.verb, known.schema.Custom)
	if !ok {
		return nil
	}
	e := s.opening(q, f.kept(known.schema))
	if e == nil {
		return nil
	}
	return c.answerBy(w, r, q, f, e)
}

// opening returns a collection that has a state to answer q from, or nil. The caller
// calls release when done.
func (s *streams) opening(q *question, format wire.Format) *entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.opened(s.keys(q, format))
	if e == nil || e.State() == nil || e.Err() != nil {
		return nil
	}
	e.users.Add(1)
	e.used.Store(time.Now().UnixNano())
	return e
}
