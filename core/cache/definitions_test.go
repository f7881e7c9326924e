package cache_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/portico-proxy/portico/core/cache"
	"github.com/portico-proxy/portico/core/cache/cachetest"
)

// vans is a definition whose only version gives wheels a default, unless that is 0.
func vans(wheels int) object {
	property := object{"type": "integer"}
	if wheels != 0 {
		property["default"] = wheels
	}
	return object{
		"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
		"metadata": object{"name": "vans.definitions.example.org"},
		"spec": object{
			"group": "definitions.example.org", "scope": "Namespaced", "names": object{"plural": "vans", "kind": "Van"},
			"versions": []any{object{"name": "v1", "served": true, "storage": true, "schema": object{"openAPIV3Schema": object{
				"type": "object", "properties": object{"wheels": property, "color": object{"type": "string"}},
			}}}},
		},
	}
}

// forgetful is an upstream that can lose what happened to definitions.
type forgetful struct {
	http.RoundTripper
	mu     sync.Mutex     // guards following
	open   io.Closer      // the watch of them
	loads  map[string]int // by path
	forgot bool
}

func (f *forgetful) RoundTrip(r *http.Request) (*http.Response, error) {
	q := r.URL.Query()
	f.mu.Lock()
	defer f.mu.Unlock()
	if q.Get("sendInitialEvents") != "" {
		f.loads[r.URL.Path]++
	}
	if q.Get("watch") == "" || r.URL.Path != definitions {
		return f.RoundTripper.RoundTrip(r)
	}
	if q.Get("sendInitialEvents") == "" && f.forgot {
		f.forgot = false
		return &http.Response{StatusCode: http.StatusGone, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(
			`{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Expired","code":410}`))}, nil
	}
	res, err := f.RoundTripper.RoundTrip(r)
	if err == nil {
		f.open = res.Body
	}
	return res, err
}

// forget has definitions be listed anew.
func (f *forgetful) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.forgot = true
	_ = f.open.Close()
}

// loaded is how often the collection at path has been.
func (f *forgetful) loaded(path string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.loads[path]
}

const definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"

func TestRedefinedResourcesAreReadAnew(t *testing.T) {
	d := direct(t)
	d.AddNamespace("definitions")
	upstream := &forgetful{loads: map[string]int{}}
	const path = "/apis/definitions.example.org/v1/namespaces/definitions/vans"
	d.Write(http.MethodPost, definitions, vans(0))
	until(t, func() bool { return d.Get(path, cachetest.JSON).Status == http.StatusOK })
	d.Write(http.MethodPost, path, object{"apiVersion": "definitions.example.org/v1", "kind": "Van", "metadata": object{"name": "a"}})
	p := newProxy(t, func(o *cache.Options) {
		upstream.RoundTripper = o.Upstream
		o.Upstream = upstream
	})
	p.warm(path, cachetest.JSON)

	// Nobody knows what happened to definitions meanwhile.
	loaded := upstream.loaded(path)
	upstream.forget()
	until(t, func() bool {
		got := p.Get(path+"?resourceVersion=0", cachetest.JSON)
		return upstream.loaded(path) > loaded && got.ServedBy() == "cache"
	})

	// Defaults show in objects that nobody has written to.
	d.Patch(definitions+"/vans.definitions.example.org", string(marshal(t, object{"spec": vans(6)["spec"]})))
	same := func() bool {
		want, got := d.Get(path+"?resourceVersion=0", cachetest.JSON), p.Get(path+"?resourceVersion=0", cachetest.JSON)
		return wheels(t, want) == 6 && wheels(t, got) == 6 && got.ServedBy() == "cache"
	}
	until(t, same)

	// Another resource of the same name.
	d.Write(http.MethodDelete, definitions+"/vans.definitions.example.org", nil)
	until(t, func() bool {
		return p.Get(path+"?resourceVersion=0", cachetest.JSON).Status == http.StatusNotFound
	})
	d.Write(http.MethodPost, definitions, vans(8))
	until(t, func() bool { return d.Get(path, cachetest.JSON).Status == http.StatusOK })
	until(t, func() bool {
		got := p.Get(path+"?resourceVersion=0", cachetest.JSON)
		return got.Status == http.StatusOK && len(got.List(t).Items) == 0
	})
}

// TestDroppedResourcesAreNotBegun has a definition change between a read's question how
// objects are to be read and its use of the answer.
func TestDroppedResourcesAreNotBegun(t *testing.T) {
	p := newProxy(t, nothingRefused)
	p.warm("/api/v1/namespaces", cachetest.JSON) // the cache has started
	const path = "/api/v1/configmaps"
	info := &request.RequestInfo{IsResourceRequest: true, Path: path, Verb: "list", APIVersion: "v1", Resource: "configmaps"}
	r := httptest.NewRequestWithContext(request.WithRequestInfo(t.Context(), info), http.MethodGet, path, nil)
	if p.cache.BeginsDropped(r) {
		t.Error("it was begun as it was known before")
	}
	p.warm(path, cachetest.JSON)
}

// wheels is how many the first item has, 0 if there is none.
func wheels(t testing.TB, a cachetest.Answer) int {
	t.Helper()
	var l struct {
		Items []struct {
			Wheels int `json:"wheels"`
		} `json:"items"`
	}
	if err := json.Unmarshal(a.Body, &l); err != nil {
		t.Fatal(err)
	}
	if len(l.Items) == 0 {
		return 0
	}
	return l.Items[0].Wheels
}
