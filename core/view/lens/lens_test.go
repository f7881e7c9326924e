package lens_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/portico-proxy/portico/core/cache/cachetest"
)

// fill makes a namespace with objects that exist, are masked, and do not exist.
func fill(t *testing.T, namespace string) (path string) {
	t.Helper()
	d := direct(t)
	d.AddNamespace(namespace)
	path = "/api/v1/namespaces/" + namespace + "/configmaps"
	for _, o := range []object{
		{"metadata": object{"name": "a-open"}, "data": object{"k": "v"}},
		{"metadata": object{"name": "b-" + hiddenMark, "labels": object{"hidden": "1"}}, "data": object{"k": hiddenMark}},
		{"metadata": object{"name": "c-masked"}, "data": object{"k": maskedMark}},
		{"metadata": object{"name": "d-" + hiddenMark, "labels": object{"hidden": "1"}}},
		{"metadata": object{"name": "e-open", "labels": object{"app": "web"}}},
	} {
		d.Write(http.MethodPost, path, o)
	}
	return path
}

const (
	partialList  = cachetest.JSON + ";as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
	partialOne   = cachetest.JSON + ";as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
	table        = cachetest.JSON + ";as=Table;g=meta.k8s.io;v=v1"
	likeClientGo = cachetest.Protobuf + "," + cachetest.JSON
)

func TestListsTellWhatExists(t *testing.T) {
	both(t, func(t *testing.T, h *house, from string) {
		path := fill(t, "lists-"+from)
		h.warm(t, from, path)
		for _, query := range []string{"", "?resourceVersion=0", "?labelSelector=app%3Dweb", "?fieldSelector=metadata.name%3Dc-masked", "?labelSelector=hidden"} {
			for _, accept := range []string{cachetest.JSON, partialList, likeClientGo, cachetest.Protobuf + ";as=PartialObjectMetadataList;g=meta.k8s.io;v=v1," + partialList} {
				ask := accept
				if accept == likeClientGo {
					ask = cachetest.JSON
				} else if accept != cachetest.JSON {
					ask = partialList
				}
				got := h.Get(path+query, accept)
				want := seen(t, direct(t).Get(path+query, ask).Body, "hidden")
				have := decoded(t, got.Body)
				if items, ok := have["items"]; ok && items == nil {
					have["items"] = []any{}
				}
				delete(want["metadata"].(object), "resourceVersion")
				delete(have["metadata"].(object), "resourceVersion")
				if diff := cmp.Diff(want, have); diff != "" {
					t.Errorf("%s as %s by %s: %s", query, accept, got.ServedBy(), diff)
				}
			}
		}
	})
}

// absentName is as long as a hidden one.
const absentName = "b-mark-of-the-absent"

func TestWhatDoesNotExistIsNotFound(t *testing.T) {
	both(t, func(t *testing.T, h *house, from string) {
		path := fill(t, "gets-"+from)
		h.warm(t, from, path)
		for _, query := range []string{"", "?resourceVersion=0"} {
			for _, accept := range []string{cachetest.JSON, likeClientGo, partialOne, table} {
				hidden, absent := h.Get(path+"/b-"+hiddenMark+query, accept), h.Get(path+"/"+absentName+query, accept)
				h.wire.sent.Reset() // whoever asks for a name may be told it
				for _, one := range []*cachetest.Answer{&hidden, &absent} {
					one.Header.Del("Audit-Id")
					one.Header.Del("Date")
				}
				if want := strings.ReplaceAll(string(absent.Body), absentName, "b-"+hiddenMark); string(hidden.Body) != want || hidden.Status != 404 {
					t.Errorf("%d as %s:\ngot  %s\nwant %s", hidden.Status, accept, hidden.Body, want)
				}
				if diff := cmp.Diff(absent.Header, hidden.Header); diff != "" {
					t.Errorf("as %s%s: %s", accept, query, diff)
				}
			}
			got := h.Get(path+"/c-masked"+query, cachetest.JSON)
			if o := decoded(t, got.Body); got.Status != 200 || o["data"].(object)["k"] != "xxxxxx" || o["kind"] != "ConfigMap" {
				t.Errorf("%d %s", got.Status, got.Body)
			}
		}
	})
}
