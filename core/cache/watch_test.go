package cache_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// watcher reads a watch frame by frame.
type watcher struct {
	t      testing.TB
	res    *http.Response
	r      *bufio.Reader
	proto  bool
	cancel context.CancelFunc
}

// watch opens a watch, which ends with the test at the latest.
func (d *door) watch(path, accept string) *watcher {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	res := d.open(ctx, http.MethodGet, path, accept, nil)
	w := &watcher{t: d.t, res: res, r: bufio.NewReader(res.Body), proto: accept == protoType, cancel: cancel}
	d.t.Cleanup(w.close)
	return w
}

func (w *watcher) close() {
	w.cancel()
	_ = w.res.Body.Close()
}

// frame returns the next frame, or nil at the end.
func (w *watcher) frame() []byte {
	w.t.Helper()
	if !w.proto {
		line, err := w.r.ReadBytes('\n')
		if err != nil && (err != io.EOF || len(line) > 0) {
			w.t.Fatalf("after %q: %v", line, err)
		}
		return line
	}
	prefix := make([]byte, 4)
	if _, err := io.ReadFull(w.r, prefix); err == io.EOF {
		return nil
	} else if err != nil {
		w.t.Fatal(err)
	}
	b := make([]byte, binary.BigEndian.Uint32(prefix))
	if _, err := io.ReadFull(w.r, b); err != nil {
		w.t.Fatal(err)
	}
	return append(prefix, b...)
}

// frames returns the next n frames.
func (w *watcher) frames(n int) [][]byte {
	w.t.Helper()
	var out [][]byte
	for range n {
		out = append(out, w.frame())
	}
	return out
}

type event struct {
	Type   string `json:"type"`
	Object struct {
		Metadata struct {
			Name            string            `json:"name"`
			ResourceVersion string            `json:"resourceVersion"`
			Annotations     map[string]string `json:"annotations"`
		} `json:"metadata"`
		Code int `json:"code"`
	} `json:"object"`
}

func (e event) endsInitial() bool {
	return e.Type == "BOOKMARK" && e.Object.Metadata.Annotations["k8s.io/initial-events-end"] == "true"
}

func (w *watcher) event() event {
	w.t.Helper()
	frame := w.frame()
	var e event
	if err := json.Unmarshal(frame, &e); err != nil {
		w.t.Fatalf("%q: %v", frame, err)
	}
	return e
}

// said is an event in short.
func said(e event) string { return e.Type + " " + e.Object.Metadata.Name }

func TestWatchFramesEqualUpstreams(t *testing.T) {
	d := direct(t)
	namespace(t, d, "watches")
	p := newProxy(t, nothingRefused)
	const path = "/api/v1/namespaces/watches/configmaps"
	for name, accept := range formats {
		t.Run(name, func(t *testing.T) {
			p.warm(path, accept)
			start := listOf(t, d.get(path, jsonType)).Metadata.ResourceVersion
			o := func(n string, labels object) object {
				return object{"metadata": object{"name": name + "-" + n, "labels": labels}, "data": object{"k": "<&>"}}
			}
			d.write(http.MethodPost, path, o("a", object{"app": "web"}))
			d.write(http.MethodPost, path, o("b", nil))
			d.patch(path+"/"+name+"-b", `{"metadata":{"labels":{"app":"web"}}}`)
			d.patch(path+"/"+name+"-a", `{"data":{"x":"y"}}`)
			d.patch(path+"/"+name+"-a", `{"metadata":{"labels":{"app":"db"}}}`)
			d.write(http.MethodDelete, path+"/"+name+"-a", nil)
			d.write(http.MethodDelete, path+"/"+name+"-b", nil)
			last := "resourceVersion=" + start
			for query, n := range map[string]int{
				last:                               7,
				last + "&labelSelector=app%3Dweb":  5,
				last + "&labelSelector=app!%3Dweb": 4,
				last + "&fieldSelector=metadata.name%3D" + name + "-a":    4,
				last + "&fieldSelector=metadata.namespace%3Dwatches":      7,
				last + "&timeoutSeconds=5&allowWatchBookmarks=true":       7,
				last + "&labelSelector=" + url.QueryEscape("app in (db)"): 2,
			} {
				a, b := d.watch(path+"?watch=true&"+query, accept), p.watch(path+"?watch=true&"+query, accept)
				if from := b.res.Header.Get("Portico-Served-By"); from != "cache" {
					t.Errorf("%s was served by %q", query, from)
				}
				if d := cmp.Diff(a.res.Header.Get("Content-Type"), b.res.Header.Get("Content-Type")); d != "" {
					t.Error(d)
				}
				want, got := a.frames(n), b.frames(n)
				for i := range want {
					if !bytes.Equal(want[i], got[i]) {
						t.Errorf("%s: event %d\ngot  %q\nwant %q", query, i, got[i], want[i])
					}
				}
				a.close()
				b.close()
			}
		})
	}
}

func TestInitialEventsEqualUpstreams(t *testing.T) {
	d := direct(t)
	namespace(t, d, "initial")
	for i := range 3 {
		d.write(http.MethodPost, "/api/v1/namespaces/initial/pods", pod(fmt.Sprintf("web-%d", i), nil))
	}
	p := newProxy(t, nil)
	for name, accept := range formats {
		t.Run(name, func(t *testing.T) {
			const path = "/api/v1/namespaces/initial/pods?watch=true&"
			p.warm("/api/v1/pods", accept)
			for query, n := range map[string]int{
				"":                  3,
				"resourceVersion=0": 3,
				"resourceVersion=0&sendInitialEvents=true&resourceVersionMatch=NotOlderThan":                          3,
				"fieldSelector=metadata.name%3Dweb-1":                                                                 1,
				"resourceVersion=0&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true": 4,
				"sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true":                   4,
				"allowWatchBookmarks=true": 4,
			} {
				a, b := d.watch(path+query, accept), p.watch(path+query, accept)
				if from := b.res.Header.Get("Portico-Served-By"); from != "cache" {
					t.Errorf("%s was served by %q", query, from)
				}
				want, got := a.frames(n), b.frames(n)
				for i := range want {
					if !bytes.Equal(want[i], got[i]) && !bytes.Equal(anyNumber(want[i]), anyNumber(got[i])) {
						t.Errorf("%s: event %d\ngot  %q\nwant %q", query, i, got[i], want[i])
					}
				}
				a.close()
				b.close()
			}
		})
	}
}

// anyNumber makes bookmarks of different resourceVersions equal.
func anyNumber(b []byte) []byte {
	if !bytes.Contains(b, []byte("BOOKMARK")) {
		return b
	}
	return bytes.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return -1
		}
		return r
	}, b[4:])
}

func TestWatchesThatUpstreamMustAnswer(t *testing.T) {
	d, p := direct(t), newProxy(t, nil)
	p.warm("/api/v1/pods", jsonType)
	for _, query := range []string{
		"resourceVersion=1", "resourceVersion=x", "sendInitialEvents=true", "resourceVersionMatch=NotOlderThan",
		"sendInitialEvents=true&resourceVersionMatch=Exact", "fieldSelector=spec.none%3D1",
	} {
		path := "/api/v1/pods?watch=true&timeoutSeconds=1&" + query
		want, got := d.get(path, jsonType), p.get(path, jsonType)
		if want.status != got.status || got.servedBy() != "" || (want.status != 200 && !bytes.Equal(want.body, got.body)) {
			t.Errorf("%s: %d by %q, want %d\n%.300s\n%.300s", query, got.status, got.servedBy(), want.status, got.body, want.body)
		}
	}
}

func TestFutureWatchesWaitInSilence(t *testing.T) {
	d := direct(t)
	namespace(t, d, "future")
	p := newProxy(t, nothingRefused)
	const path = "/api/v1/namespaces/future/configmaps"
	p.warm(path, jsonType)
	one := d.write(http.MethodPost, path, object{"metadata": object{"name": "one"}})
	var rv int
	_, _ = fmt.Sscan(rvOf(one), &rv)
	w := p.watch(fmt.Sprintf("%s?watch=true&resourceVersion=%d", path, rv+1), jsonType)
	d.patch(path+"/one", `{"data":{"a":"1"}}`) // rv+1, or later if others write
	d.patch(path+"/one", `{"data":{"a":"2"}}`)
	last := d.write(http.MethodDelete, path+"/one", nil)
	_ = last
	for e := w.event(); e.Type != "DELETED"; e = w.event() {
		var got int
		if _, _ = fmt.Sscan(e.Object.Metadata.ResourceVersion, &got); got <= rv+1 {
			t.Errorf("event at %d, watch from %d", got, rv+1)
		}
	}
}

func TestWatchEndsCleanlyInTime(t *testing.T) {
	p := newProxy(t, nil)
	p.warm("/api/v1/pods", jsonType)
	rv := listOf(t, p.get("/api/v1/pods?resourceVersion=0", jsonType)).Metadata.ResourceVersion
	w := p.watch("/api/v1/pods?watch=true&timeoutSeconds=3&allowWatchBookmarks=true&resourceVersion="+rv, jsonType)
	for {
		frame := w.frame()
		if len(frame) == 0 {
			return // io.EOF, not an error
		}
		if !strings.Contains(string(frame), "BOOKMARK") {
			t.Errorf("unexpected %s", frame)
		}
	}
}

func TestWatchListHasEveryWriteBeforeItsEnd(t *testing.T) {
	d := direct(t)
	namespace(t, d, "watchlist")
	p := newProxy(t, nothingRefused)
	const path = "/api/v1/namespaces/watchlist/configmaps"
	p.warm(path, jsonType)
	for i := range 3 {
		d.write(http.MethodPost, path, object{"metadata": object{"name": fmt.Sprintf("c-%d", i)}})
		w := p.watch(path+"?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true", jsonType)
		var seen []string
		e := w.event()
		for ; !e.endsInitial(); e = w.event() {
			seen = append(seen, said(e))
		}
		if len(seen) != i+1 {
			t.Errorf("round %d: %v", i, seen)
		}
		w.close()
	}
}

func TestQuietCollectionsAreProvenCurrent(t *testing.T) {
	d := direct(t)
	namespace(t, d, "quiet")
	p := newProxy(t, nothingRefused)
	const path = "/api/v1/namespaces/quiet/configmaps"
	for i := range 60 {
		d.write(http.MethodPost, path, object{"metadata": object{"name": fmt.Sprintf("c-%02d", i)}, "data": object{"k": strings.Repeat("x", 8<<10)}})
	}
	p.warm(path, jsonType)
	// Something else moves the revision on.
	namespace(t, d, "quiet-b")
	before := p.passed.Load()
	got := p.get(path, jsonType)
	if got.servedBy() != "cache" || len(itemNames(t, got)) != 60 || p.passed.Load() != before {
		t.Errorf("served by %q, %d items", got.servedBy(), len(itemNames(t, got)))
	}
	rv := listOf(t, got).Metadata.ResourceVersion
	want := d.get(path+"?resourceVersionMatch=Exact&resourceVersion="+rv, jsonType)
	if !bytes.Equal(want.body, got.body) {
		t.Errorf("differs from upstream at %s", rv)
	}
}

func TestStormsCostUpstreamLittle(t *testing.T) {
	d := direct(t)
	namespace(t, d, "storm")
	p := newProxy(t, nothingRefused)
	const path = "/api/v1/namespaces/storm/configmaps"
	d.write(http.MethodPost, path, object{"metadata": object{"name": "c"}, "data": object{"k": strings.Repeat("x", 300<<10)}})
	p.warm(path, jsonType)
	before := p.upstream.requests.Load()
	const clients = 200
	done := make(chan string, clients)
	gate := make(chan struct{})
	p.upstream.gate.Store(&gate)
	for range clients {
		go func() { done <- p.get(path, jsonType).servedBy() }()
	}
	for p.cache.Streams()[0].Asking < clients {
		runtime.Gosched()
	}
	close(gate)
	for range clients {
		if from := <-done; from != "cache" {
			t.Errorf("served by %q", from)
		}
	}
	if n := p.upstream.requests.Load() - before; n > 3 {
		t.Errorf("%d clients cost upstream %d requests", clients, n)
	}
}
