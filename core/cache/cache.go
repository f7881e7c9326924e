// Package cache answers reads from memory by the API server's own rules, byte
// for byte as it would, and hands on what it cannot.
//
// A request is parsed into a question. Whatever is invalid, unknown or rare is
// none and goes upstream, so errors are always the API server's own. A question
// is answered from a stream: one collection in one format (protobuf or JSON),
// kept equal to upstream's by client-go's Reflector as bytes, never decoded
// further than to metadata and selectable fields.
//
// Reads are linearizable: clients that were redirected do not know that a cache
// exists, so resourceVersion="" means what it means upstream. See fresh.go for
// how the newest state is known to be the newest.
package cache

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/portico-proxy/portico/core/cache/internal/stream"
	"github.com/portico-proxy/portico/core/cache/wire"
	"github.com/portico-proxy/portico/core/pipeline"
	"github.com/portico-proxy/portico/core/replicas"
	"github.com/portico-proxy/portico/core/telemetry"
	"github.com/portico-proxy/portico/core/view"
)

// Headers that say how an answer was made. Age is in whole seconds: how long ago
// upstream last proved the collection current.
const (
	ServedBy = telemetry.HeaderServedBy

	servedByCache     = telemetry.ServedByCache
	servedByCoalesced = telemetry.ServedByCoalesced
)

// Options says what to cache and where from.
type Options struct {
	// Upstream carries requests under the proxy's own identity.
	Upstream http.RoundTripper
	// Base is the API server's address, with any path prefix.
	Base *url.URL
	// Policies says how resources are cached. Nil means [DefaultPolicy].
	Policies Policies
	// MemoryBudget bounds all collections together, in bytes; 0 means no bound.
	// What does not fit goes upstream.
	MemoryBudget int64
	// IdleStop is how long a collection is kept that nobody asks for; 0 means
	// 10 minutes.
	IdleStop time.Duration
	// Compress says whether to compress for r's sender if it takes gzip. Nil
	// means [IsRemote].
	Compress func(r *http.Request) bool
	// Replicas are proxies that the clients of this one may also read from. Nil is
	// none. They are started by whoever made them.
	Replicas *replicas.Replicas
	Log      logr.Logger
}

// Cache is the filter that answers from memory.
type Cache struct {
	streams  *streams
	ledger   ledger
	told     ledger   // for answers while upstream is gone; see stale.go
	outages  sync.Map // *outage by resource
	replicas *replicas.Replicas
	policies atomic.Pointer[Policies]
	passed   tally // reads that upstream answers, by reason
	compress func(*http.Request) bool
	seen     view.Memo // what views saw
	// newest returns how new a linearizable read must be at least.
	newest func(context.Context, *entry) (uint64, error)
}

// New prepares a cache. It hands everything on until [Cache.Start] runs.
func New(o Options) (*Cache, error) {
	if o.Upstream == nil || o.Base == nil {
		return nil, errors.New("cache: options name no upstream")
	}
	if o.IdleStop <= 0 {
		o.IdleStop = 10 * time.Minute
	}
	if o.Policies == nil {
		o.Policies = DefaultPolicy
	}
	if o.Compress == nil {
		o.Compress = IsRemote
	}
	c := &Cache{streams: newStreams(o), compress: o.Compress, replicas: o.Replicas, newest: newest}
	if c.replicas != nil {
		c.replicas.Keep(&c.ledger)
	}
	c.streams.restored = func(r schema.GroupResource) { c.ledger.forget(r); c.told.forget(r) }
	c.SetPolicies(o.Policies)
	return c, nil
}

// Start keeps collections until ctx ends, and returns when nothing of them runs
// any more.
func (c *Cache) Start(ctx context.Context) error {
	c.streams.run(ctx)
	return nil
}

// Name is the filter's name.
func (c *Cache) Name() string { return "cache" }

// Ask reports whether r may be answered from memory, so that it is worth asking
// whether its caller may see the answer. It is cheap and may be wrong: what is
// granted and cannot be answered goes upstream. The request returned carries what
// was understood of r, so that nobody has to read it again.
func (c *Cache) Ask(r *http.Request) (*http.Request, bool) {
	q, ok := c.question(r)
	// Whether the caller has chosen session reads is not known yet.
	if !ok || (q.isNewestGet() && c.policy(q.gvr.GroupResource()).Session == nil && q.stale == 0) {
		return r, false
	}
	if f, ok := c.streams.forms.negotiate(r, q.verb, false); !ok || c.streams.isClosed(q, f.Format) {
		return r, false
	}
	return r.WithContext(context.WithValue(r.Context(), askedKey{}, &asked{path: r.URL.Path, query: r.URL.RawQuery, question: *q})), true
}

// asked is a question with what it was read from: a filter may have asked
// another since.
type asked struct {
	path, query string
	question    question
}

type askedKey struct{}

// Asked reports whether r comes from an [Cache.Ask] that said yes.
func (c *Cache) Asked(r *http.Request) bool {
	_, ok := r.Context().Value(askedKey{}).(*asked)
	return ok
}

// Stale is how old an answer to r, which [Cache.Ask] has said yes to, may be while
// upstream is gone; 0 is not at all.
func (c *Cache) Stale(r *http.Request) time.Duration {
	if a, ok := r.Context().Value(askedKey{}).(*asked); ok {
		return a.question.stale
	}
	return 0
}

// question reads r and leaves out what no policy lets in.
func (c *Cache) question(r *http.Request) (*question, bool) {
	q, ok := read(r)
	if !ok {
		return nil, false
	}
	p := c.policy(q.gvr.GroupResource())
	q.session, q.inParts = p.isSession(r), p.Parts
	if q.verb != watch {
		q.stale = p.StaleIfError
	}
	return q, !p.Refuse
}

// read parses r, or copies what [Cache.Ask] has parsed of it.
func read(r *http.Request) (*question, bool) {
	if a, ok := r.Context().Value(askedKey{}).(*asked); ok && a.path == r.URL.Path && a.query == r.URL.RawQuery {
		q := a.question
		return &q, true
	}
	return parse(r)
}

// isNewestGet reports a GET of the newest version there is. That is upstream's
// to tell: a GET costs it no more than a proof would.
func (q *question) isNewestGet() bool { return q.verb == get && q.resourceVersion == "" && !q.session }

// ServeHTTP answers r from memory, or passes it on.
func (c *Cache) ServeHTTP(w http.ResponseWriter, r *http.Request, next pipeline.Handler) error {
	r, err := view.Narrow(r)
	if err != nil {
		return err
	}
	if gr, ok := c.isWrite(r); ok {
		return c.write(w, r, next, gr)
	}
	if !pipeline.Granted(r.Context()) {
		if isRead(r) {
			c.passed.add(c.ungranted(r))
		}
		return c.pass(w, r, next)
	}
	a, why, done := c.prepare(w, r)
	defer done()
	if a == nil {
		c.passed.add(why)
		return c.pass(w, r, next)
	}
	defer a.entry.release()
	answered, err := a.answer()
	if a.gone && !answered && err == nil && c.stale(w, r) {
		return nil
	}
	if !answered && err == nil {
		c.passed.add(cmp.Or(a.why, telemetry.PassedNotCurrent))
		return c.pass(w, r, next)
	}
	return err
}

// patience is how long a request waits for a collection that is being loaded.
// The first of many identical informers brings the others with it.
const patience = 3 * time.Second

// prepare finds the collection that can answer r. It returns nil and the reason
// if there is none: then nothing has been written. The caller calls done when r
// has been answered.
func (c *Cache) prepare(w http.ResponseWriter, r *http.Request) (_ *answer, why string, done func()) {
	q, ok := c.question(r)
	switch {
	case !ok:
		return nil, c.ungranted(r), nobody
	case q.isNewestGet():
		return nil, telemetry.PassedNewestGet, nobody
	}
	ctx, cancel := context.WithTimeout(r.Context(), patience)
	defer cancel()
	of := c.streams.resource(q.gvr)
	if of == nil {
		return nil, telemetry.PassedLoading, nobody
	}
	alone := &lone{of: of, patient: q.isPatient()}
	a, why := c.await(ctx, w, r, q, alone)
	return a, why, alone.leave
}

func nobody() {}

// await waits for what can answer q, unless q's sender gains nothing from that.
func (c *Cache) await(ctx context.Context, w http.ResponseWriter, r *http.Request, q *question, alone *lone) (_ *answer, why string) {
	known := alone.of.known()
	if known == nil && alone.waits() {
		known = alone.of.await(ctx)
	}
	if known == nil {
		return nil, telemetry.PassedLoading
	}
	if !q.resolve(known) {
		return nil, telemetry.PassedUnsupported
	}
	f, ok := c.streams.forms.negotiate(r, q.verb, known.Custom)
	if !ok {
		return nil, telemetry.PassedUnsupported
	}
	e := c.streams.use(q, f.kept(known), known)
	if e == nil {
		return nil, telemetry.PassedUnavailable
	}
	st := e.State()
	if st == nil && (q.isPatient() || !e.slow.Load()) && alone.waits() {
		if st = e.Awaited(ctx); st == nil && e.IsArriving() {
			e.slow.Store(true)
		}
	}
	if st == nil || e.Err() != nil {
		e.release()
		return nil, telemetry.PassedLoading
	}
	return c.answerBy(w, r, q, f, e), ""
}

// lone is a read for which nothing is in memory yet. One that is asked for once gains
// nothing from waiting; others beside it would each cost upstream what loading does
// for all, and wait.
type lone struct {
	of      *resource
	patient bool
	passing bool
}

// waits reports whether the read waits.
func (l *lone) waits() bool {
	switch {
	case l.patient:
	case l.passing:
		return false
	case l.of.passing.CompareAndSwap(0, 1):
		l.passing = true
		return false
	default:
		l.patient = true // it has others beside it
	}
	return true
}

// leave says that the read has been answered.
func (l *lone) leave() {
	if l.passing {
		l.of.passing.Store(0)
	}
}

func (c *Cache) answerBy(w http.ResponseWriter, r *http.Request, q *question, f form, e *entry) *answer {
	a := &answer{cache: c, entry: e, question: q, form: f, writer: e.writers[f], w: w, r: r}
	if views := view.From(r.Context()); len(views) > 0 {
		a.views = c.seen.Of(views, e.serial)
	}
	return a
}

// isPatient reports whether q gains from waiting for a collection to load: it
// is going to be asked again, or for long.
func (q *question) isPatient() bool {
	return q.verb == watch || q.resourceVersion != "" || q.session
}

// answer is one request on its way to be answered from memory.
type answer struct {
	*question
	cache *Cache
	entry *entry
	form  form
	// objects are written by it in the form that was asked for.
	writer *wire.Writer
	// views are the caller's, nil if it sees everything.
	views *view.Remembering
	w     http.ResponseWriter
	r     *http.Request
	floor uint64 // what memory has to have, of a session's writes and what it saw
	why   string // it could not be answered, if that is not [telemetry.PassedNotCurrent]
	gone  bool   // upstream is
	old   bool   // so the answer may be stale
}

// decline leaves the answer to upstream.
func (a *answer) decline(why string) (bool, error) {
	a.why = why
	return false, nil
}

// answer reports whether the request has been answered. If not, and there is no
// error, nothing has been written.
func (a *answer) answer() (bool, error) {
	if a.session && !a.readYourWrites() {
		return false, nil
	}
	switch a.verb {
	case get:
		return a.get()
	case list:
		return a.list()
	}
	return a.watch()
}

// head sets the headers of an answer that is as old as age.
func (a *answer) head(contentType, servedBy string, age time.Duration) {
	h := a.w.Header()
	if a.old {
		servedBy = telemetry.ServedByStale
		warnStale(h, age)
	}
	a.entry.counts.answered(servedBy)
	h.Set("Content-Type", contentType)
	h.Set("Cache-Control", "no-cache, private")
	h.Set(ServedBy, servedBy)
	for _, warning := range a.entry.Warnings() {
		h.Add("Warning", warning)
	}
	h.Set("Age", strconv.Itoa(int(age/time.Second)))
}

// readYourWrites waits until memory has every write that the ledger knows of.
// What asks for the newest then gets what is in memory. A proxy that may not have
// heard of all writes leaves it to upstream.
func (a *answer) readYourWrites() bool {
	gr := a.gvr.GroupResource()
	since, ok := a.cache.replicas.Touch()
	if !ok {
		a.why = telemetry.PassedOutOfTouch
		return false
	}
	var err error
	if a.floor, err = a.cache.ledger.floor(a.r.Context(), gr, a.entry.Stream, since); err != nil {
		return false
	}
	if _, ok = a.reach(a.floor); ok {
		return true
	}
	if now, err := a.entry.Current(a.r.Context()); err == nil {
		a.cache.ledger.lower(gr, a.floor, now)
	}
	return false
}

// show has everybody know that a session is going to see what happened at rv: replicas,
// and collections here that may not have heard of it.
func (a *answer) show(rv uint64) {
	if a.session && (a.cache.replicas != nil || rv > a.floor && a.entry.beside.Load() > 0) {
		a.cache.note(a.gvr.GroupResource(), rv)
	}
}

// get answers a GET of any or of a minimal resourceVersion. What is not there
// upstream may know of: a wrong 404 makes controllers delete. Only in a session
// it is not there, as long as the session does not see a newer state.
func (a *answer) get() (bool, error) {
	st, ok := a.reach(a.rv)
	if !ok {
		return false, nil
	}
	return a.getFrom(st)
}

func (a *answer) getFrom(st *stream.State) (bool, error) {
	raw, err := a.see(a.r.Context(), st.Now().Get(wire.Key(a.namespace, a.name)))
	switch {
	case err != nil:
		return false, err
	case raw == nil && a.session && !a.old:
		return false, apierrors.NewNotFound(a.gvr.GroupResource(), a.name)
	case raw == nil:
		return a.decline(telemetry.PassedNotFound)
	}
	a.head(a.form.MediaType(), servedByCache, a.entry.Age())
	return true, a.write(len(raw), func(w io.Writer) error { return a.writer.Object(w, raw) })
}

var _ pipeline.Filter = (*Cache)(nil)
