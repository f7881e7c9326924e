package cache_test

import (
	"bytes"
	"net/http"
	"testing"

	"github.com/portico-proxy/portico/core/cache/cachetest"
)

// TestOldWatchesComeIntoMemory has clients come back to a proxy that has been
// restarted: it has seen nothing of what they want to hear first.
func TestOldWatchesComeIntoMemory(t *testing.T) {
	d := direct(t)
	d.AddNamespace("old")
	const path = "/api/v1/namespaces/old/configmaps"
	put := func(name, app string) {
		d.Write(http.MethodPost, path, object{"metadata": object{"name": name, "labels": object{"app": app}}})
	}
	put("a", "web")
	start := d.Get(path, cachetest.JSON).List(t).Metadata.ResourceVersion
	put("b", "web")
	d.Patch(path+"/a", `{"metadata":{"labels":{"app":"db"}}}`)
	d.Write(http.MethodDelete, path+"/b", nil)
	put("c", "web")
	p := newProxy(t, nothingRefused)
	for _, accept := range []string{cachetest.JSON, cachetest.Protobuf} {
		p.warm(path, accept)
	}

	type pair struct {
		want, got *cachetest.Watch
		query     string
	}
	var pairs []pair
	before := p.passed.Load()
	for _, accept := range []string{cachetest.JSON, cachetest.Protobuf, cachetest.Protobuf + ";as=PartialObjectMetadata;g=meta.k8s.io;v=v1"} {
		for _, selector := range []string{"", "&labelSelector=app%3Dweb", "&fieldSelector=metadata.name%3Da"} {
			query := path + "?watch=true&resourceVersion=" + start + selector
			one := pair{d.Watch(query, accept), p.Watch(query, accept), query + " as " + accept}
			if one.got.ServedBy() != "cache" {
				t.Errorf("%s by %q", one.query, one.got.ServedBy())
			}
			pairs = append(pairs, one)
		}
	}
	upstream := p.upstream.requests.Load()
	put("d", "web")
	d.Patch(path+"/a", `{"metadata":{"labels":{"app":"web"}}}`)
	d.Write(http.MethodDelete, path+"/a", nil)
	events := []int{7, 6, 3}
	for i, one := range pairs {
		for n := range events[i%3] {
			if want, got := one.want.Frame(), one.got.Frame(); !bytes.Equal(want, got) || len(got) == 0 {
				t.Errorf("%s: event %d\ngot  %q\nwant %q", one.query, n, got, want)
			}
		}
	}
	if n := p.passed.Load() - before; n != 0 {
		t.Errorf("%d watches went upstream", n)
	}
	if n := p.upstream.requests.Load() - upstream; n != 0 {
		t.Errorf("%d requests went upstream for what memory has", n)
	}
}

// TestExpiredWatchesAreUpstreamsToRefuse asks for what was before the API server
// itself began to remember.
func TestExpiredWatchesAreUpstreamsToRefuse(t *testing.T) {
	d := direct(t)
	const path = "/apis/expired.example.org/v1/boats"
	before := d.Get("/api/v1/nodes", cachetest.JSON).List(t).Metadata.ResourceVersion
	d.AddNamespace("expired")
	d.Write(http.MethodPost, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", object{
		"metadata": object{"name": "boats.expired.example.org"},
		"spec": object{"group": "expired.example.org", "scope": "Cluster", "names": object{"plural": "boats", "kind": "Boat"},
			"versions": []any{object{"name": "v1", "served": true, "storage": true, "schema": object{"openAPIV3Schema": object{"type": "object"}}}}},
	})
	until(t, func() bool { return d.Get(path, cachetest.JSON).Status == http.StatusOK })
	p := newProxy(t, nothingRefused)
	p.warm(path, cachetest.JSON)
	query := path + "?watch=true&timeoutSeconds=60&resourceVersion=" + before
	want, got := d.Get(query, cachetest.JSON), p.Get(query, cachetest.JSON)
	if want.Status != got.Status || !bytes.Equal(want.Body, got.Body) || !bytes.Contains(got.Body, []byte("too old")) || got.ServedBy() != "" {
		t.Errorf("got %d %s by %q, want %d %s", got.Status, got.Body, got.ServedBy(), want.Status, want.Body)
	}
}
