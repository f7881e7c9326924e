package lens_test

import (
	"encoding/base64"
	"net/http"
	"net/url"
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

func TestPagesNameNothingThatDoesNotExist(t *testing.T) {
	both(t, func(t *testing.T, h *house, from string) {
		path := fill(t, "pages-"+from)
		h.warm(t, from, path)
		rv := direct(t).Get(path, cachetest.JSON).List(t).Metadata.ResourceVersion
		for _, query := range []string{"?limit=1", "?limit=2", "?limit=2&labelSelector=app", "?limit=1&resourceVersion=" + rv, "?limit=1&resourceVersionMatch=Exact&resourceVersion=" + rv} {
			for _, accept := range []string{cachetest.JSON, partialList} {
				var got []string
				token := ""
				for pages := 0; pages == 0 || token != ""; pages++ {
					next := path + query
					if token != "" {
						next = path + "?limit=1&continue=" + url.QueryEscape(token)
					}
					page := h.Get(next, accept)
					list := page.List(t)
					got = append(got, page.Names(t)...)
					token = list.Metadata.Continue
					if start, _ := base64.RawURLEncoding.DecodeString(token); strings.Contains(string(start), hiddenMark) {
						t.Errorf("%s: the token says %s", query, start)
					}
					if list.Metadata.Remaining != nil {
						t.Errorf("%s: %d are said to be left", query, *list.Metadata.Remaining)
					}
				}
				want := []string{"pages-" + from + "/a-open", "pages-" + from + "/c-masked", "pages-" + from + "/e-open"}
				if strings.Contains(query, "app") {
					want = want[2:]
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("%s as %s: %s", query, accept, diff)
				}
			}
		}
	})
}

func TestAnswersOfWritesTellWhatExists(t *testing.T) {
	both(t, func(t *testing.T, h *house, from string) {
		path := fill(t, "writes-"+from)
		created := h.Write(http.MethodPost, path, object{"metadata": object{"name": "w"}, "data": object{"k": maskedMark}})
		if created["data"].(object)["k"] != "xxxxxx" {
			t.Errorf("created: %v", created)
		}
		hidden := h.Patch(path+"/w", `{"metadata":{"labels":{"hidden":"1"},"annotations":{"a":"`+hiddenMark+`"}}}`)
		metadata := hidden["metadata"].(object)
		want := object{"kind": "ConfigMap", "apiVersion": "v1", "metadata": object{
			"name": "w", "namespace": "writes-" + from, "uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"],
		}}
		if diff := cmp.Diff(want, hidden); diff != "" || metadata["resourceVersion"] == "" {
			t.Error(diff)
		}
		if got := h.Write(http.MethodDelete, path+"/a-open", nil); got["kind"] != "Status" {
			t.Errorf("deleted: %v", got)
		}
		got := h.Write(http.MethodDelete, path, nil)
		if items, _ := got["items"].([]any); len(items) != 2 {
			t.Errorf("deleted: %v", got)
		}
		review := h.Write(http.MethodPost, "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", object{
			"kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1", "spec": object{"nonResourceAttributes": object{"path": "/", "verb": "get"}},
		})
		if review["status"] == nil {
			t.Errorf("reviewed: %v", review)
		}
	})
}

func TestTablesTellOfChangedObjectsWhatMetadataTells(t *testing.T) {
	both(t, func(t *testing.T, h *house, from string) {
		path := fill(t, "tables-"+from)
		for _, include := range []string{"", "None", "Metadata", "Object"} {
			query := ""
			if include != "" {
				query = "?includeObject=" + include
			}
			var got, want object
			for range 100 { // what is written elsewhere meanwhile makes lists newer
				got, want = decoded(t, h.Get(path+query, table).Body), decoded(t, direct(t).Get(path+query, table).Body)
				if cmp.Equal(got["metadata"], want["metadata"]) {
					break
				}
			}
			rows := want["rows"].([]any)
			want["rows"] = []any{rows[0], rows[2], rows[4]}
			masked := rows[2].(object)
			masked["cells"].([]any)[1] = "<masked>"
			if o, ok := masked["object"].(object); ok && o["data"] != nil {
				o["data"].(object)["k"] = "xxxxxx"
			}
			for _, table := range []object{got, want} {
				for _, row := range table["rows"].([]any) {
					cells := row.(object)["cells"].([]any)
					cells[2] = nil // its age
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s: %s", query, diff)
			}
		}
	})
}

// TestObjectsAreLookedAtOnceForAllWatchers counts.
func TestObjectsAreLookedAtOnceForAllWatchers(t *testing.T) {
	g := newGlass("crowd", "hidden")
	h := newHouse(t, true, g)
	path := fill(t, "crowd")
	h.warm(t, "cache", path)
	start := direct(t).Get(path, cachetest.JSON).List(t).Metadata.ResourceVersion
	h.view.Store(g)
	var watches []*cachetest.Watch
	for range 100 {
		watches = append(watches, h.Watch(path+"?watch=true&resourceVersion="+start, cachetest.JSON))
	}
	before := g.looked.Load()
	for range 3 {
		direct(t).Patch(path+"/a-open", `{"data":{"n":"`+start+`"}}`)
		start += "0"
		for _, w := range watches {
			if e := w.Event(); e.Type != "MODIFIED" || w.ServedBy() != "cache" {
				t.Fatalf("got %+v by %s", e, w.ServedBy())
			}
		}
	}
	// Warming has looked at what there was.
	if n := g.looked.Load() - before; n != 3 {
		t.Errorf("3 events were looked at %d times", n)
	}
}
