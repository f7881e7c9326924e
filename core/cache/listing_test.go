package cache_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/portico-proxy/portico/core/cache/cachetest"
	"github.com/portico-proxy/portico/core/cache/wire"
	"github.com/portico-proxy/portico/core/telemetry"
)

// newestWatch asks for all objects and for the word that they are the newest.
const newestWatch = "?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"

func revision(t *testing.T, resourceVersion string) uint64 {
	t.Helper()
	rv, err := wire.ParseResourceVersion(resourceVersion)
	if err != nil {
		t.Fatal(err)
	}
	return rv
}

func TestSmallQuietCollectionsEndAtOnce(t *testing.T) {
	d := direct(t)
	d.AddNamespace("small")
	const path = "/api/v1/namespaces/small/configmaps"
	d.Write(http.MethodPost, path, object{"metadata": object{"name": "c"}})
	p := newProxy(t, nothingRefused)
	p.warm(path, cachetest.JSON)
	// Something else moves the revision on.
	last := cachetest.ResourceVersion(d.Write(http.MethodPost, "/api/v1/namespaces", object{"metadata": object{"name": "small-b"}}))

	w := p.Watch(path+newestWatch, cachetest.JSON)
	if added, end := w.Event(), w.Event(); added.Type != "ADDED" || !end.EndsInitial() || revision(t, end.Object.Metadata.ResourceVersion) < revision(t, last) {
		t.Errorf("got %+v and %+v, want an object and a bookmark of at least %s", added, end, last)
	}
	figures := figuresOf(t, p, "configmaps")
	if figures.Upstream[telemetry.ForCatchUp] != 0 || figures.Proofs[telemetry.ProofCoalesced] != 1 {
		t.Errorf("it cost %v, proven by %v", figures.Upstream, figures.Proofs)
	}
}

// TestOneObjectOfMuchEndsAtOnce watches one object of a collection that is too
// large to be listed for that.
func TestOneObjectOfMuchEndsAtOnce(t *testing.T) {
	d := direct(t)
	d.AddNamespace("much")
	const path = "/api/v1/namespaces/much/configmaps"
	d.Write(http.MethodPost, path, object{"metadata": object{"name": "c"}})
	d.Write(http.MethodPost, path, object{"metadata": object{"name": "d"}, "data": object{"k": strings.Repeat("x", 300<<10)}})
	p := newProxy(t, nothingRefused)
	p.warm(path, cachetest.JSON)
	d.AddNamespace("much-b") // moves the revision on

	for name, objects := range map[string]int{"c": 1, "nothing": 0} {
		w := p.Watch(path+newestWatch+"&fieldSelector=metadata.name="+name, cachetest.JSON)
		for range objects {
			if e := w.Event(); e.Type != "ADDED" || e.Object.Metadata.Name != name {
				t.Errorf("%s: got %+v, want the object", name, e)
			}
		}
		if e := w.Event(); w.ServedBy() != "cache" || !e.EndsInitial() {
			t.Errorf("%s: served by %q: got %+v, want a bookmark", name, w.ServedBy(), e)
		}
	}
	if n := figuresOf(t, p, "configmaps").Upstream[telemetry.ForCatchUp]; n != 0 {
		t.Errorf("upstream was asked to prove it %d times", n)
	}
}

// deaf is a proxy that has one ConfigMap of a new namespace in memory and hears of
// no other until it is released.
func deaf(t *testing.T, namespace, path string) (d *cachetest.Door, p *proxy, release func()) {
	t.Helper()
	d = direct(t)
	d.AddNamespace(namespace)
	d.Write(http.MethodPost, path, object{"metadata": object{"name": "c"}})
	p = newProxy(t, nothingRefused)
	p.warm(path, cachetest.JSON)
	gate := make(chan struct{})
	p.upstream.held.Store(&gate)
	return d, p, func() { p.upstream.held.Store(nil); close(gate) }
}

// TestWhatCameAndWentIsNotTold has memory hear late of an object that somebody
// made and deleted before a client was told that it has everything.
func TestWhatCameAndWentIsNotTold(t *testing.T) {
	const path = "/api/v1/namespaces/fleeting/configmaps"
	d, p, release := deaf(t, "fleeting", path)
	d.Write(http.MethodPost, path, object{"metadata": object{"name": "fleeting"}})
	d.Write(http.MethodDelete, path+"/fleeting", nil)
	w := p.Watch(path+newestWatch, cachetest.JSON)
	if added, end := w.Event(), w.Event(); added.Object.Metadata.Name != "c" || !end.EndsInitial() {
		t.Errorf("got %+v and %+v, want an object and a bookmark", added, end)
	}
	release()
	d.Patch(path+"/c", `{"data":{"n":"1"}}`)
	if e := w.Event(); e.Type != "MODIFIED" || e.Object.Metadata.Name != "c" {
		t.Errorf("got %+v, want the change of the other object", e)
	}
}

// TestListingsThatDifferAreNotBelieved has memory hear late of an object that
// stays.
func TestListingsThatDifferAreNotBelieved(t *testing.T) {
	const path = "/api/v1/namespaces/late/configmaps"
	d, p, release := deaf(t, "late", path)
	d.Write(http.MethodPost, path, object{"metadata": object{"name": "d"}})
	w := p.Watch(path+newestWatch, cachetest.JSON)
	if e := w.Event(); e.Object.Metadata.Name != "c" {
		t.Errorf("got %+v, want the first object", e)
	}
	until(t, func() bool { return figuresOf(t, p, "configmaps").Upstream[telemetry.ForCatchUp] > 0 })
	release()
	if added, end := w.Event(), w.Event(); added.Object.Metadata.Name != "d" || !end.EndsInitial() {
		t.Errorf("got %+v and %+v, want the second object and a bookmark", added, end)
	}
}

// TestListingsOfEarlierRevisionsEndTheStream has upstream come back from a backup.
func TestListingsOfEarlierRevisionsEndTheStream(t *testing.T) {
	d := direct(t)
	d.AddNamespace("rewound")
	const path = "/api/v1/namespaces/rewound/configmaps"
	d.Write(http.MethodPost, path, object{"metadata": object{"name": "c"}})
	p := newProxy(t, nothingRefused)
	p.warm(path, cachetest.JSON)
	p.upstream.rewound.Store(true)
	w := p.Watch(path+newestWatch, cachetest.JSON)
	until(t, func() bool { return p.cache.Figures().Ended[telemetry.EndedRestored] > 0 })
	p.upstream.rewound.Store(false)
	w.Close()
}
