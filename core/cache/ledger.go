package cache

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strings"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/portico-proxy/portico/core/cache/internal/stream"
	"github.com/portico-proxy/portico/core/cache/wire"
	"github.com/portico-proxy/portico/core/pipeline"
	"github.com/portico-proxy/portico/core/replicas"
	"github.com/portico-proxy/portico/core/upstream"
)

// The ledger is what makes session reads see every earlier write through this
// proxy: before a write's response leaves, the resourceVersion it made is noted
// for its resource, and reads wait until memory has reached it. The events of
// our own writes are on their way already, so that takes milliseconds. What a
// session is shown is noted as well, so that it sees nothing older elsewhere.
//
// Replicas tell each other what is noted, see [replicas.Ledger].
//
// Synchronous side effects on other resources (a Service's IPAddress, an
// eviction's PodDisruptionBudget) are not noted.
type ledger struct {
	mu     sync.Mutex // guards following
	floors map[schema.GroupResource]*floor
	// version counts what has been noted here.
	version uint64
	lost    bool // what is noted is lost, as a test wants it
}

// floor is how new a session's read of one resource must be at least.
type floor struct {
	rv uint64
	// unknown counts writes of which only upstream knows where they landed:
	// those answered by a Status, and those of which we do not know whether
	// they were made. The first settled of them lie below rv. Both only grow:
	// of two readers that settle the same writes, one may come late.
	unknown, settled int
	// touch is the loss of touch with replicas up to which what they acknowledged
	// lies below rv.
	touch uint64

	// What was noted here, and not heard of: the latest resourceVersion, and the
	// ledger's version when it was noted and when unknown last grew.
	own            uint64
	noted, doubted uint64
}

func (l *ledger) of(r schema.GroupResource) *floor {
	if l.floors == nil {
		l.floors = map[schema.GroupResource]*floor{}
	}
	f, ok := l.floors[r]
	if !ok {
		f = &floor{}
		l.floors[cloned(r)] = f
	}
	return f
}

// cloned is r without the request that it was read from.
func cloned(r schema.GroupResource) schema.GroupResource {
	return schema.GroupResource{Group: strings.Clone(r.Group), Resource: strings.Clone(r.Resource)}
}

// note records that a session has written or seen rv. 0 means that it is not known
// what it was. Whoever knows the version that note returns knows of it.
func (l *ledger) note(r schema.GroupResource, rv uint64) (version uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.of(r)
	switch {
	case l.lost:
	case rv == 0:
		l.version++
		f.unknown++
		f.doubted = l.version
		return f.doubted
	case rv > f.own:
		l.version++
		f.own, f.noted = rv, l.version
		f.rv = max(f.rv, rv)
	}
	return f.noted
}

// Since returns what was noted here after version.
func (l *ledger) Since(version uint64) ([]replicas.Floor, uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []replicas.Floor
	for r, f := range l.floors {
		one := replicas.Floor{Group: r.Group, Resource: r.Resource, Unknown: f.doubted > version}
		if f.noted > version {
			one.ResourceVersion = f.own
		}
		if one.Unknown || one.ResourceVersion > 0 {
			all = append(all, one)
		}
	}
	return all, l.version
}

// Hear takes what a replica has noted.
func (l *ledger) Hear(floors []replicas.Floor) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, heard := range floors {
		f := l.of(schema.GroupResource{Group: heard.Group, Resource: heard.Resource})
		f.rv = max(f.rv, heard.ResourceVersion)
		if heard.Unknown {
			f.unknown++
		}
	}
}

// floor returns the resourceVersion that a session's read must have reached, after
// touch losses of touch with replicas.
func (l *ledger) floor(ctx context.Context, r schema.GroupResource, s *stream.Stream, touch uint64) (uint64, error) {
	l.mu.Lock()
	f := *l.of(r)
	l.mu.Unlock()
	if f.unknown == f.settled && f.touch >= touch {
		return f.rv, nil
	}
	now, err := s.Current(ctx)
	if err != nil {
		return 0, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	latest := l.of(r)
	latest.rv = max(latest.rv, now)
	latest.settled = max(latest.settled, f.unknown)
	latest.touch = max(latest.touch, touch)
	return latest.rv, nil
}

// forget drops what is known about r: upstream's revision went backwards.
func (l *ledger) forget(r schema.GroupResource) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if f, ok := l.floors[r]; ok {
		f.rv, f.own = 0, 0
	}
}

// lower drops a floor that upstream, which is at now, has not reached: it is of
// before its revision went backwards. What was noted since stays.
func (l *ledger) lower(r schema.GroupResource, floor, now uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.of(r)
	if now < floor && f.rv == floor {
		f.rv, f.own = now, min(f.own, now)
	}
}

// maxName is the longest name that a group or a resource can have, in bytes.
const maxName = 253

// note records that a session has written or is going to be shown rv, and returns
// when all who answer sessions know of it. What cannot be there shows nothing.
func (c *Cache) note(r schema.GroupResource, rv uint64) {
	if len(r.Group) > maxName || len(r.Resource) > maxName {
		return
	}
	c.replicas.Await(c.ledger.note(r, rv))
}

// maxDoubted bounds of how many resources something is noted that may not be there.
const maxDoubted = 4096

// doubt is note for a failure, of which it is not known what it has shown or done.
// Callers can name any resource, and fail with it.
func (c *Cache) doubt(r schema.GroupResource) {
	if c.ledger.hasRoom(r) || len(c.streams.of(r)) > 0 {
		c.note(r, 0)
	}
}

// hasRoom reports whether something may be noted of r that may not be there.
func (l *ledger) hasRoom(r schema.GroupResource) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, ok := l.floors[r]
	return ok || len(l.floors) < maxDoubted
}

// known returns the resourceVersion that a read must have reached, after touch losses
// of touch with replicas, if that is known without asking upstream.
func (l *ledger) known(r schema.GroupResource, touch uint64) (rv uint64, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.of(r)
	return f.rv, f.unknown == f.settled && f.touch >= touch
}

// isWrite reports whether r may change objects of a resource that is cached for
// sessions.
func (c *Cache) isWrite(r *http.Request) (schema.GroupResource, bool) {
	info, ok := request.RequestInfoFrom(r.Context())
	if !ok || !info.IsResourceRequest || r.Method == http.MethodGet || r.Method == http.MethodHead || isUpgrade(r, info) {
		return schema.GroupResource{}, false
	}
	gr := schema.GroupResource{Group: info.APIGroup, Resource: info.Resource}
	switch info.Subresource {
	case "exec", "attach", "portforward", "proxy", "log":
		return gr, false // conversations, not changes
	}
	p := c.policy(gr)
	return gr, !p.Refuse && (p.Session != nil || p.StaleIfError > 0) && !isTried(r)
}

// isUpgrade reports a conversation of an aggregated API server's, whose group has a dot.
// The API server overlooks the header where it has none, and so does every object.
func isUpgrade(r *http.Request, info *request.RequestInfo) bool {
	switch info.Subresource {
	case "", "status", "scale":
		return false
	}
	return len(r.Header["Upgrade"]) > 0 && strings.Contains(info.APIGroup, ".")
}

// isTried reports a write that upstream only tries. Of a deletion with a body it
// reads no query.
func isTried(r *http.Request) bool {
	hasOptions := r.Method == http.MethodDelete && r.ContentLength != 0
	return !hasOptions && r.URL.Query().Get("dryRun") != ""
}

// pass hands r on. A session that has read upstream may have seen what memory has
// not: it must not see less afterwards.
func (c *Cache) pass(w http.ResponseWriter, r *http.Request, next pipeline.Handler) error {
	info, ok := request.RequestInfoFrom(r.Context())
	if !ok || !info.IsResourceRequest {
		return next.ServeHTTP(w, r)
	}
	gr := schema.GroupResource{Group: info.APIGroup, Resource: info.Resource}
	p := c.policy(gr)
	to := w
	if p.isSession(r) {
		to = &noted{ResponseWriter: w, note: func(code int) { c.noteRead(gr, code) }, goesOn: info.Verb == "watch"}
	}
	switch {
	case p.StaleIfError == 0 || info.Subresource != "":
	case info.Verb == "get", info.Verb == "list":
		return c.passOrStale(w, to, r, next)
	case info.Verb == "watch":
		to = &noted{ResponseWriter: to, note: func(code int) { c.tellRead(gr, code) }}
	}
	return next.ServeHTTP(to, r)
}

// noteRead notes what the answer to a read that begins with code shows a session: a refusal
// shows nothing.
func (c *Cache) noteRead(gr schema.GroupResource, code int) {
	switch {
	case code == http.StatusNotFound:
		c.doubt(gr)
	case code < http.StatusBadRequest:
		c.note(gr, 0)
	}
}

// noted tells of a response before the first byte of it leaves, and of one that goes on
// before each further part does: what memory has reached meanwhile may be less.
type noted struct {
	http.ResponseWriter
	note   func(code int)
	goesOn bool
	code   int // 0 until the first byte leaves
}

func (n *noted) Unwrap() http.ResponseWriter { return n.ResponseWriter }

func (n *noted) WriteHeader(code int) {
	if n.code == 0 {
		n.code = code
		n.note(code)
	}
	n.ResponseWriter.WriteHeader(code)
}

func (n *noted) Write(p []byte) (int, error) {
	switch {
	case n.code == 0:
		n.WriteHeader(http.StatusOK)
	case n.goesOn:
		n.note(n.code)
	}
	return n.ResponseWriter.Write(p)
}

// write passes r on and notes what it did before its caller learns of it.
func (c *Cache) write(w http.ResponseWriter, r *http.Request, next pipeline.Handler, gr schema.GroupResource) error {
	p := c.policy(gr)
	held := &heldResponse{ResponseWriter: w, settle: func(h *heldResponse) {
		if p.Session != nil {
			c.settle(gr, h)
		}
		if p.StaleIfError > 0 {
			info, _ := request.RequestInfoFrom(r.Context())
			c.tellOf(info, h)
		}
	}}
	settled := p.Session == nil // what is not acknowledged need not be seen, but in sessions it may have been
	defer func() {
		if !settled { // a panic: nobody knows how far it came
			c.doubt(gr)
		}
	}()
	err := next.ServeHTTP(held, r)
	if err != nil {
		if !settled && !isUntouched(err) {
			c.doubt(gr)
		}
		settled = true
		return err
	}
	settled = true
	return held.finish()
}

// isUntouched reports an error that says that nothing was changed: clients are told
// to try again then.
func isUntouched(err error) bool {
	_, again := apierrors.SuggestsClientDelay(err)
	return again && upstream.IsGone(err)
}

// settle notes the write that h answers. A refusal changed nothing, but one that
// tells of the object (it is gone, it is another) has shown the caller a state
// that memory may not have. An error of the server's may have come after the
// change.
func (c *Cache) settle(gr schema.GroupResource, h *heldResponse) {
	switch {
	case h.tooLong && h.code < http.StatusBadRequest:
		c.note(gr, 0)
	case h.code == http.StatusNotFound, h.code == http.StatusConflict, h.code >= http.StatusInternalServerError, h.tooLong:
		c.doubt(gr)
	case h.code >= http.StatusBadRequest:
	default:
		c.note(gr, wire.ResponseVersion(h.body.Bytes()))
	}
}

// maxHeld bounds how much of a write's response is held back, in bytes; an
// object is no larger.
const maxHeld = 4 << 20

// heldResponse holds a response back until what it says has been noted.
type heldResponse struct {
	http.ResponseWriter
	code    int
	body    bytes.Buffer
	tooLong bool
	settle  func(*heldResponse)
}

func (h *heldResponse) WriteHeader(code int) {
	if code >= http.StatusOK {
		h.code = code
		return
	}
	h.ResponseWriter.WriteHeader(code)
}

func (h *heldResponse) Write(p []byte) (int, error) {
	if h.code == 0 {
		h.code = http.StatusOK
	}
	if h.tooLong {
		return h.ResponseWriter.Write(p)
	}
	if h.body.Len()+len(p) <= maxHeld {
		return h.body.Write(p)
	}
	h.tooLong = true
	if err := h.release(); err != nil {
		return 0, err
	}
	return h.ResponseWriter.Write(p)
}

// Flush is for later: a response that is held back has nothing to show.
func (h *heldResponse) Flush() {}

func (h *heldResponse) finish() error {
	if h.code == 0 {
		h.code = http.StatusOK
	}
	if h.tooLong {
		return nil
	}
	return h.release()
}

func (h *heldResponse) release() error {
	h.settle(h)
	h.ResponseWriter.WriteHeader(h.code)
	if _, err := io.Copy(h.ResponseWriter, &h.body); err != nil {
		panic(http.ErrAbortHandler) // the client is gone
	}
	return nil
}
