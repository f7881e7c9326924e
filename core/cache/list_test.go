package cache_test

import (
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var formats = map[string]string{"json": jsonType, "protobuf": protoType}

// listRV finds a list's own resourceVersion in either format, for states of
// different ages may well be equal but for it.
var listRV = regexp.MustCompile(`^((?s:.{0,60}?)"metadata":\{"resourceVersion":"|.*current: )\d+`)

func anyRV(b []byte) string { return listRV.ReplaceAllString(string(b), "${1}RV") }

func TestListsEqualUpstreams(t *testing.T) {
	d := direct(t)
	namespace(t, d, "lists")
	namespace(t, d, "lists-b")
	var rv string
	for i := range 6 {
		ns := "lists"
		if i%3 == 2 {
			ns = "lists-b"
		}
		o := d.write(http.MethodPost, "/api/v1/namespaces/"+ns+"/pods", pod(fmt.Sprintf("web-%d", i), object{"app": "web", "odd": fmt.Sprint(i%2 == 1)}))
		rv = rvOf(o)
	}
	p := newProxy(t, nil)
	exact := "resourceVersion=" + rv + "&resourceVersionMatch=Exact"
	for name, accept := range formats {
		t.Run(name, func(t *testing.T) {
			p.warm("/api/v1/pods", accept)
			for _, query := range []string{
				exact,
				exact + "&limit=2",
				exact + "&limit=6",
				exact + "&limit=1&labelSelector=odd%3Dtrue",
				exact + "&labelSelector=" + url.QueryEscape("app in (web),odd!=true"),
				exact + "&labelSelector=none",
				exact + "&fieldSelector=metadata.name%3Dweb-1",
				exact + "&fieldSelector=metadata.name%3Dweb-1&limit=1",
				exact + "&fieldSelector=metadata.namespace%3Dlists",
				exact + "&fieldSelector=spec.nodeName%3D",
				exact + "&fieldSelector=spec.nodeName%3Dn1",
				exact + "&fieldSelector=spec.host%3D",
				exact + "&fieldSelector=" + url.QueryEscape("status.phase=Pending,spec.restartPolicy!=Never"),
				"resourceVersion=" + rv + "&limit=2", // the legacy way to say Exact
				"resourceVersion=0&fieldSelector=spec.nodeName%3Dn1",
				"resourceVersion=0",
				"resourceVersion=0&limit=1",
				"resourceVersion=" + rv,
				"resourceVersion=" + rv + "&resourceVersionMatch=NotOlderThan&limit=5000",
				"",
				"labelSelector=odd%3Dtrue",
				// What is not valid is upstream's to refuse.
				"resourceVersionMatch=Exact",
				"resourceVersion=0&resourceVersionMatch=Exact",
				"resourceVersion=x",
				"sendInitialEvents=true",
				"labelSelector=a%3D%3D%3D",
				"fieldSelector=spec.none%3D1",
				"limit=-1",
				"continue=x",
			} {
				for _, path := range []string{"/api/v1/pods", "/api/v1/namespaces/lists/pods", "/api/v1/namespaces/none/pods"} {
					want, got := d.get(path+"?"+query, accept), p.get(path+"?"+query, accept)
					compare(t, path+"?"+query, want, got)
				}
			}
		})
	}
}

// compare reports how got differs from want but for a list's own resourceVersion
// and the token made of it.
func compare(t *testing.T, what string, want, got answer) {
	t.Helper()
	if want.status != got.status || want.header.Get("Content-Type") != got.header.Get("Content-Type") {
		t.Errorf("%s: %d %s, want %d %s\n%.300q", what, got.status, got.header.Get("Content-Type"), want.status, want.header.Get("Content-Type"), got.body)
		return
	}
	a, b := anyRV(want.body), anyRV(got.body)
	if a == b {
		return
	}
	if want.header.Get("Content-Type") == protoType && want.status == http.StatusOK && protoItems(want.body) == protoItems(got.body) {
		return
	}
	t.Errorf("%s (%s):\n%s", what, got.servedBy(), cmp.Diff(a, b))
}

// protoItems is a protobuf list from its first item on.
func protoItems(b []byte) string {
	// Envelope, TypeMeta and ListMeta are short; items have two-byte lengths.
	for i := 0; i+3 < len(b) && i < 120; i++ {
		if b[i] == 0x12 && b[i+3] == 0x0a && i > 20 {
			return string(b[i:])
		}
	}
	return ""
}

func TestPagesContinueAnywhere(t *testing.T) {
	d := direct(t)
	namespace(t, d, "pages")
	for i := range 7 {
		d.write(http.MethodPost, "/api/v1/namespaces/pages/configmaps", object{"metadata": object{"name": fmt.Sprintf("c-%d", i)}})
	}
	p := newProxy(t, nothingRefused)
	for _, path := range []string{"/api/v1/configmaps", "/api/v1/namespaces/pages/configmaps"} {
		p.warm(path, jsonType)
		all := itemNames(t, d.get(path, jsonType))
		for name, doors := range map[string][]*door{"memory": {&p.door}, "upstream-first": {d, &p.door}, "memory-first": {&p.door, d}} {
			t.Run(name, func(t *testing.T) {
				var names []string
				token := ""
				for i := 0; ; i++ {
					a := doors[i%len(doors)].get(path+"?limit=2&continue="+url.QueryEscape(token), jsonType)
					names = append(names, itemNames(t, a)...)
					if token = listOf(t, a).Metadata.Continue; token == "" {
						break
					}
				}
				if d := cmp.Diff(all, names); d != "" {
					t.Error(d)
				}
			})
		}
	}
	// A page of memory's own says how many are left, as upstream does.
	want, got := d.get("/api/v1/namespaces/pages/configmaps?limit=3", jsonType), p.get("/api/v1/namespaces/pages/configmaps?limit=3", jsonType)
	if w, g := listOf(t, want).Metadata.Remaining, listOf(t, got).Metadata.Remaining; w == nil || g == nil || *w != *g {
		t.Errorf("remaining %v, want %v", g, w)
	}
}

func TestOldPagesShowTheOldState(t *testing.T) {
	d := direct(t)
	namespace(t, d, "snapshots")
	p := newProxy(t, nothingRefused)
	path := "/api/v1/namespaces/snapshots/configmaps"
	for i := range 4 {
		d.write(http.MethodPost, path, object{"metadata": object{"name": fmt.Sprintf("c-%d", i)}})
	}
	p.warm(path, jsonType)
	first := listOf(t, p.get(path+"?limit=1", jsonType))
	d.write(http.MethodDelete, path+"/c-1", nil)
	changed := d.patch(path+"/c-2", `{"data":{"a":"b"}}`)
	p.get(path+"?resourceVersion="+rvOf(changed), jsonType)
	query := path + "?limit=500&continue=" + url.QueryEscape(first.Metadata.Continue)
	want, got := d.get(query, jsonType), p.get(query, jsonType)
	if string(want.body) != string(got.body) || got.servedBy() != "cache" {
		t.Errorf("served by %q:\n%s", got.servedBy(), cmp.Diff(string(want.body), string(got.body)))
	}
}

func TestGetsEqualUpstreams(t *testing.T) {
	d := direct(t)
	namespace(t, d, "gets")
	o := d.write(http.MethodPost, "/api/v1/namespaces/gets/pods", pod("web", nil))
	p := newProxy(t, nil)
	for name, accept := range formats {
		t.Run(name, func(t *testing.T) {
			p.warm("/api/v1/pods", accept)
			for query, from := range map[string]string{"?resourceVersion=0": "cache", "?resourceVersion=" + rvOf(o): "cache", "": ""} {
				want, got := d.get("/api/v1/namespaces/gets/pods/web"+query, accept), p.get("/api/v1/namespaces/gets/pods/web"+query, accept)
				compare(t, query, want, got)
				if got.servedBy() != from {
					t.Errorf("%q served by %q", query, got.servedBy())
				}
			}
			for _, path := range []string{"/api/v1/namespaces/gets/pods/none?resourceVersion=0", "/api/v1/pods/web?resourceVersion=0", "/api/v1/namespaces/gets/nodes/web?resourceVersion=0"} {
				compare(t, path, d.get(path, accept), p.get(path, accept))
			}
		})
	}
}

func TestNewestListsHaveEveryWrite(t *testing.T) {
	d := direct(t)
	namespace(t, d, "newest")
	p := newProxy(t, nothingRefused)
	path := "/api/v1/namespaces/newest/configmaps"
	p.warm(path, jsonType)
	for i := range 20 {
		d.write(http.MethodPost, path, object{"metadata": object{"name": fmt.Sprintf("c-%02d", i)}})
		if got := itemNames(t, p.get(path, jsonType)); len(got) != i+1 {
			t.Fatalf("after write %d: %v", i, got)
		}
	}
}

func TestFutureVersionsAreUpstreamsToRefuse(t *testing.T) {
	d, p := direct(t), newProxy(t, nil)
	p.warm("/api/v1/pods", jsonType)
	const path = "/api/v1/pods?resourceVersion=999999999999"
	compare(t, path, d.get(path, jsonType), p.get(path, jsonType))
}
