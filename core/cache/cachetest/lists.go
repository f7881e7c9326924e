package cachetest

import (
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var formats = map[string]string{"json": JSON, "protobuf": Protobuf}

// listRV finds a list's own resourceVersion in either format, for states of
// different ages may well be equal but for it.
var listRV = regexp.MustCompile(`^((?s:.{0,60}?)"metadata":\{"resourceVersion":"|.*current: )\d+`)

func anyRV(b []byte) string { return listRV.ReplaceAllString(string(b), "${1}RV") }

func listsEqual(t *testing.T, d *Door, p *answerer) {
	d.AddNamespace("lists")
	d.AddNamespace("lists-b")
	var rv string
	for i := range 6 {
		ns := "lists"
		if i%3 == 2 {
			ns = "lists-b"
		}
		o := d.Write(http.MethodPost, "/api/v1/namespaces/"+ns+"/pods", Pod(fmt.Sprintf("web-%d", i), Object{"app": "web", "odd": fmt.Sprint(i%2 == 1)}))
		rv = ResourceVersion(o)
		if i%3 == 0 {
			rv = ResourceVersion(d.Bind("/api/v1/namespaces/"+ns+"/pods", fmt.Sprintf("web-%d", i), "n1"))
		}
	}
	exact := "resourceVersion=" + rv + "&resourceVersionMatch=Exact"
	for name, accept := range formats {
		t.Run(name, func(t *testing.T) {
			p.warm(t, "/api/v1/pods", accept)
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
				exact + "&fieldSelector=metadata.namespace%3Dlists&limit=4", // all there are
				exact + "&fieldSelector=metadata.namespace%3Dlists,metadata.name%3Dweb-1&limit=1",
				exact + "&fieldSelector=spec.nodeName%3D",
				exact + "&fieldSelector=spec.nodeName%3Dn1",
				exact + "&fieldSelector=spec.nodeName%3Dn1&limit=1",
				exact + "&fieldSelector=spec.nodeName%3Dn1&limit=2",
				"resourceVersionMatch=NotOlderThan&resourceVersion=" + rv + "&fieldSelector=spec.nodeName%3Dn1&limit=1",
				"resourceVersionMatch=NotOlderThan&resourceVersion=" + rv + "&fieldSelector=spec.nodeName%3Dn1&limit=2", // all there are
				exact + "&fieldSelector=spec.host%3D",
				exact + "&fieldSelector=" + url.QueryEscape("status.phase=Pending,spec.restartPolicy!=Never"),
				"resourceVersion=" + rv + "&limit=2", // the legacy way to say Exact
				"resourceVersion=" + rv + "&limit=2&fieldSelector=metadata.name%3Dweb-1",
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
					want, got := d.Get(path+"?"+query, accept), p.Get(path+"?"+query, accept)
					compare(t, path+"?"+query, want, got)
				}
			}
		})
	}
}

// compare reports how got differs from want but for a list's own resourceVersion
// and the token made of it.
func compare(t *testing.T, what string, want, got Answer) {
	t.Helper()
	if want.Status != got.Status || want.Header.Get("Content-Type") != got.Header.Get("Content-Type") {
		t.Errorf("%s: %d %s, want %d %s\n%.300q", what, got.Status, got.Header.Get("Content-Type"), want.Status, want.Header.Get("Content-Type"), got.Body)
		return
	}
	a, b := anyRV(want.Body), anyRV(got.Body)
	if a == b {
		return
	}
	if want.Header.Get("Content-Type") == Protobuf && want.Status == http.StatusOK && protoItems(want.Body) == protoItems(got.Body) {
		return
	}
	t.Errorf("%s (%s):\n%s", what, got.ServedBy(), cmp.Diff(a, b))
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

func pagesContinueAnywhere(t *testing.T, d *Door, p *answerer) {
	d.AddNamespace("pages")
	for i := range 7 {
		d.Write(http.MethodPost, "/api/v1/namespaces/pages/configmaps", Object{"metadata": Object{"name": fmt.Sprintf("c-%d", i)}})
	}
	for _, path := range []string{"/api/v1/configmaps", "/api/v1/namespaces/pages/configmaps"} {
		p.warm(t, path, JSON)
		all := d.Get(path, JSON).Names(t)
		for name, doors := range map[string][]*Door{"memory": {&p.Door}, "upstream-first": {d, &p.Door}, "memory-first": {&p.Door, d}} {
			t.Run(name, func(t *testing.T) {
				var names []string
				token := ""
				for i := 0; ; i++ {
					a := doors[i%len(doors)].Get(path+"?limit=2&continue="+url.QueryEscape(token), JSON)
					names = append(names, a.Names(t)...)
					if token = a.List(t).Metadata.Continue; token == "" {
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
	want, got := d.Get("/api/v1/namespaces/pages/configmaps?limit=3", JSON), p.Get("/api/v1/namespaces/pages/configmaps?limit=3", JSON)
	if w, g := want.List(t).Metadata.Remaining, got.List(t).Metadata.Remaining; w == nil || g == nil || *w != *g {
		t.Errorf("remaining %v, want %v", g, w)
	}
}

func oldPagesShowOldState(t *testing.T, d *Door, p *answerer) {
	d.AddNamespace("snapshots")
	path := "/api/v1/namespaces/snapshots/configmaps"
	for i := range 4 {
		d.Write(http.MethodPost, path, Object{"metadata": Object{"name": fmt.Sprintf("c-%d", i)}})
	}
	p.warm(t, path, JSON)
	first := p.Get(path+"?limit=1", JSON).List(t)
	d.Write(http.MethodDelete, path+"/c-1", nil)
	changed := d.Patch(path+"/c-2", `{"data":{"a":"b"}}`)
	p.Get(path+"?resourceVersion="+ResourceVersion(changed), JSON)
	query := path + "?limit=500&continue=" + url.QueryEscape(first.Metadata.Continue)
	want, got := d.Get(query, JSON), p.Get(query, JSON)
	if string(want.Body) != string(got.Body) {
		t.Errorf("served by %q:\n%s", got.ServedBy(), cmp.Diff(string(want.Body), string(got.Body)))
	}
	p.checkServedBy(t, query, got.ServedBy())
}

func getsEqual(t *testing.T, d *Door, p *answerer) {
	d.AddNamespace("gets")
	o := d.Write(http.MethodPost, "/api/v1/namespaces/gets/pods", Pod("web", nil))
	for name, accept := range formats {
		t.Run(name, func(t *testing.T) {
			p.warm(t, "/api/v1/pods", accept)
			for query, from := range map[string]string{"?resourceVersion=0": "cache", "?resourceVersion=" + ResourceVersion(o): "cache", "": ""} {
				want, got := d.Get("/api/v1/namespaces/gets/pods/web"+query, accept), p.Get("/api/v1/namespaces/gets/pods/web"+query, accept)
				compare(t, query, want, got)
				if from != "" {
					p.checkServedBy(t, query, got.ServedBy())
				}
			}
			for _, path := range []string{"/api/v1/namespaces/gets/pods/none?resourceVersion=0", "/api/v1/pods/web?resourceVersion=0", "/api/v1/namespaces/gets/nodes/web?resourceVersion=0"} {
				compare(t, path, d.Get(path, accept), p.Get(path, accept))
			}
		})
	}
}

func newestListsHaveEveryWrite(t *testing.T, d *Door, p *answerer) {
	d.AddNamespace("newest")
	path := "/api/v1/namespaces/newest/configmaps"
	p.warm(t, path, JSON)
	for i := range 20 {
		d.Write(http.MethodPost, path, Object{"metadata": Object{"name": fmt.Sprintf("c-%02d", i)}})
		if got := p.Get(path, JSON).Names(t); len(got) != i+1 {
			t.Fatalf("after write %d: %v", i, got)
		}
	}
}

func futureVersionsAreRefused(t *testing.T, d *Door, p *answerer) {
	p.warm(t, "/api/v1/pods", JSON)
	const path = "/api/v1/pods?resourceVersion=999999999999"
	compare(t, path, d.Get(path, JSON), p.Get(path, JSON))
}
