package cache_test

import (
	"net/http"
	"testing"

	"github.com/portico-proxy/portico/core/cache"
	"github.com/portico-proxy/portico/core/cache/cachetest"
)

// TestAnswersForManyTakeBoundedMemory reads a quiet collection at its newest, which is
// fetched for all who ask, where there is room for that and where others have it all.
func TestAnswersForManyTakeBoundedMemory(t *testing.T) {
	d := direct(t)
	d.AddNamespace("recorded")
	d.AddNamespace("recorded-b")
	const path, other = "/api/v1/namespaces/recorded/configmaps", "/api/v1/namespaces/recorded-b/configmaps"
	d.Write(http.MethodPost, path, object{"metadata": object{"name": "c"}})
	p := newProxy(t, nothingRefused)
	p.upstream.starved.Store(true) // a bookmark would prove it
	p.warm(path, cachetest.JSON)
	for _, tt := range []struct {
		taken int64
		by    string
	}{{0, "coalesced"}, {cache.MaxRecordings, ""}, {0, "coalesced"}} {
		p.cache.Recordings(tt.taken)
		d.Write(http.MethodPost, other, object{"metadata": object{"generateName": "c-"}}) // moves the revision on
		if got := p.Get(path, cachetest.JSON); got.ServedBy() != tt.by || len(got.List(t).Items) != 1 {
			t.Errorf("with %d bytes taken: by %q, want %q: %s", tt.taken, got.ServedBy(), tt.by, got.Body)
		}
		until(t, func() bool { return p.cache.Recordings(0) == tt.taken })
		p.cache.Recordings(-tt.taken)
	}
}
