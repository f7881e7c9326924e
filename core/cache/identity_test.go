package cache_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/http"
	"testing"
)

// subject is a resource and how to make and change its objects.
type subject struct {
	path   string // of one namespace's collection
	all    string // of the whole collection
	make   func(name string) object
	change func(n int) string // a merge patch
	custom bool
}

func subjects(ns string) map[string]subject {
	label := func(n int) string {
		return fmt.Sprintf(`{"metadata":{"labels":{"n":"%d"},"annotations":{"q":"\"<é>\\"}}}`, n%3)
	}
	return map[string]subject{
		"pods": {path: "/api/v1/namespaces/" + ns + "/pods", all: "/api/v1/pods", change: label,
			make: func(name string) object { return pod(name, object{"app": "web"}) }},
		"nodes": {path: "/api/v1/nodes", all: "/api/v1/nodes",
			make:   func(name string) object { return object{"metadata": object{"name": name}} },
			change: func(n int) string { return fmt.Sprintf(`{"spec":{"unschedulable":%v}}`, n%2 == 0) }},
		"services": {path: "/api/v1/namespaces/" + ns + "/services", all: "/api/v1/services", change: label,
			make: func(name string) object {
				return object{"metadata": object{"name": name}, "spec": object{"ports": []any{object{"port": 80}}}}
			}},
		"endpointslices": {path: "/apis/discovery.k8s.io/v1/namespaces/" + ns + "/endpointslices", all: "/apis/discovery.k8s.io/v1/endpointslices", change: label,
			make: func(name string) object {
				return object{"metadata": object{"name": name}, "addressType": "IPv4", "endpoints": []any{object{"addresses": []any{"10.1.2.3"}}}}
			}},
		"configmaps": {path: "/api/v1/namespaces/" + ns + "/configmaps", all: "/api/v1/configmaps",
			make: func(name string) object {
				return object{"metadata": object{"name": name}, "binaryData": object{"b": "AAEC/w=="}}
			},
			change: func(n int) string { return fmt.Sprintf(`{"data":{"k":"line\n\t%d\u2028<&>"}}`, n) }},
		"cars": {path: "/apis/identity.example.org/v1/namespaces/" + ns + "/cars", all: "/apis/identity.example.org/v1/cars", custom: true,
			make: func(name string) object {
				return object{"apiVersion": "identity.example.org/v1", "kind": "Car", "metadata": object{"name": name},
					"spec": object{"color": "red", "nothing": nil, "float": 1.5, "big": 123456789012, "text": "<&>\u2028"}}
			},
			change: func(n int) string { return fmt.Sprintf(`{"spec":{"color":%q}}`, []string{"red", "blue"}[n%2]) }},
	}
}

func defineCars(t testing.TB, d *door) {
	t.Helper()
	open := object{"openAPIV3Schema": object{"type": "object", "properties": object{
		"spec": object{"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": object{"color": object{"type": "string"}}}}}}
	d.write(http.MethodPost, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", object{
		"metadata": object{"name": "cars.identity.example.org"},
		"spec": object{"group": "identity.example.org", "scope": "Namespaced", "names": object{"plural": "cars", "kind": "Car"},
			"versions": []any{object{"name": "v1", "served": true, "storage": true, "schema": open,
				"selectableFields": []any{object{"jsonPath": ".spec.color"}}}}},
	})
	for d.get("/apis/identity.example.org/v1/cars", jsonType).status != http.StatusOK {
	}
}

// TestBytesEqualUpstreamsUnderWrites changes objects at random, and compares at
// many resourceVersions what memory and upstream list, get and send.
func TestBytesEqualUpstreamsUnderWrites(t *testing.T) {
	d := direct(t)
	const ns = "identity"
	namespace(t, d, ns)
	defineCars(t, d)
	p := newProxy(t, nothingRefused)
	for name, s := range subjects(ns) {
		for format, accept := range formats {
			if s.custom && accept == protoType {
				continue
			}
			t.Run(name+"-"+format, func(t *testing.T) { checkIdentity(t, d, p, s, format, accept) })
		}
	}
}

func checkIdentity(t *testing.T, d *door, p *proxy, s subject, format, accept string) {
	p.warm(s.all, accept)
	start := listOf(t, d.get(s.all, jsonType)).Metadata.ResourceVersion
	versions := randomWrites(d, s, format, 40)
	last := versions[len(versions)-1]
	p.get(s.all+"?resourceVersion="+last, accept) // wait for it
	for i, rv := range versions {
		if i%4 != 0 && rv != last {
			continue
		}
		for _, path := range []string{s.all, s.path} {
			query := path + "?resourceVersionMatch=Exact&resourceVersion=" + rv
			if i%8 == 0 {
				query += "&limit=2"
			}
			want, got := d.get(query, accept), p.get(query, accept)
			if !bytes.Equal(want.body, got.body) || got.servedBy() != "cache" {
				t.Fatalf("%s by %q:\ngot  %q\nwant %q", query, got.servedBy(), got.body, want.body)
			}
		}
	}
	query := s.all + "?watch=true&resourceVersion=" + start
	a, b := d.watch(query, accept), p.watch(query, accept)
	defer a.close()
	defer b.close()
	if from := b.res.Header.Get("Portico-Served-By"); from != "cache" {
		t.Errorf("watch served by %q", from)
	}
	for i := range versions {
		if want, got := a.frame(), b.frame(); !bytes.Equal(want, got) {
			t.Fatalf("event %d:\ngot  %q\nwant %q", i, got, want)
		}
	}
	for _, item := range listOf(t, d.get(s.path, jsonType)).Items {
		path := s.path + "/" + item.Metadata.Name + "?resourceVersion=" + last
		want, got := d.get(path, accept), p.get(path, accept)
		if !bytes.Equal(want.body, got.body) || got.servedBy() != "cache" {
			t.Fatalf("%s by %q:\ngot  %q\nwant %q", path, got.servedBy(), got.body, want.body)
		}
	}
}

// randomWrites returns the resourceVersion of each change of s.
func randomWrites(d *door, s subject, seed string, n int) []string {
	r := rand.New(rand.NewPCG(uint64(len(seed)), 7))
	var versions []string
	live := map[string]bool{}
	for i := range n {
		name := fmt.Sprintf("%s-%d", seed, r.IntN(8))
		switch {
		case !live[name]:
			versions = append(versions, rvOf(d.write(http.MethodPost, s.path, s.make(name))))
			live[name] = true
		case r.IntN(4) == 0:
			d.write(http.MethodDelete, s.path+"/"+name+"?gracePeriodSeconds=0", nil)
			live[name] = false
			// Many deletions do not say at which resourceVersion they happened.
			versions = append(versions, listOf(d.t, d.get(s.all+"?limit=1", jsonType)).Metadata.ResourceVersion)
		default:
			before := rvOf(d.read(s.path + "/" + name))
			if after := rvOf(d.patch(s.path+"/"+name, s.change(i))); after != before {
				versions = append(versions, after)
			}
		}
	}
	return versions
}
