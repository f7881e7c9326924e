package cache_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/portico-proxy/portico/core/cache/cachetest"
	"github.com/portico-proxy/portico/test/controlplane"
)

func TestStalledWatcherHarmsNobody(t *testing.T) {
	d := direct(t)
	d.AddNamespace("stalled")
	p := newProxy(t, nothingRefused)
	const path = "/api/v1/namespaces/stalled/configmaps"
	d.Write(http.MethodPost, path, object{"metadata": object{"name": "c"}})
	p.warm(path, cachetest.JSON)
	rv := d.Get(path, cachetest.JSON).List(t).Metadata.ResourceVersion
	query := path + "?watch=true&resourceVersion=" + rv
	stalled := p.Watch(query, cachetest.JSON)
	reader := cachetest.NewDoor(t, p.config).Watch(query, cachetest.JSON)

	const writes, size = 50, 300 << 10
	for i := range writes {
		d.Patch(path+"/c", fmt.Sprintf(`{"data":{"n":"%d","fill":%q}}`, i, strings.Repeat(strconv.Itoa(i%10), size)))
		if n := number(t, reader.Frame()); n != i {
			t.Fatalf("reader got %d after %d", n, i-1)
		}
	}
	// The stalled one was left behind, but what it was sent is whole and in order.
	got := 0
	for frame := stalled.Frame(); len(frame) > 0; frame = stalled.Frame() {
		if n := number(t, frame); n != got {
			t.Fatalf("stalled got %d after %d", n, got-1)
		}
		got++
	}
	if got >= writes {
		t.Errorf("all of %d events were kept for a client that did not read", writes)
	}
	for _, s := range p.cache.Streams() {
		if s.EventBytes > 8<<20 {
			t.Errorf("history of %d bytes", s.EventBytes)
		}
	}
}

// reading is a client that reads, and notes how long it is given for that.
type reading struct {
	*httptest.ResponseRecorder
	given  []time.Duration
	synced func()
}

func (r *reading) SetWriteDeadline(t time.Time) error {
	r.given = append(r.given, time.Until(t))
	return nil
}

func (r *reading) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte("initial-events-end")) {
		r.synced()
	}
	return len(p), nil
}

// TestWatchersAreNotWaitedForWhileTheyAreSentTheState gives a watcher as long as the
// watch for what happens, but not for what was there when it began.
func TestWatchersAreNotWaitedForWhileTheyAreSentTheState(t *testing.T) {
	d := direct(t)
	d.AddNamespace("unread")
	p := newProxy(t, nothingRefused)
	const path = "/api/v1/namespaces/unread/configmaps"
	for i := range 3 {
		d.Write(http.MethodPost, path, object{"metadata": object{"name": fmt.Sprint("c-", i)}, "data": object{"fill": strings.Repeat("x", 100<<10)}})
	}
	p.warm(path, cachetest.JSON)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r := httptest.NewRequestWithContext(ctx, http.MethodGet,
		path+"?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion=0&allowWatchBookmarks=true&timeoutSeconds=36000", nil)
	w := &reading{ResponseRecorder: httptest.NewRecorder()}
	sent := 0
	w.synced = func() { sent = len(w.given); cancel() }
	p.handler.ServeHTTP(w, r)
	if sent < 3 {
		t.Fatalf("given %v", w.given)
	}
	for i, d := range w.given[:sent] {
		if short := d < 2*time.Minute; short != (i > 0 && i < sent-1) {
			t.Errorf("given %v", w.given[:sent])
		}
	}
}

// number is which write a frame shows.
func number(t *testing.T, frame []byte) int {
	t.Helper()
	var e struct {
		Object struct {
			Data map[string]string `json:"data"`
		} `json:"object"`
	}
	if err := json.Unmarshal(frame, &e); err != nil {
		t.Fatalf("%.100q: %v", frame, err)
	}
	n, err := strconv.Atoi(e.Object.Data["n"])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestMegabyteObjectsPass(t *testing.T) {
	d := direct(t)
	d.AddNamespace("large")
	p := newProxy(t, nothingRefused)
	const path = "/api/v1/namespaces/large/configmaps"
	for _, accept := range []string{cachetest.JSON, cachetest.Protobuf} {
		p.warm(path, accept)
	}
	rv := d.Get(path, cachetest.JSON).List(t).Metadata.ResourceVersion
	o := d.Write(http.MethodPost, path, object{"metadata": object{"name": "c"}, "data": object{"fill": strings.Repeat("é", 500<<10)}})
	for _, accept := range []string{cachetest.JSON, cachetest.Protobuf} {
		for _, query := range []string{path + "?resourceVersionMatch=Exact&resourceVersion=", path + "/c?resourceVersion="} {
			query += cachetest.ResourceVersion(o)
			want, got := d.Get(query, accept), p.Get(query, accept)
			if !bytes.Equal(want.Body, got.Body) || got.ServedBy() != "cache" {
				t.Errorf("%s by %q: %d bytes, want %d", query, got.ServedBy(), len(got.Body), len(want.Body))
			}
		}
		query := path + "?watch=true&resourceVersion=" + rv
		if want, got := d.Watch(query, accept).Frame(), p.Watch(query, accept).Frame(); !bytes.Equal(want, got) {
			t.Errorf("%s: frame of %d bytes, want %d", query, len(got), len(want))
		}
	}
}

// TestIdleWatchersAllHear has a crowd that nothing happens for while others read.
func TestIdleWatchersAllHear(t *testing.T) {
	d := direct(t)
	d.AddNamespace("crowd")
	d.AddNamespace("crowd-b")
	p := newProxy(t, nothingRefused)
	const path, other = "/api/v1/namespaces/crowd/configmaps", "/api/v1/namespaces/crowd-b/configmaps"
	p.warm(path, cachetest.JSON)
	p.warm(other, cachetest.JSON)
	rv := d.Get(path, cachetest.JSON).List(t).Metadata.ResourceVersion
	crowd := watchAlike(t, p, path+"?watch=true&resourceVersion="+rv, 5000)
	before := p.upstream.requests.Load()

	reader := p.Watch(other+"?watch=true&resourceVersion="+rv, cachetest.JSON)
	for i := range 20 {
		name := fmt.Sprintf("c-%d", i)
		d.Write(http.MethodPost, other, object{"metadata": object{"name": name}})
		if e := reader.Event(); e.Object.Metadata.Name != name {
			t.Fatalf("the reader heard %+v, want %s", e, name)
		}
	}
	d.Write(http.MethodPost, path, object{"metadata": object{"name": "news"}})
	for _, w := range crowd {
		if e := w.Event(); e.Object.Metadata.Name != "news" {
			t.Fatalf("heard %+v", e)
		}
	}
	if n := p.upstream.requests.Load() - before; n != 0 {
		t.Errorf("%d requests went upstream", n)
	}
}

// watchAlike opens n watches on a few connections.
func watchAlike(t *testing.T, p *proxy, query string, n int) []*cachetest.Watch {
	t.Helper()
	crowd := make([]*cachetest.Watch, n)
	var wg sync.WaitGroup
	const connections = 20
	for c := range connections {
		door := cachetest.NewDoor(t, p.config)
		wg.Go(func() {
			for i := c; i < n; i += connections {
				crowd[i] = door.Watch(query, cachetest.JSON)
			}
		})
	}
	wg.Wait()
	return crowd
}

// TestSlowReadersGetEverything has one client read long after the others.
func TestSlowReadersGetEverything(t *testing.T) {
	d := direct(t)
	d.AddNamespace("slow")
	p := newProxy(t, nothingRefused)
	const path, objects, writes = "/api/v1/namespaces/slow/configmaps", 8, 40
	fill := strings.Repeat("x", 700<<10)
	for i := range objects {
		d.Write(http.MethodPost, path, object{"metadata": object{"name": fmt.Sprintf("fill-%d", i)}, "data": object{"fill": fill}})
	}
	d.Write(http.MethodPost, path, object{"metadata": object{"name": "c"}, "data": object{"n": "-1"}})
	p.warm(path, cachetest.JSON)
	rv := d.Get(path, cachetest.JSON).List(t).Metadata.ResourceVersion
	want := d.Get(path+"?resourceVersionMatch=Exact&resourceVersion="+rv, cachetest.JSON)
	query := path + "?watch=true&resourceVersion=" + rv
	slow := p.Watch(query, cachetest.JSON)
	list := cachetest.NewDoor(t, p.config).Open(t.Context(), http.MethodGet, path+"?resourceVersionMatch=Exact&resourceVersion="+rv, http.Header{"Accept": {cachetest.JSON}}, nil)
	defer func() { _ = list.Body.Close() }()
	begun := make([]byte, 1)
	if _, err := io.ReadFull(list.Body, begun); err != nil {
		t.Fatal(err)
	}

	// Meanwhile others read and write as ever.
	door := cachetest.NewDoor(t, p.config)
	quick := door.Watch(query, cachetest.JSON)
	for i := range writes {
		changed := d.Patch(path+"/c", fmt.Sprintf(`{"data":{"n":"%d","fill":%q}}`, i, fill[:32<<10]))
		if n := number(t, quick.Frame()); n != i {
			t.Fatalf("the quick one got %d after %d", n, i-1)
		}
		if i%10 == 0 {
			got := door.Get(path+"?fieldSelector=metadata.name%3Dc&resourceVersion="+cachetest.ResourceVersion(changed), cachetest.JSON)
			if got.ServedBy() != "cache" || !strings.Contains(string(got.Body), fmt.Sprintf(`"n":"%d"`, i)) {
				t.Errorf("list after write %d by %q: %.200s", i, got.ServedBy(), got.Body)
			}
		}
	}
	for i := range writes {
		if n := number(t, slow.Frame()); n != i {
			t.Fatalf("the slow one got %d after %d", n, i-1)
		}
	}
	rest, err := io.ReadAll(list.Body)
	if got := append(begun, rest...); err != nil || !bytes.Equal(got, want.Body) {
		t.Errorf("the slow one's list: %d bytes, %v, want %d", len(got), err, len(want.Body))
	}
}

// TestDeletedNamespacesLeaveWatches deletes a namespace as the namespace
// controller does: what is in it, and then itself.
func TestDeletedNamespacesLeaveWatches(t *testing.T) {
	d := direct(t)
	p := newProxy(t, nothingRefused)
	const namespace, other = "/api/v1/namespaces/doomed", "/api/v1/namespaces/spared/configmaps"
	const path = namespace + "/configmaps"
	d.AddNamespace("doomed")
	d.AddNamespace("spared")
	for i := range 3 {
		d.Write(http.MethodPost, path, object{"metadata": object{"name": fmt.Sprintf("c-%d", i)}})
	}
	d.Write(http.MethodPost, other, object{"metadata": object{"name": "c"}})
	for _, in := range []string{path, other, "/api/v1/configmaps", "/api/v1/namespaces"} {
		p.warm(in, cachetest.JSON)
	}
	from := "?watch=true&resourceVersion=" + d.Get(path, cachetest.JSON).List(t).Metadata.ResourceVersion
	spared := p.Watch(other+from, cachetest.JSON)
	var pairs [][2]*cachetest.Watch
	for _, in := range []string{path, "/api/v1/configmaps", "/api/v1/namespaces"} {
		pairs = append(pairs, [2]*cachetest.Watch{d.Watch(in+from, cachetest.JSON), p.Watch(in+from, cachetest.JSON)})
	}

	doomed := d.Write(http.MethodDelete, namespace, nil)
	d.Write(http.MethodDelete, path, nil)
	doomed["spec"] = object{"finalizers": []any{}}
	d.Write(http.MethodPut, namespace+"/finalize", doomed)
	until(t, func() bool { return d.Get(namespace, cachetest.JSON).Status == http.StatusNotFound })
	for i, events := range []int{3, 3, 2} { // the namespace is marked, and goes
		for range events {
			if want, got := pairs[i][0].Frame(), pairs[i][1].Frame(); !bytes.Equal(want, got) {
				t.Errorf("got  %q\nwant %q", got, want)
			}
		}
	}
	for _, in := range []string{path, "/api/v1/configmaps"} {
		if got := p.Get(in+"?fieldSelector=metadata.namespace%3Ddoomed", cachetest.JSON); len(got.List(t).Items) != 0 {
			t.Errorf("%s by %q: %s", in, got.ServedBy(), got.Body)
		}
	}
	// The same name is another namespace now, and the watches go on.
	d.AddNamespace("doomed")
	d.Write(http.MethodPost, path, object{"metadata": object{"name": "again"}})
	if want, got := pairs[0][0].Frame(), pairs[0][1].Frame(); !bytes.Equal(want, got) || len(got) == 0 {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	d.Patch(other+"/c", `{"data":{"k":"v"}}`)
	if e := spared.Event(); e.Type != "MODIFIED" || e.Object.Metadata.Name != "c" {
		t.Errorf("another namespace's watch got %+v", e)
	}
}

// TestCompactionSparesPages has etcd forget the past between two pages.
func TestCompactionSparesPages(t *testing.T) {
	d := direct(t)
	d.AddNamespace("compacted")
	p := newProxy(t, nothingRefused)
	const path, pods = "/api/v1/namespaces/compacted/configmaps", 10
	for i := range pods {
		d.Write(http.MethodPost, path, object{"metadata": object{"name": fmt.Sprintf("c-%d", i)}})
	}
	p.warm(path, cachetest.JSON)
	first := p.Get(path+"?limit=4", cachetest.JSON)
	rv := first.List(t).Metadata.ResourceVersion
	quick := p.Watch(path+"?watch=true&resourceVersion="+rv, cachetest.JSON)
	d.Write(http.MethodDelete, path+"/c-7", nil)
	changed := d.Patch(path+"/c-8", `{"data":{"new":"true"}}`)
	compact(t, cachetest.ResourceVersion(changed))

	names, token := first.Names(t), first.List(t).Metadata.Continue
	for token != "" {
		page := p.Get(path+"?limit=4&continue="+url.QueryEscape(token), cachetest.JSON)
		if page.ServedBy() != "cache" || page.List(t).Metadata.ResourceVersion != rv || strings.Contains(string(page.Body), "new") {
			t.Errorf("a page by %q: %s", page.ServedBy(), page.Body)
		}
		names, token = append(names, page.Names(t)...), page.List(t).Metadata.Continue
	}
	if len(names) != pods {
		t.Errorf("pages have %v", names)
	}
	for _, want := range []string{"DELETED", "MODIFIED"} {
		if e := quick.Event(); e.Type != want {
			t.Errorf("a watch got %s, want %s", e.Type, want)
		}
	}
	if got := p.Get(path, cachetest.JSON); len(got.Names(t)) != pods-1 {
		t.Errorf("a list by %q has %v", got.ServedBy(), got.Names(t))
	}
}

// etcd is the one behind c.
func etcd(t *testing.T, c *controlplane.ControlPlane) *clientv3.Client {
	t.Helper()
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{c.EtcdURL()}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// compact makes etcd forget what was before rv.
func compact(t *testing.T, rv string) {
	t.Helper()
	n, err := strconv.ParseInt(rv, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := etcd(t, plane).Compact(t.Context(), n); err != nil {
		t.Fatal(err)
	}
}
