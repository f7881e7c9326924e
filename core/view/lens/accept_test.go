package lens_test

import (
	"bytes"
	"net/http"
	"testing"

	"github.com/portico-proxy/portico/core/cache/cachetest"
)

// sly are wordings of which one clause says what the caller is not answered in.
var sly = []string{
	cachetest.JSON + ";sv=x, " + table,
	cachetest.JSON + ";as=Foo;g=x;v=y, " + table,
	cachetest.JSON + ";as=Foo;g=meta.k8s.io;v=v1, " + table,
	cachetest.JSON + ";as=Table;g=meta.k8s.io;v=v2, " + table,
	cachetest.JSON + ";stream=x, " + table,
	cachetest.JSON + ";stream=watch;sv=v2, " + table,
	cachetest.JSON + ";sv=x, " + partialOne,
	cachetest.JSON + ";sv=x;q=1, */*;as=Table;g=meta.k8s.io;v=v1;q=0.5",
	cachetest.JSON + ";sv=v1;q=0.1, application/*;as=Table;g=meta.k8s.io;v=v1beta1",
	"*/*, " + table,
	"*/*;sv=x, " + table,
	"Application/JSON, " + table,
	cachetest.JSON + ";as=PartialObjectMetadata;g=meta.k8s.io;v=v1;as=Foo, " + table,
	cachetest.JSON + `;sv="v1", ` + table,
	cachetest.Protobuf + ";as=Table;g=meta.k8s.io;v=v1, " + cachetest.JSON + ";sv=x, " + table,
	"application/cbor, " + cachetest.JSON + ";sv=x, " + table,
	"application/yaml;as=Table;g=meta.k8s.io;v=v1, " + cachetest.JSON + ";sv=x, " + table,
	table + ", " + cachetest.JSON,
	cachetest.JSON + ";sv=x",
	"application/cbor",
	"application/yaml",
}

// TestAnswersComeInTheFormThatWasAgreedOn asks in ways that the API server and the
// proxy could understand differently. The tap tells what leaks.
func TestAnswersComeInTheFormThatWasAgreedOn(t *testing.T) {
	both(t, func(t *testing.T, h *house, from string) {
		path := fill(t, "sly-"+from)
		h.warm(t, from, path)
		masked := path + "/c-masked"
		for _, accept := range sly {
			for _, query := range []string{masked + "?includeObject=Object", path + "?includeObject=Object", path + "?includeObject=Object&resourceVersion=0"} {
				got, want := h.Get(query, accept), direct(t).Get(query, accept)
				if got.Status >= 500 || got.Status == http.StatusOK && want.Status == http.StatusOK &&
					want.Header.Get("Content-Type") == cachetest.JSON && decoded(t, got.Body)["kind"] != decoded(t, want.Body)["kind"] {
					t.Errorf("%s as %s: %d %.300s\nwant %d %.300s", query, accept, got.Status, got.Body, want.Status, want.Body)
				}
			}
			res := h.Open(t.Context(), http.MethodPut, masked, http.Header{"Accept": {accept}, "Content-Type": {cachetest.JSON}},
				marshal(t, object{"metadata": object{"name": "c-masked"}, "data": object{"k": maskedMark, "of": accept}}))
			_ = res.Body.Close()
			if res.StatusCode >= 500 {
				t.Errorf("PUT as %s: %d", accept, res.StatusCode)
			}
			watched(t, h, path, accept)
		}
		h.Open(t.Context(), http.MethodGet, masked+"?includeObject=Object", http.Header{"Accept": {"", table}}, nil).Body.Close()
		h.Open(t.Context(), http.MethodGet, masked+"?includeObject=Object", http.Header{"Accept": {cachetest.JSON, table}}, nil).Body.Close()
	})
}

// watched reads the state that a watch begins with, and a change.
func watched(t *testing.T, h *house, path, accept string) {
	t.Helper()
	w := h.Watch(path+"?watch=true&includeObject=Object&timeoutSeconds=30", accept)
	defer w.Close()
	if w.Response.StatusCode != http.StatusOK {
		return
	}
	for range 3 {
		if frame := w.Frame(); bytes.Contains(frame, []byte(`"ERROR"`)) || frame == nil {
			t.Errorf("watched as %s: %s", accept, frame)
			return
		}
	}
	direct(t).Patch(path+"/c-masked", `{"data":{"n":`+string(marshal(t, accept))+`}}`)
	w.Frame()
}
