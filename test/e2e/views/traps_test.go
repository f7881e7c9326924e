package views

import (
	"io"
	"net/http"
	"testing"
)

// TestSubresourcesExistWithTheirObjects asks for everything that is below an object
// whose content says that it does not exist.
func TestSubresourcesExistWithTheirObjects(t *testing.T) {
	pod := func(tenant string) string {
		meta := "metadata: {name: of-" + tenant + ", namespace: below, labels: {tenant: " + tenant + "}, annotations: {note: MARKER-" + tenant + "}}\n"
		return "---\napiVersion: v1\nkind: ServiceAccount\n" + meta + "---\napiVersion: v1\nkind: Service\n" + meta + `spec: {ports: [{port: 80}]}
---
apiVersion: v1
kind: Pod
` + meta + "spec: {serviceAccountName: of-" + tenant + ", automountServiceAccountToken: false, nodeName: n1, containers: [{name: c, image: i}]}\n"
	}
	apply(t, namespace("below", "")+pod("k")+pod("x"))
	p := newProxy(t)
	show(t, "below", "  subjects: {users: [gina]}\n  objects:\n  - resources: [{resource: pods}, {resource: services}, {resource: serviceaccounts}]\n    selector: {matchLabels: {tenant: k}}\n")
	g := newTenant(t, p, "gina")
	const below = "/api/v1/namespaces/below/"
	for _, ask := range []struct{ method, path, body string }{
		{"GET", "log", ""}, {"GET", "log?follow=true", ""}, {"POST", "exec?command=x", ""}, {"GET", "exec?command=x", ""}, {"POST", "attach", ""}, {"GET", "attach", ""},
		{"POST", "portforward", ""}, {"GET", "portforward?ports=1", ""}, {"GET", "proxy/", ""}, {"GET", "proxy/metrics", ""}, {"POST", "proxy/x", asJSON + "{}"},
		{"GET", "status", ""}, {"PATCH", "status", asMerge + `{"status":{"phase":"Failed"}}`}, {"PATCH", "resize", asSMP + `{}`}, {"GET", "ephemeralcontainers", ""},
		{"PATCH", "ephemeralcontainers", asSMP + `{"spec":{"ephemeralContainers":[{"name":"x","image":"y"}]}}`},
		{"POST", "eviction", asJSON + `{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":"of-x"}}`},
		{"POST", "binding", asJSON + `{"apiVersion":"v1","kind":"Binding","metadata":{"name":"of-x"},"target":{"name":"n1"}}`},
	} {
		g.is(t, ask.method, below+"pods/of-x/"+ask.path, ask.body, 404, `pods \"of-x\" not found`)
	}
	g.is(t, "GET", below+"pods/http:of-x:80/proxy/", "", 404, `pods \"of-x\" not found`)
	g.is(t, "GET", below+"services/of-x/proxy/", "", 404, `services \"of-x\" not found`)
	g.is(t, "GET", below+"services/of-x:80/proxy/x", "", 404, `services \"of-x\" not found`)
	g.is(t, "GET", "/api/v1/proxy/namespaces/below/services/of-x", "", 404)
	g.is(t, "POST", below+"serviceaccounts/of-x/token", asJSON+`{"spec":{}}`, 404, `serviceaccounts \"of-x\" not found`)
	g.is(t, "GET", below+"pods/of-k/status", "", 200, "MARKER-k")
	g.is(t, "POST", below+"serviceaccounts/of-k/token", asJSON+`{"spec":{}}`, 201)
	g.neverSaw(t, "MARKER-x")
}

// TestViewsGiveNoRights has a caller whose view shows what he has no right to see,
// be it in memory or not.
func TestViewsGiveNoRights(t *testing.T) {
	apply(t, namespace("rights", "")+settings("rights", "a", "", "MARKER"))
	p := newProxy(t)
	show(t, "rights", "  subjects: {users: [plain, jack]}\n  namespaces: {names: [rights]}\n")
	const all, apps = "/api/v1/namespaces/rights/", "/apis/apps/v1/namespaces/rights/"
	j := newTenant(t, p, "jack")
	until(t, "what is asked for is in memory", func() bool {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, j.cfg.Host+apps+"deployments?resourceVersion=0", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Accept", "application/json")
		res, err := j.client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		_, _ = io.Copy(io.Discard, res.Body)
		return res.Header.Get("Portico-Served-By") == "cache"
	})
	plain := newTenant(t, p, "plain")
	for _, path := range []string{"configmaps", "configmaps/a", "configmaps?watch=true"} {
		plain.is(t, "GET", all+path, "", 403, "cannot")
	}
	for _, path := range []string{"deployments", "deployments?resourceVersion=0", "deployments?watch=true&resourceVersion=0"} {
		plain.is(t, "GET", apps+path, "", 403, "cannot")
	}
	plain.is(t, "PATCH", all+"configmaps/a", asMerge+`{"data":{"x":"y"}}`, 403)
	plain.neverSaw(t, "MARKER")
}
