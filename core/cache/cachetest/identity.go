package cachetest

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
	make   func(name string) Object
	change func(n int) string // a merge patch
	custom bool
}

func subjects(ns, group string) map[string]subject {
	label := func(n int) string {
		return fmt.Sprintf(`{"metadata":{"labels":{"n":"%d"},"annotations":{"q":"\"<é>\\"}}}`, n%3)
	}
	return map[string]subject{
		"pods": {path: "/api/v1/namespaces/" + ns + "/pods", all: "/api/v1/pods", change: label,
			make: func(name string) Object { return Pod(name, Object{"app": "web"}) }},
		"nodes": {path: "/api/v1/nodes", all: "/api/v1/nodes",
			make:   func(name string) Object { return Object{"metadata": Object{"name": name}} },
			change: func(n int) string { return fmt.Sprintf(`{"spec":{"unschedulable":%v}}`, n%2 == 0) }},
		"services": {path: "/api/v1/namespaces/" + ns + "/services", all: "/api/v1/services", change: label,
			make: func(name string) Object {
				return Object{"metadata": Object{"name": name}, "spec": Object{"ports": []any{Object{"port": 80}}}}
			}},
		"endpointslices": {path: "/apis/discovery.k8s.io/v1/namespaces/" + ns + "/endpointslices", all: "/apis/discovery.k8s.io/v1/endpointslices", change: label,
			make: func(name string) Object {
				return Object{"metadata": Object{"name": name}, "addressType": "IPv4", "endpoints": []any{Object{"addresses": []any{"10.1.2.3"}}}}
			}},
		"configmaps": {path: "/api/v1/namespaces/" + ns + "/configmaps", all: "/api/v1/configmaps",
			make: func(name string) Object {
				return Object{"metadata": Object{"name": name}, "binaryData": Object{"b": "AAEC/w=="}}
			},
			change: func(n int) string { return fmt.Sprintf(`{"data":{"k":"line\n\t%d\u2028<&>"}}`, n) }},
		"cars": {path: "/apis/" + group + "/v1/namespaces/" + ns + "/cars", all: "/apis/" + group + "/v1/cars", custom: true,
			make: func(name string) Object {
				return Object{"apiVersion": group + "/v1", "kind": "Car", "metadata": Object{"name": name},
					"spec": Object{"color": "red", "nothing": nil, "float": 1.5, "big": 123456789012, "text": "<&>\u2028"}}
			},
			change: func(n int) string { return fmt.Sprintf(`{"spec":{"color":%q}}`, []string{"red", "blue"}[n%2]) }},
	}
}

func defineCars(t testing.TB, d *Door, group string) {
	t.Helper()
	open := Object{"openAPIV3Schema": Object{"type": "object", "properties": Object{
		"spec": Object{"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": Object{"color": Object{"type": "string"}}}}}}
	d.Write(http.MethodPost, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", Object{
		"metadata": Object{"name": "cars." + group},
		"spec": Object{"group": group, "scope": "Namespaced", "names": Object{"plural": "cars", "kind": "Car"},
			"versions": []any{Object{"name": "v1", "served": true, "storage": true, "schema": open,
				"selectableFields": []any{Object{"jsonPath": ".spec.color"}}}}},
	})
	for d.Get("/apis/"+group+"/v1/cars", JSON).Status != http.StatusOK {
	}
}

// bytesEqualUnderWrites changes objects at random, and compares at
// many resourceVersions what memory and upstream list, get and send.
func bytesEqualUnderWrites(t *testing.T, d *Door, p *answerer) {
	const ns, group = "identity", "identity.example.org"
	d.AddNamespace(ns)
	defineCars(t, d, group)
	for name, s := range subjects(ns, group) {
		for format, accept := range formats {
			if s.custom && accept == Protobuf {
				continue
			}
			t.Run(name+"-"+format, func(t *testing.T) { checkIdentity(t, d, p, s, format, accept) })
		}
	}
}

func checkIdentity(t *testing.T, d *Door, p *answerer, s subject, format, accept string) {
	p.warm(t, s.all, accept)
	start := d.Get(s.all, JSON).List(t).Metadata.ResourceVersion
	versions := randomWrites(d, s, format, 40)
	last := versions[len(versions)-1]
	p.Get(s.all+"?resourceVersion="+last, accept) // wait for it
	for i, rv := range versions {
		if i%4 != 0 && rv != last {
			continue
		}
		for _, path := range []string{s.all, s.path} {
			query := path + "?resourceVersionMatch=Exact&resourceVersion=" + rv
			if i%8 == 0 {
				query += "&limit=2"
			}
			want, got := d.Get(query, accept), p.Get(query, accept)
			if !bytes.Equal(want.Body, got.Body) {
				t.Fatalf("%s by %q:\ngot  %q\nwant %q", query, got.ServedBy(), got.Body, want.Body)
			}
			p.checkServedBy(t, query, got.ServedBy())
		}
	}
	query := s.all + "?watch=true&resourceVersion=" + start
	a, b := d.Watch(query, accept), p.Watch(query, accept)
	defer a.Close()
	defer b.Close()
	p.checkServedBy(t, query, b.ServedBy())
	for i := range versions {
		if want, got := a.Frame(), b.Frame(); !bytes.Equal(want, got) {
			t.Fatalf("event %d:\ngot  %q\nwant %q", i, got, want)
		}
	}
	for _, item := range d.Get(s.path, JSON).List(t).Items {
		path := s.path + "/" + item.Metadata.Name + "?resourceVersion=" + last
		want, got := d.Get(path, accept), p.Get(path, accept)
		if !bytes.Equal(want.Body, got.Body) {
			t.Fatalf("%s by %q:\ngot  %q\nwant %q", path, got.ServedBy(), got.Body, want.Body)
		}
		p.checkServedBy(t, path, got.ServedBy())
	}
}

// randomWrites returns the resourceVersion of each change of s.
func randomWrites(d *Door, s subject, seed string, n int) []string {
	r := rand.New(rand.NewPCG(uint64(len(seed)), 7))
	var versions []string
	live := map[string]bool{}
	for i := range n {
		name := fmt.Sprintf("%s-%d", seed, r.IntN(8))
		switch {
		case !live[name]:
			versions = append(versions, ResourceVersion(d.Write(http.MethodPost, s.path, s.make(name))))
			live[name] = true
		case r.IntN(4) == 0:
			d.Write(http.MethodDelete, s.path+"/"+name+"?gracePeriodSeconds=0", nil)
			live[name] = false
			// Many deletions do not say at which resourceVersion they happened.
			versions = append(versions, d.Get(s.all+"?limit=1", JSON).List(d.t).Metadata.ResourceVersion)
		default:
			before := ResourceVersion(d.Read(s.path + "/" + name))
			if after := ResourceVersion(d.Patch(s.path+"/"+name, s.change(i))); after != before {
				versions = append(versions, after)
			}
		}
	}
	return versions
}
