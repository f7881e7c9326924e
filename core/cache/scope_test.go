package cache_test

import (
	"bytes"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"

	"github.com/portico-proxy/portico/core/cache"
	"github.com/portico-proxy/portico/core/cache/cachetest"
)

// as gives the proxy an identity of its own.
func as(t testing.TB, user string, groups ...string) func(*cache.Options) {
	t.Helper()
	credential, err := plane.ClientCert(user, groups...)
	if err != nil {
		t.Fatal(err)
	}
	transport, err := rest.TransportFor(plane.ConfigFor(credential))
	if err != nil {
		t.Fatal(err)
	}
	return func(o *cache.Options) {
		nothingRefused(o)
		o.Upstream.(*counter).RoundTripper = transport
	}
}

// kept are the parts in memory, "" for a whole collection.
func (p *proxy) kept(resource string) []string {
	var scopes []string
	for _, s := range p.cache.Streams() {
		if s.Resource.Resource == resource && s.Loaded && !slices.Contains(scopes, s.Scope) {
			scopes = append(scopes, s.Scope)
		}
	}
	slices.Sort(scopes)
	return scopes
}

// samePart compares what memory and upstream say; from is who must have said it.
func samePart(t *testing.T, d *cachetest.Door, p *proxy, path, accept, from string) {
	t.Helper()
	want, got := d.Get(path, accept), p.Get(path, accept)
	if want.Status != got.Status || !bytes.Equal(want.Body, got.Body) {
		t.Errorf("%s as %s by %q:\ngot  %d %q\nwant %d %q", path, accept, got.ServedBy(), got.Status, got.Body, want.Status, want.Body)
	}
	if got.ServedBy() != from {
		t.Errorf("%s as %s was answered by %q, not %q", path, accept, got.ServedBy(), from)
	}
}

func sameWatch(t *testing.T, d *cachetest.Door, p *proxy, path, accept string, events int) {
	t.Helper()
	a, b := d.Watch(path, accept), p.Watch(path, accept)
	defer a.Close()
	defer b.Close()
	if b.ServedBy() != "cache" {
		t.Errorf("%s as %s was answered by %q", path, accept, b.ServedBy())
	}
	for i := range events {
		if want, got := a.Frame(), b.Frame(); !bytes.Equal(want, got) {
			t.Errorf("%s as %s: event %d\ngot  %q\nwant %q", path, accept, i, got, want)
		}
	}
}

var metadataAlone = cachetest.Protobuf + ";as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"

// TestNodeKeepsItsOwnPods has the proxy be a node: the Node authorizer lets it
// read no other pods.
func TestNodeKeepsItsOwnPods(t *testing.T) {
	d := direct(t)
	d.AddNamespace("part-shop")
	d.AddNamespace("part-shop-b")
	const path, other, all = "/api/v1/namespaces/part-shop/pods", "/api/v1/namespaces/part-shop-b/pods", "/api/v1/pods"
	mine := "fieldSelector=" + url.QueryEscape("spec.nodeName=part-n1")
	for _, node := range []string{"part-n1", "part-n2"} {
		d.Write(http.MethodPost, "/api/v1/nodes", object{"metadata": object{"name": node}})
	}
	for i := range 3 {
		for _, in := range []string{path, other} {
			name := fmt.Sprintf("web-%d", i)
			d.Write(http.MethodPost, in, cachetest.Pod(name, object{"app": "web"}))
			d.Bind(in, name, []string{"part-n1", "part-n2"}[i%2])
		}
	}
	p := newProxy(t, as(t, "system:node:part-n1", "system:nodes"))
	formats := []string{cachetest.JSON, cachetest.Protobuf}
	for _, accept := range formats {
		p.warm(all+"?"+mine+"&resourceVersion=0", accept)
	}
	start := d.Get(all+"?limit=1", cachetest.JSON).List(t).Metadata.ResourceVersion
	d.Write(http.MethodPost, path, cachetest.Pod("late", object{"app": "web"}))
	d.Bind(path, "late", "part-n1") // it comes into the part
	d.Write(http.MethodPost, path, cachetest.Pod("elsewhere", nil))
	d.Bind(path, "elsewhere", "part-n2")
	d.Patch(path+"/late", `{"metadata":{"labels":{"app":"db"}}}`)
	d.Write(http.MethodDelete, path+"/web-1?gracePeriodSeconds=0", nil)
	d.Write(http.MethodDelete, path+"/web-0?gracePeriodSeconds=0", nil)
	rv := cachetest.ResourceVersion(d.Patch(other+"/web-2", `{"metadata":{"labels":{"x":"y"}}}`))

	for _, accept := range append(formats, metadataAlone) {
		exact := "&resourceVersionMatch=Exact&resourceVersion=" + rv
		for _, query := range []string{
			all + "?" + mine + exact,
			path + "?" + mine + exact,
			other + "?" + mine + exact + "&labelSelector=x",
			all + "?fieldSelector=" + url.QueryEscape("spec.host=part-n1,metadata.namespace=part-shop") + exact,
			path + "?fieldSelector=" + url.QueryEscape("spec.nodeName=part-n1,metadata.name=late") + exact,
			all + "?" + mine + exact + "&limit=1",
			all + "?" + mine + exact + "&limit=500",
			all + "?" + mine + "&resourceVersionMatch=Exact&resourceVersion=" + start,
			all + "?" + mine + "&resourceVersion=" + rv,
			all + "?" + mine + "&resourceVersionMatch=NotOlderThan&limit=4&resourceVersion=" + rv, // all there are
			all + "?" + mine + "&resourceVersionMatch=NotOlderThan&limit=2&resourceVersion=" + rv,
		} {
			samePart(t, d, p, query, accept, "cache")
		}
		// Whether pods of other nodes follow, only upstream knows.
		samePart(t, d, p, all+"?"+mine+exact+"&limit=4", accept, "")
		// What is not in the part.
		samePart(t, d, p, all+"?fieldSelector=spec.nodeName%3Dpart-n2"+exact, accept, "")
		samePart(t, d, p, path+"?resourceVersion="+rv, accept, "")
	}
	for _, accept := range formats {
		from := "?watch=true&resourceVersion=" + start + "&"
		sameWatch(t, d, p, all+from+mine, accept, 4)
		sameWatch(t, d, p, path+from+mine, accept, 3)
		sameWatch(t, d, p, path+from+mine+"&labelSelector=app%3Dweb", accept, 3)
	}
	pages(t, d, p, all+"?"+mine+"&limit=1")
	if got := p.kept("pods"); !slices.Equal(got, []string{"spec.nodeName=part-n1"}) {
		t.Errorf("keeps %q", got)
	}
}

// TestNodeKeepsItself has the proxy be a node, which may read no other.
func TestNodeKeepsItself(t *testing.T) {
	d := direct(t)
	const path = "/api/v1/nodes"
	for _, name := range []string{"part-me", "part-you"} {
		d.Write(http.MethodPost, path, object{"metadata": object{"name": name}})
	}
	p := newProxy(t, as(t, "system:node:part-me", "system:nodes"))
	const me = path + "?fieldSelector=metadata.name%3Dpart-me"
	for _, accept := range []string{cachetest.JSON, cachetest.Protobuf} {
		p.warm(me+"&resourceVersion=0", accept)
	}
	start := d.Get(path, cachetest.JSON).List(t).Metadata.ResourceVersion
	d.Patch(path+"/part-you", `{"metadata":{"labels":{"a":"b"}}}`)
	rv := cachetest.ResourceVersion(d.Patch(path+"/part-me", `{"metadata":{"labels":{"a":"b"}}}`))
	for _, accept := range []string{cachetest.JSON, cachetest.Protobuf, metadataAlone} {
		exact := "&resourceVersionMatch=Exact&resourceVersion=" + rv
		samePart(t, d, p, me+exact, accept, "cache")
		samePart(t, d, p, me+exact+"&limit=1", accept, "cache")
		samePart(t, d, p, me+"&resourceVersion="+rv, accept, "cache")
		samePart(t, d, p, me+exact+"&labelSelector=none", accept, "cache")
		samePart(t, d, p, path+"?fieldSelector=metadata.name%3Dpart-you"+exact, accept, "")
	}
	for _, accept := range []string{cachetest.JSON, cachetest.Protobuf} {
		samePart(t, d, p, path+"/part-me?resourceVersion="+rv, accept, "cache")
		sameWatch(t, d, p, me+"&watch=true&resourceVersion="+start, accept, 1)
	}
	d.Patch(path+"/part-me", `{"metadata":{"labels":{"a":"c"}}}`)
	if got := p.Get(me, cachetest.JSON); got.ServedBy() == "" || !strings.Contains(string(got.Body), `"a":"c"`) {
		t.Errorf("the newest by %q: %s", got.ServedBy(), got.Body)
	}
	if got := p.kept("nodes"); !slices.Equal(got, []string{"metadata.name=part-me"}) {
		t.Errorf("keeps %q", got)
	}
}

// pages goes through a list by turns at the proxy and upstream.
func pages(t *testing.T, d *cachetest.Door, p *proxy, query string) {
	t.Helper()
	var names []string
	for token, i := "", 0; ; i++ {
		page := []*cachetest.Door{p.Door, d}[i%2].Get(query+"&continue="+url.QueryEscape(token), cachetest.JSON)
		names = append(names, page.Names(t)...)
		if token = page.List(t).Metadata.Continue; token == "" {
			break
		}
	}
	all, _ := url.Parse(query)
	q := all.Query()
	q.Del("limit")
	if d := cmp.Diff(d.Get(all.Path+"?"+q.Encode(), cachetest.JSON).Names(t), names); d != "" {
		t.Error(d)
	}
}

func TestNewestListsOfPartsHaveEveryWrite(t *testing.T) {
	d := direct(t)
	d.AddNamespace("part-newest")
	const path, mine = "/api/v1/namespaces/part-newest/pods", "/api/v1/pods?fieldSelector=spec.nodeName%3Dpart-n3"
	d.Write(http.MethodPost, "/api/v1/nodes", object{"metadata": object{"name": "part-n3"}})
	p := newProxy(t, as(t, "system:node:part-n3", "system:nodes"))
	p.warm(mine+"&resourceVersion=0", cachetest.JSON)
	for i := range 5 {
		name := fmt.Sprintf("web-%d", i)
		d.Write(http.MethodPost, path, cachetest.Pod(name, nil))
		d.Bind(path, name, "part-n3")
		got := p.Get(mine, cachetest.JSON)
		if len(got.Names(t)) != i+1 || got.ServedBy() == "" {
			t.Fatalf("after write %d by %q: %v", i, got.ServedBy(), got.Names(t))
		}
		w := p.Watch(mine+"&watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true", cachetest.JSON)
		seen := 0
		for e := w.Event(); !e.EndsInitial(); e = w.Event() {
			seen++
		}
		if seen != i+1 || w.ServedBy() != "cache" {
			t.Errorf("after write %d by %q: watched %d", i, w.ServedBy(), seen)
		}
		w.Close()
	}
}

// TestNamespaceIsKeptAlone has the proxy be somebody who may read one namespace.
func TestNamespaceIsKeptAlone(t *testing.T) {
	d := direct(t)
	d.AddNamespace("part-mine")
	d.AddNamespace("part-others")
	const rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/part-mine/"
	d.Write(http.MethodPost, rbac+"roles", object{"metadata": object{"name": "read"}, "rules": []any{
		object{"apiGroups": []any{""}, "resources": []any{"configmaps"}, "verbs": []any{"list", "watch"}}}})
	d.Write(http.MethodPost, rbac+"rolebindings", object{"metadata": object{"name": "read"},
		"roleRef":  object{"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "read"},
		"subjects": []any{object{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "part-reader"}}})
	const path, other = "/api/v1/namespaces/part-mine/configmaps", "/api/v1/namespaces/part-others/configmaps"
	for _, in := range []string{path, other} {
		d.Write(http.MethodPost, in, object{"metadata": object{"name": "a"}})
	}
	p := newProxy(t, as(t, "part-reader"))
	p.Get("/api/v1/configmaps?resourceVersion=0", cachetest.JSON) // the whole is not to be had
	p.warm(path, cachetest.JSON)
	start := d.Get(path, cachetest.JSON).List(t).Metadata.ResourceVersion
	d.Write(http.MethodPost, path, object{"metadata": object{"name": "b"}})
	rv := cachetest.ResourceVersion(d.Patch(path+"/a", `{"data":{"k":"v"}}`))
	samePart(t, d, p, path+"?resourceVersion="+rv, cachetest.JSON, "cache")
	samePart(t, d, p, path+"?resourceVersionMatch=Exact&limit=1&resourceVersion="+rv, cachetest.JSON, "cache")
	samePart(t, d, p, path+"/a?resourceVersion="+rv, cachetest.JSON, "cache")
	sameWatch(t, d, p, path+"?watch=true&resourceVersion="+start, cachetest.JSON, 2)
	samePart(t, d, p, other+"?resourceVersion=0", cachetest.JSON, "")
	pages(t, d, p, path+"?limit=1")
	d.Write(http.MethodPost, path, object{"metadata": object{"name": "c"}})
	if got := p.Get(path, cachetest.JSON); len(got.Names(t)) < 3 || got.ServedBy() == "" {
		t.Errorf("by %q: %v", got.ServedBy(), got.Names(t))
	}
	if got := p.kept("configmaps"); !slices.Equal(got, []string{"metadata.namespace=part-mine"}) {
		t.Errorf("keeps %q", got)
	}
}

func TestSeveralPartsBecomeTheWhole(t *testing.T) {
	d := direct(t)
	p := newProxy(t, nothingRefused)
	path := func(i int) string { return fmt.Sprintf("/api/v1/namespaces/part-%d/configmaps", i) }
	for i := range 5 {
		d.AddNamespace(fmt.Sprintf("part-%d", i))
		d.Write(http.MethodPost, path(i), object{"metadata": object{"name": "c"}})
	}
	for i, want := range [][]string{
		{"metadata.namespace=part-0"},
		{"metadata.namespace=part-0", "metadata.namespace=part-1"},
		{"metadata.namespace=part-0", "metadata.namespace=part-1", "metadata.namespace=part-2"},
		{"", "metadata.namespace=part-0", "metadata.namespace=part-1", "metadata.namespace=part-2"},
		{"", "metadata.namespace=part-0", "metadata.namespace=part-1", "metadata.namespace=part-2"},
	} {
		p.warm(path(i), cachetest.JSON)
		if got := p.kept("configmaps"); !slices.Equal(got, want) {
			t.Errorf("after namespace %d: keeps %q, want %q", i, got, want)
		}
		if got := p.Get(path(i)+"?resourceVersion=0", cachetest.JSON).Names(t); !slices.Contains(got, fmt.Sprintf("part-%d/c", i)) {
			t.Errorf("namespace %d has %v", i, got)
		}
	}
}

func TestPartsAreAllThatAPolicyWants(t *testing.T) {
	d := direct(t)
	d.AddNamespace("part-only")
	p := newProxy(t, func(o *cache.Options) {
		o.Policies = func(schema.GroupResource) cache.Policy { return cache.Policy{Parts: true} }
	})
	p.warm("/api/v1/pods?resourceVersion=0&fieldSelector=spec.nodeName%3Dpart-n4", cachetest.JSON)
	samePart(t, d, p, "/api/v1/nodes?resourceVersion=0", cachetest.JSON, "")
	samePart(t, d, p, "/api/v1/pods?resourceVersion=0&fieldSelector=spec.nodeName%21%3Dpart-n4", cachetest.JSON, "")
	if got := append(p.kept("pods"), p.kept("nodes")...); !slices.Equal(got, []string{"spec.nodeName=part-n4"}) {
		t.Errorf("keeps %q", got)
	}
}

// TestShortWatchesOfQuietPartsTellProgress has a proxy behind the proxy catch up.
func TestShortWatchesOfQuietPartsTellProgress(t *testing.T) {
	d := direct(t)
	d.AddNamespace("part-quiet")
	const path = "/api/v1/namespaces/part-quiet/configmaps"
	rv := cachetest.ResourceVersion(d.Write(http.MethodPost, path, object{"metadata": object{"name": "c"}}))
	p := newProxy(t, nothingRefused)
	p.warm(path, cachetest.JSON)
	d.AddNamespace("part-quiet-b")
	now, _ := strconv.Atoi(d.Get(path, cachetest.JSON).List(t).Metadata.ResourceVersion)
	w := p.Watch(path+"?watch=true&timeoutSeconds=6&allowWatchBookmarks=true&resourceVersion="+rv, cachetest.JSON)
	e := w.Event()
	got, _ := strconv.Atoi(e.Object.Metadata.ResourceVersion)
	if w.ServedBy() != "cache" || e.Type != "BOOKMARK" || got < now {
		t.Errorf("%s by %q at %d, want at least %d", e.Type, w.ServedBy(), got, now)
	}
}
