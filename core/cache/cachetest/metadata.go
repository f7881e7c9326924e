package cachetest

import (
	"bytes"
	"fmt"
	"net/http"
	"testing"
)

// partial asks for metadata alone.
func partial(accept, kind string) string {
	return accept + ";as=" + kind + ";g=meta.k8s.io;v=v1"
}

// together reads the same from both while the API server says the same before and
// after: whoever else writes moves the newest resourceVersion on.
func together(d *Door, p *answerer, query, accept string) (want, got Answer) {
	want = d.Get(query, accept)
	for range 50 {
		got = p.Get(query, accept)
		again := d.Get(query, accept)
		if bytes.Equal(want.Body, again.Body) {
			break
		}
		want = again
	}
	return want, got
}

func metadataEqual(t *testing.T, d *Door, p *answerer) {
	d.AddNamespace("metadata")
	for i := range 3 {
		d.Write(http.MethodPost, "/api/v1/namespaces/metadata/pods", Pod(fmt.Sprintf("web-%d", i), Object{"app": "web"}))
	}
	const path = "/api/v1/namespaces/metadata/pods"
	for name, accept := range formats {
		t.Run(name, func(t *testing.T) {
			p.warm(t, "/api/v1/pods", accept)
			rv := d.Get(path, JSON).List(t).Metadata.ResourceVersion
			for query, as := range map[string]string{
				path + "?resourceVersionMatch=Exact&resourceVersion=" + rv: "PartialObjectMetadataList",
				path + "/web-1?resourceVersion=" + rv:                      "PartialObjectMetadata",
				path:                                                       "PartialObjectMetadataList",
				path + "?labelSelector=none&resourceVersion=" + rv:         "PartialObjectMetadataList",
				path + "?resourceVersion=0&limit=1":                        "PartialObjectMetadata", // refused
				path + "?resourceVersion=" + rv:                            "Table",
			} {
				want, got := together(d, p, query, partial(accept, as))
				compare(t, query, want, got)
			}
			query := path + "?watch=true&resourceVersion=0"
			sameFrames(t, d, p, query, partial(accept, "PartialObjectMetadata"), 3)
		})
	}
}

// customMetadataEqual has what metadata can have: API servers write it in
// another order in custom resources than in PartialObjectMetadata.
func customMetadataEqual(t *testing.T, d *Door, p *answerer) {
	const ns, group = "custom-metadata", "metadata.example.org"
	d.AddNamespace(ns)
	defineCars(t, d, group)
	s := subjects(ns, group)["cars"]
	p.warm(t, s.all, JSON)
	start := d.Get(s.all, JSON).List(t).Metadata.ResourceVersion
	owner := Object{"apiVersion": "v1", "kind": "Pod", "name": "o", "uid": "u", "controller": true, "blockOwnerDeletion": false}
	for i := range 3 {
		o := s.make(fmt.Sprintf("car-%d", i))
		o["metadata"] = Object{
			"name": fmt.Sprintf("car-%d", i), "generateName": "car-", "finalizers": []any{"example.org/f"}, "ownerReferences": []any{owner},
			"labels": Object{"b": "2", "a": "1"}, "annotations": Object{"z": "<&>\u2028", "a": "\"é\\"},
		}
		d.Write(http.MethodPost, s.path, o)
	}
	d.Patch(s.path+"/car-1", `{"status":{"x":1},"spec":{"color":"green"}}`)
	d.Write(http.MethodDelete, s.path+"/car-2", nil) // the finalizer keeps it
	d.Patch(s.path+"/car-2", `{"metadata":{"finalizers":null}}`)
	rv := ResourceVersion(d.Patch(s.path+"/car-0", `{"metadata":{"labels":{"a":null}}}`))
	for name, accept := range formats {
		t.Run(name, func(t *testing.T) {
			one, all := partial(accept, "PartialObjectMetadata"), partial(accept, "PartialObjectMetadataList")
			for query, as := range map[string]string{
				s.path: all,
				s.all + "?resourceVersionMatch=Exact&resourceVersion=" + rv:          all,
				s.path + "?resourceVersionMatch=Exact&limit=1&resourceVersion=" + rv: all,
				s.path + "?fieldSelector=spec.color%3Dgreen&resourceVersion=" + rv:   all,
				s.path + "?labelSelector=none&resourceVersion=" + rv:                 all,
				s.path + "/car-0?resourceVersion=" + rv:                              one,
				s.path + "/car-1?resourceVersion=" + rv:                              accept + ";q=0.1," + one,
				s.path + "/car-1?resourceVersion=0":                                  Protobuf + "," + one,
				s.path + "?resourceVersion=0":                                        accept + "," + JSON,
			} {
				want, got := together(d, p, query, as)
				compare(t, query+" as "+as, want, got)
				if query != s.path {
					p.checkServedBy(t, query, got.ServedBy())
				}
			}
			for query, n := range map[string]int{
				"resourceVersion=" + start:                      7,
				"resourceVersion=" + start + "&labelSelector=a": 7,
				"resourceVersion=0":                             2,
				"resourceVersion=0&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true": 3,
			} {
				sameFrames(t, d, p, s.path+"?watch=true&"+query, one, n)
			}
		})
	}
}

// sameFrames compares a watch's first n frames.
func sameFrames(t *testing.T, d *Door, p *answerer, query, accept string, n int) {
	t.Helper()
	a, b := d.Watch(query, accept), p.Watch(query, accept)
	defer a.Close()
	defer b.Close()
	p.checkServedBy(t, query, b.ServedBy())
	if want, got := a.Response.Header.Get("Content-Type"), b.Response.Header.Get("Content-Type"); want != got {
		t.Errorf("%s: %s, want %s", query, got, want)
	}
	for i := range n {
		if want, got := a.Frame(), b.Frame(); !bytes.Equal(want, got) && !bytes.Equal(anyNumber(want), anyNumber(got)) {
			t.Errorf("%s: event %d\ngot  %q\nwant %q", query, i, got, want)
		}
	}
}
