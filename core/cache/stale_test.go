package cache_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/portico-proxy/portico/core/cache"
	"github.com/portico-proxy/portico/core/cache/cachetest"
)

// stale lets ConfigMaps be as old as age while upstream is gone.
func stale(age time.Duration) func(*cache.Options) {
	return func(o *cache.Options) {
		o.Policies = func(r schema.GroupResource) cache.Policy {
			if r.Resource == "configmaps" {
				return cache.Policy{StaleIfError: age}
			}
			return cache.Policy{}
		}
	}
}

// shelf is a namespace of ConfigMaps that a proxy keeps.
func shelf(t *testing.T, p *proxy, namespace string) (path string) {
	t.Helper()
	direct(t).AddNamespace(namespace)
	path = "/api/v1/namespaces/" + namespace + "/configmaps"
	direct(t).Write(http.MethodPost, path, object{"metadata": object{"name": "a"}, "data": object{"k": "1"}})
	// By an object, of which it is known how new it is: of a list that went upstream
	// while memory was loading that would have to be asked.
	p.warm(path+"/a?resourceVersion=0", cachetest.JSON)
	return path
}

func (p *proxy) check(path string, status int, by string) cachetest.Answer {
	p.t.Helper()
	got := p.Get(path, cachetest.JSON)
	if got.Status != status || got.ServedBy() != by {
		p.t.Errorf("%s: %d, served by %q; want %d, by %q: %.200s", path, got.Status, got.ServedBy(), status, by, got.Body)
	}
	return got
}

func TestReadsAreAnsweredStaleWhileUpstreamIsGone(t *testing.T) {
	p := newProxy(t, stale(time.Hour))
	path := shelf(t, p, "stale")
	p.upstream.gone.Store(true)
	for _, query := range []string{"", "/a", "?labelSelector=!none", "?fieldSelector=metadata.name%3Da"} {
		got := p.check(path+query, http.StatusOK, "stale")
		if w := got.Header["Warning"]; len(w) != 2 || !strings.HasPrefix(w[0], "110 ") || !strings.HasPrefix(w[1], "299 ") || got.Header.Get("Age") == "" {
			t.Errorf("%s: warns %q, age %q", query, w, got.Header.Get("Age"))
		}
		if !strings.Contains(string(got.Body), `"name":"a"`) {
			t.Errorf("%s: %s", query, got.Body)
		}
	}
	// What memory has is answered as ever; what cannot be told fails as upstream does.
	p.check(path+"?resourceVersion=0", http.StatusOK, "cache")
	p.check(path+"/none", http.StatusServiceUnavailable, "")
	p.check(path+"?resourceVersion=1000000000", http.StatusServiceUnavailable, "")
	p.check(path+"?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&timeoutSeconds=1&bogus=1", http.StatusServiceUnavailable, "")
	p.check("/api/v1/namespaces/stale/serviceaccounts", http.StatusServiceUnavailable, "")
	p.check("/api/v1/namespaces/stale", http.StatusServiceUnavailable, "")

	p.upstream.gone.Store(false)
	direct(t).Write(http.MethodPost, path, object{"metadata": object{"name": "b"}})
	if got := p.Get(path, cachetest.JSON); got.ServedBy() == "stale" || !strings.Contains(string(got.Body), `"name":"b"`) {
		t.Errorf("once it is back: by %s: %s", got.ServedBy(), got.Body)
	}
	if got := p.Get(path+"/b", cachetest.JSON); got.Status != http.StatusOK || len(got.Header["Warning"]) > 0 {
		t.Errorf("once it is back: %d, warns %q", got.Status, got.Header["Warning"])
	}
}

// TestUpstreamThatIsNotAskedIsNotGone has a load balancer fail once, and say that it is
// to be asked in a minute.
func TestUpstreamThatIsNotAskedIsNotGone(t *testing.T) {
	p := newProxy(t, stale(time.Hour))
	path := shelf(t, p, "stale-paused")
	p.upstream.pausing.Store(true)
	p.check(path, http.StatusOK, "stale")
	p.upstream.pausing.Store(false)
	direct(t).Write(http.MethodPost, path, object{"metadata": object{"name": "b"}})
	asked := p.upstream.requests.Load()
	for range 2 {
		if got := p.check(path, http.StatusOK, ""); !strings.Contains(string(got.Body), `"name":"b"`) {
			t.Errorf("without what was written since: %s", got.Body)
		}
	}
	if n := p.upstream.requests.Load() - asked; n > 0 {
		t.Errorf("asked %d times meanwhile", n)
	}
}

func TestStaleAnswersHaveTheirTime(t *testing.T) {
	p := newProxy(t, stale(time.Nanosecond))
	path := shelf(t, p, "stale-old")
	p.upstream.gone.Store(true)
	p.check(path, http.StatusServiceUnavailable, "")
	p.check(path+"/a", http.StatusServiceUnavailable, "")
}

// TestStaleAnswersAreNoOlderThanWhatWasTold has memory hear late of what was written
// and read through the proxy before upstream was lost.
func TestStaleAnswersAreNoOlderThanWhatWasTold(t *testing.T) {
	type told struct {
		tell func(p *proxy, path string)
		// exact says that it is known how far memory has to come. Else that would
		// have to be asked.
		exact bool
	}
	create := func(d *cachetest.Door, path string) {
		d.Write(http.MethodPost, path, object{"metadata": object{"name": "b"}})
	}
	for name, tt := range map[string]told{
		"written": {func(p *proxy, path string) { create(p.Door, path) }, true},
		"read":    {func(p *proxy, path string) { create(direct(p.t), path); p.check(path+"/b", http.StatusOK, "") }, true},
		"listed":  {func(p *proxy, path string) { create(direct(p.t), path); p.check(path, http.StatusOK, "coalesced") }, false},
		"watched": {func(p *proxy, path string) {
			create(direct(p.t), path)
			if got := p.check(path+"?watch=true&resourceVersion=0&timeoutSeconds=1&bogus=1", http.StatusOK, ""); !strings.Contains(string(got.Body), `"name":"b"`) {
				p.t.Errorf("a watch told %s", got.Body)
			}
		}, false},
		"deleted": {func(p *proxy, path string) { p.Write(http.MethodDelete, path+"/a", nil) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProxy(t, stale(time.Hour))
			path := shelf(t, p, "stale-told-"+name)
			hold := make(chan struct{})
			p.upstream.held.Store(&hold)
			tt.tell(p, path)
			p.upstream.gone.Store(true)
			p.check(path, http.StatusServiceUnavailable, "")
			p.check(path+"/a", http.StatusServiceUnavailable, "")
			p.upstream.held.Store(nil)
			close(hold)
			if tt.exact {
				until(t, func() bool { return p.Get(path+"/b", cachetest.JSON).ServedBy() == "stale" })
				p.check(path, http.StatusOK, "stale")
			}
		})
	}
}

// whileSomebodyAsks does something while another request waits for what upstream says.
func (p *proxy) whileSomebodyAsks(path string, do func()) {
	p.t.Helper()
	gate, asked, done := make(chan struct{}), p.upstream.requests.Load(), make(chan struct{})
	p.upstream.gate.Store(&gate)
	go func() {
		defer close(done)
		p.Get(path, cachetest.JSON)
	}()
	until(p.t, func() bool { return p.upstream.requests.Load() > asked })
	do()
	p.upstream.gate.Store(nil)
	close(gate)
	<-done
}

// TestNobodyCanDeclareAnOutage has a caller's own request fail, and asks on behalf of
// others.
func TestNobodyCanDeclareAnOutage(t *testing.T) {
	p := newProxy(t, stale(time.Hour))
	path := shelf(t, p, "stale-declared")
	p.upstream.code.Store(http.StatusGatewayTimeout)
	p.check(path+"/a", http.StatusOK, "stale")
	p.upstream.code.Store(0)
	p.whileSomebodyAsks(path, func() { p.check(path+"/a", http.StatusOK, "") })
}

// TestAnyAnswerEndsAnOutage has upstream refuse a list when it is back.
func TestAnyAnswerEndsAnOutage(t *testing.T) {
	p := newProxy(t, stale(time.Hour))
	path := shelf(t, p, "stale-ended")
	p.upstream.gone.Store(true)
	p.check(path, http.StatusOK, "stale")
	p.upstream.gone.Store(false)
	p.upstream.code.Store(http.StatusTooManyRequests)
	p.check(path+"?bogus=1", http.StatusTooManyRequests, "")
	p.upstream.code.Store(0)
	p.whileSomebodyAsks(path, func() { p.check(path+"/a", http.StatusOK, "") })
}

func TestSlowUpstreamIsNotGone(t *testing.T) {
	p := newProxy(t, stale(time.Hour))
	path := shelf(t, p, "stale-slow")
	p.upstream.late.Store(true)
	p.check(path, http.StatusOK, "")
}

// unread is a client that reads nothing until it is released.
type unread struct {
	*httptest.ResponseRecorder
	begun, released chan struct{}
	once            sync.Once
}

func (u *unread) Write(p []byte) (int, error) {
	u.once.Do(func() { close(u.begun) })
	<-u.released
	return u.ResponseRecorder.Write(p)
}

// TestSlowReadersDoNotProlongAnOutage has a client take its time over a stale answer,
// and over one that found out that upstream is back.
func TestSlowReadersDoNotProlongAnOutage(t *testing.T) {
	p := newProxy(t, stale(time.Hour))
	path := shelf(t, p, "stale-unread")
	released, done := make(chan struct{}), sync.WaitGroup{}
	defer done.Wait()
	defer close(released)
	read := func(path string) {
		u := &unread{ResponseRecorder: httptest.NewRecorder(), begun: make(chan struct{}), released: released}
		done.Go(func() { p.handler.ServeHTTP(u, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)) })
		<-u.begun
	}
	lose := func() {
		p.upstream.gone.Store(true)
		// Memory may not have heard yet of what was told before.
		until(t, func() bool { return p.Get(path, cachetest.JSON).ServedBy() == "stale" })
	}
	for i, one := range []string{path, path + "/a", path + "?resourceVersion=0"} {
		lose()
		read(one)
		p.upstream.gone.Store(false)
		name := fmt.Sprint("b-", i)
		direct(t).Write(http.MethodPost, path, object{"metadata": object{"name": name}})
		if got := p.Get(path, cachetest.JSON); got.ServedBy() == "stale" || !strings.Contains(string(got.Body), name) {
			t.Errorf("while somebody reads %s: by %q: %s", one, got.ServedBy(), got.Body)
		}
		read(one)
	}
	lose()
	p.upstream.gone.Store(false)
	p.check(path+"/a", http.StatusOK, "")
}

// TestOneFindsOutWhetherAnOutageIsOver has others read while the first waits.
func TestOneFindsOutWhetherAnOutageIsOver(t *testing.T) {
	p := newProxy(t, stale(time.Hour))
	path := shelf(t, p, "stale-tried")
	p.upstream.gone.Store(true)
	p.check(path, http.StatusOK, "stale")
	p.whileSomebodyAsks(path, func() {
		asked := p.upstream.requests.Load() + p.passed.Load()
		p.check(path, http.StatusOK, "stale")
		p.check(path+"/a", http.StatusOK, "stale")
		p.check(path+"?resourceVersion=0", http.StatusOK, "cache")
		if n := p.upstream.requests.Load() + p.passed.Load() - asked; n > 0 {
			t.Errorf("%d others asked", n)
		}
	})
}
