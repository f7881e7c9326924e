package cache_test

import (
	"bytes"
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/portico-proxy/portico/core/cache/cachetest"
)

// TestWarningsAreSentOn reads a resource that is deprecated.
func TestWarningsAreSentOn(t *testing.T) {
	d := direct(t)
	d.AddNamespace("warned")
	p := newProxy(t, nothingRefused)
	const path = "/api/v1/namespaces/warned/endpoints"
	d.Write(http.MethodPost, path, object{"metadata": object{"name": "e"}})
	p.warm(path, cachetest.JSON)
	for _, query := range []string{path + "?resourceVersion=0", path, path + "/e?resourceVersion=0", path + "?watch=true&resourceVersion=0&timeoutSeconds=1"} {
		want, got := d.Get(query, cachetest.JSON), p.Get(query, cachetest.JSON)
		if len(want.Header["Warning"]) != 1 || got.ServedBy() == "upstream" {
			t.Fatalf("%s: upstream warns %q; served by %s", query, want.Header["Warning"], got.ServedBy())
		}
		if diff := cmp.Diff(want.Header["Warning"], got.Header["Warning"]); diff != "" {
			t.Errorf("%s (-direct +proxied):\n%s", query, diff)
		}
	}
}

// TestOddAcceptsAreTheAPIServersToJudge asks for what it refuses, or may offer.
func TestOddAcceptsAreTheAPIServersToJudge(t *testing.T) {
	p := newProxy(t, nothingRefused)
	d := direct(t)
	const path = "/api/v1/namespaces?resourceVersion=0"
	p.warm("/api/v1/namespaces", cachetest.JSON)
	for accept, by := range map[string]string{
		"application/*": "", "text/html, application/*": "", "application/cbor, application/json": "", "application/cbor": "", "Application/JSON": "",
		"*/*": "cache", "application/json;q=0.5, text/html": "cache", "application/*, application/json": "cache", "": "cache",
	} {
		want, got := d.Get(path, accept), p.Get(path, accept)
		if got.ServedBy() != by || got.Status != want.Status {
			t.Errorf("%q: %d, served by %q; directly %d", accept, got.Status, got.ServedBy(), want.Status)
		}
		if want.Status != http.StatusOK && !bytes.Equal(want.Body, got.Body) {
			t.Errorf("%q: got %s\nwant %s", accept, got.Body, want.Body)
		}
	}
}
