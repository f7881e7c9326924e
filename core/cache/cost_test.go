package cache_test

import (
	"bytes"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"testing"

	"github.com/portico-proxy/portico/core/cache/cachetest"
)

func TestAnswersEqualUpstreams(t *testing.T) {
	p := newProxy(t, nothingRefused)
	cachetest.Run(t, cachetest.Subjects{Upstream: plane.Config(), Answerer: p.config, Memory: true})
}

func TestQuietCollectionsAreProvenCurrent(t *testing.T) {
	d := direct(t)
	d.AddNamespace("quiet")
	p := newProxy(t, nothingRefused)
	const path = "/api/v1/namespaces/quiet/configmaps"
	for i := range 60 {
		d.Write(http.MethodPost, path, object{"metadata": object{"name": fmt.Sprintf("c-%02d", i)}, "data": object{"k": strings.Repeat("x", 8<<10)}})
	}
	p.warm(path, cachetest.JSON)
	// Something else moves the revision on.
	d.AddNamespace("quiet-b")
	before := p.passed.Load()
	got := p.Get(path, cachetest.JSON)
	if got.ServedBy() != "cache" || len(got.Names(t)) != 60 || p.passed.Load() != before {
		t.Errorf("served by %q, %d items", got.ServedBy(), len(got.Names(t)))
	}
	rv := got.List(t).Metadata.ResourceVersion
	want := d.Get(path+"?resourceVersionMatch=Exact&resourceVersion="+rv, cachetest.JSON)
	if !bytes.Equal(want.Body, got.Body) {
		t.Errorf("differs from upstream at %s", rv)
	}
}

func TestStormsCostUpstreamLittle(t *testing.T) {
	d := direct(t)
	d.AddNamespace("storm")
	p := newProxy(t, nothingRefused)
	const path = "/api/v1/namespaces/storm/configmaps"
	d.Write(http.MethodPost, path, object{"metadata": object{"name": "c"}, "data": object{"k": strings.Repeat("x", 300<<10)}})
	p.warm(path, cachetest.JSON)
	before := p.upstream.requests.Load()
	const clients = 200
	done := make(chan string, clients)
	gate := make(chan struct{})
	p.upstream.gate.Store(&gate)
	for range clients {
		go func() { done <- p.Get(path, cachetest.JSON).ServedBy() }()
	}
	for p.cache.Streams()[0].Asking < clients {
		runtime.Gosched()
	}
	close(gate)
	for range clients {
		if from := <-done; from != "cache" {
			t.Errorf("served by %q", from)
		}
	}
	if n := p.upstream.requests.Load() - before; n > 3 {
		t.Errorf("%d clients cost upstream %d requests", clients, n)
	}
}
