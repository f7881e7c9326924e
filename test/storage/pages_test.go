package storage

import (
	"net/http"
	"net/url"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/apis/example"
)

// TestExpiredPages begins a list at one door and goes on at another after etcd
// has forgotten its resourceVersion: there is a token for the rest as it is now,
// and it holds at both.
func TestExpiredPages(t *testing.T) {
	s := way{mediaType: asJSON, proxies: 1}.open(t, true, 0)
	h := &history{store: s, t: t}
	h.knock()
	for _, name := range []string{"x", "y", "z"} {
		h.create("a", name, "", "")
	}
	h.remember()
	first := h.same("/api/v1/pods?limit=1")

	h.update("a", "z", func(p *example.Pod) { p.Labels = map[string]string{"new": "true"} })
	h.create("a", "zz", "", "")
	h.remember()
	s.compactAndRestart(t.Context(), t, h.versions[1])

	page := "/api/v1/pods?limit=1&continue=" + url.QueryEscape(first.next())
	expired := h.same(page)
	if expired.code != http.StatusGone || expired.next() == "" {
		t.Fatalf("%d %s, want %d and a token", expired.code, expired.body, http.StatusGone)
	}
	var names []string
	for token := expired.next(); token != ""; {
		a := h.same("/api/v1/pods?limit=1&continue=" + url.QueryEscape(token))
		names = append(names, a.names(t)...)
		token = a.next()
	}
	if d := cmp.Diff([]string{"y", "z", "zz"}, names); d != "" {
		t.Error(d)
	}
}

// same asks both doors and reports how their answers differ.
func (h *history) same(path string) answer {
	h.t.Helper()
	want, got := h.doors[0].get(path, asJSON), h.doors[1].get(path, asJSON)
	if !want.equal(got) {
		h.t.Errorf("%s: %s", path, cmp.Diff(want.body, got.body))
	}
	return want
}

// names are those of a list in JSON.
func (a answer) names(t *testing.T) (names []string) {
	t.Helper()
	var list metav1.PartialObjectMetadataList
	decode(t, a.body, &list)
	for _, o := range list.Items {
		names = append(names, o.Name)
	}
	return names
}
