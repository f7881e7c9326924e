package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"go.uber.org/goleak"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/portico-proxy/portico/core/cache/wire"
)

// breaker is an API server that does what a test says, request by request: a
// real one cannot be made to.
type breaker struct {
	t        *testing.T
	requests chan *exchange
}

// exchange is one request and the line to its sender.
type exchange struct {
	query url.Values
	r     *http.Request
	w     http.ResponseWriter
	do    chan func() // runs where the request is served; nil ends it
}

func (b *breaker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := &exchange{query: r.URL.Query(), r: r, w: w, do: make(chan func())}
	w.Header().Set("Content-Type", "application/json")
	select {
	case b.requests <- x:
	case <-r.Context().Done():
		return
	}
	for {
		select {
		case f := <-x.do:
			if f == nil {
				return
			}
			f()
		case <-r.Context().Done():
			return
		}
	}
}

// serve has f run, unless the sender has gone.
func (x *exchange) serve(f func()) {
	select {
	case x.do <- f:
	case <-x.r.Context().Done():
	}
}

// next returns the next request.
func (b *breaker) next() *exchange {
	b.t.Helper()
	select {
	case x := <-b.requests:
		return x
	case <-time.After(30 * time.Second):
		b.t.Fatal("no request came")
		return nil
	}
}

func (x *exchange) send(format string, args ...any) *exchange {
	x.serve(func() {
		_, _ = fmt.Fprintf(x.w, format+"\n", args...)
		x.w.(http.Flusher).Flush()
	})
	return x
}

func (x *exchange) event(kind, key string, rv int) *exchange {
	ns, name, _ := strings.Cut(key, "/")
	return x.send(`{"type":%q,"object":{"kind":"Pod","apiVersion":"v1","metadata":{"name":%q,"namespace":%q,"resourceVersion":"%d"}}}`, kind, name, ns, rv)
}

func (x *exchange) bookmark(rv int, initial bool) *exchange {
	annotations := ""
	if initial {
		annotations = `,"annotations":{"k8s.io/initial-events-end":"true"}`
	}
	return x.send(`{"type":"BOOKMARK","object":{"kind":"Pod","apiVersion":"v1","metadata":{"resourceVersion":"%d"%s}}}`, rv, annotations)
}

func (x *exchange) expire() *exchange {
	return x.send(`{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"too old","reason":"Expired","code":410}}`)
}

func (x *exchange) list(rv int) {
	x.send(`{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"%d"},"items":[]}`, rv).end()
}

func (x *exchange) refuse(code int, reason string) {
	x.serve(func() { x.w.WriteHeader(code) })
	x.send(`{"kind":"Status","apiVersion":"v1","status":"Failure","reason":%q,"code":%d}`, reason, code).end()
}

func (x *exchange) end() { x.serve(nil) }

// startBroken runs a stream against a breaker.
func startBroken(t *testing.T, budget int64, part Scope) (*Stream, *breaker) {
	t.Helper()
	ignore := goleak.IgnoreCurrent()
	b := &breaker{t: t, requests: make(chan *exchange)}
	server := httptest.NewServer(b)
	base, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	s := New(t.Context(), Options{
		Schema: pods, Format: wire.JSON, Scope: part, Source: &Source{Transport: transport, Base: base}, Budget: &Budget{Limit: budget}, Log: logr.Discard(),
	})
	stopped := make(chan struct{})
	go func() { s.Run(); close(stopped) }()
	t.Cleanup(func() {
		s.Fail(io.EOF)
		<-stopped
		transport.CloseIdleConnections()
		server.CloseClientConnections()
		server.Close()
		if used := s.budget.Used(); used != 0 {
			t.Errorf("%d bytes of the budget are lost", used)
		}
		goleak.VerifyNone(t, ignore)
	})
	return s, b
}

// load answers the first request with two objects at 10 and leaves it open.
func load(t *testing.T, s *Stream, b *breaker) *exchange {
	t.Helper()
	x := b.next()
	if x.query.Get("sendInitialEvents") != "true" || x.query.Get("resourceVersion") != "" {
		t.Fatalf("first request %v", x.query)
	}
	x.event("ADDED", "a/1", 3).event("ADDED", "a/2", 4).bookmark(10, true)
	if st := s.Loaded(t.Context()); st.Applied != 10 || st.Len() != 2 {
		t.Fatalf("loaded %d objects at %d", st.Len(), st.Applied)
	}
	return x
}

func reach(t *testing.T, s *Stream, rv uint64) *State {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	st, err := s.Reach(ctx, rv)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func TestRestoredUpstreamEndsTheStream(t *testing.T) {
	s, b := startBroken(t, 0, Scope{})
	load(t, s, b)
	go func() { b.next().list(5) }()
	if _, err := s.Current(t.Context()); !errors.Is(err, ErrRestored) {
		t.Errorf("got %v", err)
	}
	if <-s.Done(); !errors.Is(s.Err(), ErrRestored) {
		t.Errorf("ended by %v", s.Err())
	}
}

func TestListFromBeforeEndsTheStream(t *testing.T) {
	s, b := startBroken(t, 0, Scope{})
	load(t, s, b).expire().end()
	b.next().event("ADDED", "a/9", 4).bookmark(5, true)
	if <-s.Done(); !errors.Is(s.Err(), ErrRestored) {
		t.Errorf("ended by %v", s.Err())
	}
}

// TestOvertakenListsAreIgnored has a catch-up come further than a list that was asked
// for before.
func TestOvertakenListsAreIgnored(t *testing.T) {
	s, b := startBroken(t, 0, Scope{})
	load(t, s, b).expire().end()
	c := s.State().End()
	again := b.next()
	s.CatchUp(15)
	b.next().event("MODIFIED", "a/1", 14).bookmark(15, false)
	reach(t, s, 15)
	again.event("ADDED", "a/1", 3).event("ADDED", "a/2", 4).bookmark(12, true)
	again.event("MODIFIED", "a/1", 14).event("MODIFIED", "a/2", 16)
	st := reach(t, s, 16)
	if e, on := st.Event(c); !on || e.ResourceVersion != 14 || st.Events() != 2 || st.Len() != 2 {
		t.Errorf("%d events, %d objects; watchers hear of %+v", st.Events(), st.Len(), e)
	}
}

// TestRevisionsAreNotTorn has two objects deleted at one resourceVersion, and memory hear
// of one before somebody else says, or the watch breaks.
func TestRevisionsAreNotTorn(t *testing.T) {
	for name, next := range map[string]func(*Stream, *exchange){
		"caught-up": func(s *Stream, _ *exchange) { s.CatchUp(12) },
		"again":     func(_ *Stream, x *exchange) { x.end() },
	} {
		t.Run(name, func(t *testing.T) {
			s, b := startBroken(t, 0, Scope{})
			x := load(t, s, b).event("DELETED", "a/1", 11)
			reach(t, s, 11)
			next(s, x)
			second := b.next()
			if got := second.query.Get("resourceVersion"); got != "10" {
				t.Errorf("watched from %q", got)
			}
			second.event("DELETED", "a/1", 11).event("DELETED", "a/2", 11).bookmark(12, false)
			x.event("DELETED", "a/2", 11)
			if st := reach(t, s, 12); st.Len() != 0 || st.Events() != 2 {
				t.Errorf("%d objects, %d events", st.Len(), st.Events())
			}
		})
	}
}

func TestSilentWatchIsSuspected(t *testing.T) {
	s, b := startBroken(t, 0, Scope{})
	load(t, s, b).end()
	b.next() // the watch goes on, and nothing comes
	b.next().list(5)
	if <-s.Done(); !errors.Is(s.Err(), ErrRestored) {
		t.Errorf("ended by %v", s.Err())
	}
}

func TestExpiredWatchIsListedAnew(t *testing.T) {
	s, b := startBroken(t, 0, Scope{})
	x := load(t, s, b)
	c := s.State().End()
	x.expire().end()
	b.next().event("ADDED", "a/9", 19).bookmark(20, true)
	st := reach(t, s, 20)
	if _, on := st.Event(c); on {
		t.Error("a watcher crossed a gap")
	}
	if st.Len() != 1 || st.Oldest != 20 {
		t.Errorf("%d objects, oldest %d", st.Len(), st.Oldest)
	}
}

func TestCatchUpProvesQuietCollections(t *testing.T) {
	s, b := startBroken(t, 0, Scope{})
	x := load(t, s, b)
	s.CatchUp(12)
	second := b.next()
	if got := second.query; got.Get("resourceVersion") != "10" || got.Get("timeoutSeconds") != "3" || got.Get("allowWatchBookmarks") != "true" {
		t.Errorf("catch-up asked %v", got)
	}
	second.event("MODIFIED", "a/1", 11).bookmark(12, false)
	if st := reach(t, s, 12); st.Events() != 1 {
		t.Errorf("%d events", st.Events())
	}
	// The watch brings the same, and then more.
	x.event("MODIFIED", "a/1", 11).event("DELETED", "a/2", 13)
	if st := reach(t, s, 13); st.Events() != 2 || st.Len() != 1 {
		t.Errorf("%d events, %d objects", st.Events(), st.Len())
	}
}

func TestRelistsNeverGoBack(t *testing.T) {
	s, b := startBroken(t, 0, Scope{})
	x := load(t, s, b)
	s.CatchUp(15)
	b.next().bookmark(15, false)
	reach(t, s, 15)
	x.end() // the reflector still believes to be at 10
	again := b.next()
	if got := again.query.Get("resourceVersion"); got != "15" {
		t.Errorf("watched again from %q", got)
	}
}

func TestMalformedFramesAreNotBelieved(t *testing.T) {
	s, b := startBroken(t, 0, Scope{})
	x := load(t, s, b)
	x.event("MODIFIED", "a/1", 11).send(`{"type":"MODIFIED","object":{"metadata":{"name":"x"}}}`).end()
	again := b.next()
	if got := again.query.Get("resourceVersion"); got != "11" {
		t.Errorf("watched again from %q", got)
	}
	again.event("ADDED", "a/1", 11).event("ADDED", "a/2", 4).bookmark(12, true)
	if st := reach(t, s, 12); st.Len() != 2 {
		t.Errorf("%d objects", st.Len())
	}
}

func TestRefusalEndsTheStream(t *testing.T) {
	s, b := startBroken(t, 0, Scope{})
	b.next().refuse(http.StatusForbidden, "Forbidden")
	if <-s.Done(); !apierrors.IsForbidden(s.Err()) {
		t.Errorf("ended by %v", s.Err())
	}
}

func TestOldServersAreListed(t *testing.T) {
	s, b := startBroken(t, 0, Scope{})
	b.next().refuse(http.StatusUnprocessableEntity, "Invalid") // no WatchList
	x := b.next()
	if got := x.query; got.Get("watch") != "" || got.Get("resourceVersion") != "" {
		t.Errorf("listed by %v", got)
	}
	x.send(`{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"7"},"items":[{"metadata":{"name":"1","namespace":"a","resourceVersion":"3"}}]}`).end()
	b.next().event("ADDED", "a/2", 8)
	if st := reach2(t, s, 8); st.Len() != 2 {
		t.Errorf("%d objects", st.Len())
	}
	if mark := s.Bookmark(); mark != nil {
		t.Error("a bookmark out of nothing")
	}
}

// reach2 waits for the first state too.
func reach2(t *testing.T, s *Stream, rv uint64) *State {
	t.Helper()
	s.Loaded(t.Context())
	return reach(t, s, rv)
}

func TestLoadingStopsAtTheBudget(t *testing.T) {
	s, b := startBroken(t, 2000, Scope{})
	x := b.next()
	go func() {
		for i := range 100 {
			x.event("ADDED", fmt.Sprintf("a/%d", i), i+1)
		}
	}()
	if <-s.Done(); !errors.Is(s.Err(), ErrOverBudget) {
		t.Errorf("ended by %v", s.Err())
	}
}

func TestObjectsLeaveAPart(t *testing.T) {
	s, b := startBroken(t, 0, Scope{Field: "spec.nodeName", Value: "n1"})
	x := b.next()
	if got := x.query.Get("fieldSelector"); got != "spec.nodeName=n1" {
		t.Errorf("asked for %q", got)
	}
	x.event("ADDED", "a/1", 3).event("ADDED", "a/2", 4).bookmark(10, true)
	at := s.Loaded(t.Context()).End()
	// The API server sends what the object was, at what made it another.
	x.event("DELETED", "a/1", 12)
	st := reach(t, s, 12)
	e, _ := st.Event(at)
	if st.Len() != 1 || !e.Deleted || e.Previous.ResourceVersion != 3 || !strings.Contains(string(e.Object.Raw), `"12"`) {
		t.Errorf("%d objects, event %+v", st.Len(), e)
	}
}

func TestProbesAskForNoMoreThanThePart(t *testing.T) {
	for want, scope := range map[string]Scope{
		"/api/v1/namespaces/portico-probe-none/pods?limit=1":                                        {},
		"/api/v1/namespaces/portico-probe-none/pods?fieldSelector=spec.nodeName%3Da%5C%2Cb&limit=1": {Field: "spec.nodeName", Value: "a,b"},
		"/api/v1/namespaces/a/pods?fieldSelector=metadata.name%3Dportico-probe-none&limit=1":        {Namespace: "a"},
		"/api/v1/namespaces/portico-probe-none/pods?fieldSelector=metadata.name%3Dx&limit=1":        {Field: "metadata.name", Value: "x"},
	} {
		s, b := startBroken(t, 0, scope)
		x := b.next()
		x.bookmark(10, true)
		s.Loaded(t.Context())
		asked := make(chan string, 1)
		go func() {
			probe := b.next()
			asked <- probe.r.URL.String()
			probe.list(11)
		}()
		if rv, err := s.Current(t.Context()); rv != 11 || err != nil {
			t.Errorf("%v: %d, %v", scope, rv, err)
		}
		if got := <-asked; got != want {
			t.Errorf("%v: asked %s, want %s", scope, got, want)
		}
	}
}
