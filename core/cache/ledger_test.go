package cache_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/portico-proxy/portico/core/cache"
	"github.com/portico-proxy/portico/core/cache/cachetest"
)

// selected has only some requests be spoiled.
type selected struct {
	*counter
	of func(*http.Request) bool
}

func (s selected) RoundTrip(r *http.Request) (*http.Response, error) {
	if s.of(r) {
		return s.counter.RoundTrip(r)
	}
	return s.counter.RoundTripper.RoundTrip(r)
}

// isLasting reports what is no watch that catches up.
func isLasting(r *http.Request) bool { return r.URL.Query().Get("timeoutSeconds") != "3" }

// newDesk starts a proxy for sessions that has a ConfigMap of a new namespace in memory.
// Only requests that of selects are spoiled.
func newDesk(t *testing.T, namespace string, of func(*http.Request) bool) (p *proxy, path string) {
	t.Helper()
	d := direct(t)
	d.AddNamespace(namespace)
	path = "/api/v1/namespaces/" + namespace + "/configmaps"
	d.Write(http.MethodPost, path, object{"metadata": object{"name": "a"}, "data": object{"v": "first"}})
	p = newProxy(t, func(o *cache.Options) {
		sessions(o)
		o.Upstream = selected{o.Upstream.(*counter), of}
	})
	p.warm(path, cachetest.JSON)
	return p, path
}

// deafen has watches say nothing until the test ends.
func (p *proxy) deafen(t *testing.T) {
	t.Helper()
	gate := make(chan struct{})
	p.upstream.held.Store(&gate)
	t.Cleanup(func() {
		p.upstream.held.Store(nil)
		close(gate)
	})
}

const second = `{"data":{"v":"second"}}`

// expect expects a ConfigMap to have a value.
func (p *proxy) expect(path, accept, value string) {
	p.t.Helper()
	if got := p.Get(path, accept); !strings.Contains(string(got.Body), value) {
		p.t.Errorf("%s as %s has no %s: %d by %q: %q", path, accept, value, got.Status, got.ServedBy(), got.Body)
	}
}

// TestWritesThatNameAnUpgradeAreSeen has a client that is in no session name one where
// the API server overlooks it.
func TestWritesThatNameAnUpgradeAreSeen(t *testing.T) {
	p, path := newDesk(t, "desk-upgrade", isLasting)
	var writing atomic.Bool
	p.cache.SetPolicies(func(schema.GroupResource) cache.Policy {
		return cache.Policy{Session: func(user.Info) bool { return !writing.Load() }}
	})
	p.expect(path+"/a", cachetest.JSON, "first")
	p.deafen(t)
	writing.Store(true)
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPatch, path+"/a", strings.NewReader(second))
	r.Header = http.Header{"Content-Type": {"application/merge-patch+json"}, "Upgrade": {"x"}}
	w := httptest.NewRecorder()
	if p.handler.ServeHTTP(w, r); w.Code != http.StatusOK {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	writing.Store(false)
	p.expect(path+"/a", cachetest.JSON, "second")
}

// TestSessionsSeeWhatTheirWatchesTold has a watch go past memory, which hears late.
func TestSessionsSeeWhatTheirWatchesTold(t *testing.T) {
	p, path := newDesk(t, "desk-watched", isLasting)
	start := direct(t).Get(path, cachetest.JSON).List(t).Metadata.ResourceVersion
	w := p.Watch(path+"?watch=true&bogus=1&resourceVersion="+start, cachetest.JSON)
	if by := w.ServedBy(); by != "" {
		t.Fatalf("watched by %q", by)
	}
	p.expect(path+"/a", cachetest.JSON, "first")
	p.deafen(t)
	direct(t).Patch(path+"/a", second)
	if e := w.Event(); e.Type != "MODIFIED" || e.Object.Metadata.Name != "a" {
		t.Fatalf("got %+v", e)
	}
	p.expect(path+"/a", cachetest.JSON, "second")
}

// TestSessionsDoNotGoBackBetweenFormats has one of two hear late.
func TestSessionsDoNotGoBackBetweenFormats(t *testing.T) {
	p, path := newDesk(t, "desk-formats", func(r *http.Request) bool { return isLasting(r) && r.Header.Get("Accept") == cachetest.Protobuf })
	p.warm(path, cachetest.Protobuf)
	p.deafen(t)
	p.expect(path+"/a", cachetest.Protobuf, "first")
	direct(t).Patch(path+"/a", second)
	until(t, func() bool { return strings.Contains(string(p.Get(path+"/a", cachetest.JSON).Body), "second") })
	p.expect(path+"/a", cachetest.Protobuf, "second")
}

// TestSessionsDoNotGoBackBehindThePast has a watch be told by upstream what was before
// memory's history, and what is still to come there.
func TestSessionsDoNotGoBackBehindThePast(t *testing.T) {
	d := direct(t)
	start := d.Get("/api/v1/namespaces/default/configmaps", cachetest.JSON).List(t).Metadata.ResourceVersion
	p, path := newDesk(t, "desk-past", isLasting)
	p.deafen(t)
	d.Patch(path+"/a", second)
	w := p.Watch(path+"?watch=true&resourceVersion="+start, cachetest.JSON)
	if by := w.ServedBy(); by != "cache" {
		t.Fatalf("watched by %q", by)
	}
	if first, second := w.Event(), w.Event(); first.Type != "ADDED" || second.Type != "MODIFIED" {
		t.Fatalf("got %+v and %+v", first, second)
	}
	p.expect(path+"/a", cachetest.JSON, "second")
}

// TestSessionsElsewhereCostNothing has objects change that no other part has.
func TestSessionsElsewhereCostNothing(t *testing.T) {
	d := direct(t)
	var paths []string
	p := newProxy(t, func(o *cache.Options) {
		o.Policies = func(schema.GroupResource) cache.Policy {
			return cache.Policy{Parts: true, Session: func(user.Info) bool { return true }}
		}
	})
	for _, namespace := range []string{"desk-here", "desk-there"} {
		d.AddNamespace(namespace)
		path := "/api/v1/namespaces/" + namespace + "/configmaps"
		d.Write(http.MethodPost, path, object{"metadata": object{"name": "a"}, "data": object{"v": "first"}})
		p.warm(path, cachetest.JSON)
		paths = append(paths, path+"/a")
	}
	for _, path := range paths { // what was read past memory is caught up with
		p.expect(path, cachetest.JSON, "first")
	}
	d.Patch(paths[1], second)
	until(t, func() bool { return strings.Contains(string(p.Get(paths[1], cachetest.JSON).Body), "second") })
	before := p.upstream.requests.Load() + p.passed.Load()
	p.expect(paths[0], cachetest.JSON, "first")
	if n := p.upstream.requests.Load() + p.passed.Load() - before; n > 0 {
		t.Errorf("cost %d requests", n)
	}
}
