package cache_test

import (
	"testing"

	"github.com/anishathalye/porcupine"

	"github.com/portico-proxy/portico/core/cache"
)

// TestReadsWithoutBookmarksAreLinearizable has every bookmark lost that could prove
// a collection current: what cannot be proven goes upstream.
func TestReadsWithoutBookmarksAreLinearizable(t *testing.T) {
	p := newProxy(t, func(o *cache.Options) {
		nothingRefused(o)
		o.Upstream.(*counter).slow.Store(true)
		o.Upstream.(*counter).starved.Store(true)
	})
	h := newHistory(t, p, true)
	h.run(load{clients: 6, each: 25}, p.open, []opener{p.open, direct})
	for _, u := range h.untrue() {
		t.Error(u)
	}
	if got := h.verdict(); got != porcupine.Ok {
		t.Errorf("%d operations: %s", len(h.ops), got)
	}
}
