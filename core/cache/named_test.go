package cache_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/portico-proxy/portico/core/cache"
	"github.com/portico-proxy/portico/core/cache/cachetest"
)

// TestResourcesThatAreNotThereAreForgotten names many under a policy for all resources,
// while upstream is there, refuses, fails and is gone.
func TestResourcesThatAreNotThereAreForgotten(t *testing.T) {
	p := newProxy(t, func(o *cache.Options) {
		o.Policies = func(schema.GroupResource) cache.Policy {
			return cache.Policy{StaleIfError: time.Hour, Session: func(user.Info) bool { return true }}
		}
	})
	p.cache.FillLedger(5)
	name := func() {
		for n := range 10 {
			for _, path := range []string{
				fmt.Sprintf("/api/v1/none-%d", n), fmt.Sprintf("/api/v1/none-%d?bogus=1", n), fmt.Sprintf("/api/v1/namespaces/a/none-%d/b", n),
				fmt.Sprintf("/apis/none-%d/v1/c", n), fmt.Sprintf("/apis/none-%d/v1/c?watch=true&timeoutSeconds=1", n),
			} {
				if got := p.Get(path, cachetest.JSON); got.Status < http.StatusBadRequest {
					t.Fatalf("%s: %d", path, got.Status)
				}
			}
		}
	}
	name()
	for n := range 10 {
		res := p.Open(t.Context(), http.MethodPost, fmt.Sprintf("/api/v1/none-%d", n), http.Header{"Content-Type": {cachetest.JSON}}, []byte("{}"))
		if res.StatusCode != http.StatusNotFound {
			t.Fatalf("written: %d", res.StatusCode)
		}
		_ = res.Body.Close()
	}
	for _, code := range []int32{http.StatusUnauthorized, http.StatusForbidden, http.StatusTooManyRequests, http.StatusServiceUnavailable} {
		p.upstream.code.Store(code)
		name()
	}
	p.upstream.code.Store(0)
	p.upstream.gone.Store(true)
	name()
	if floors, outages, _ := p.cache.Named(); floors > cache.MaxDoubted || outages > 0 {
		t.Errorf("%d resources are in doubt, and %d gone", floors, outages)
	}
}

// TestNamesThatCannotBeAreNotRemembered has a client write to what no API can have.
func TestNamesThatCannotBeAreNotRemembered(t *testing.T) {
	p := newProxy(t, sessions)
	long := strings.Repeat("x", 300)
	for _, path := range []string{"/api/v1/" + long, "/apis/" + long + "/v1/none"} {
		res := p.Open(t.Context(), http.MethodPost, path, http.Header{"Content-Type": {cachetest.JSON}}, []byte("{}"))
		_ = res.Body.Close()
		if res.StatusCode != http.StatusNotFound {
			t.Errorf("%d", res.StatusCode)
		}
		p.Get(path, cachetest.JSON)
	}
	if floors, _, _ := p.cache.Named(); floors > 0 {
		t.Errorf("%d are", floors)
	}
}

// TestResourcesThatCannotBeCachedAreForgotten asks for many, once.
func TestResourcesThatCannotBeCachedAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, end := newHerd(t)
		defer end()
		for n := range 10 {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, fmt.Sprintf("/api/v1/none-%d?resourceVersion=0", n), nil)
			h.server.ServeHTTP(httptest.NewRecorder(), r)
		}
		if _, _, resources := h.cache.Named(); resources != 10 {
			t.Errorf("%d were asked about", resources)
		}
		<-time.After(2 * time.Minute)
		if _, _, resources := h.cache.Named(); resources != 0 {
			t.Errorf("%d are remembered", resources)
		}
	})
}
