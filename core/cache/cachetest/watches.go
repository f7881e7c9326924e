package cachetest

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
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A Watch is read frame by frame.
type Watch struct {
	t        testing.TB
	Response *http.Response
	r        *bufio.Reader
	proto    bool
	cancel   context.CancelFunc
}

// Watch opens a watch, which ends with the test at the latest.
func (d *Door) Watch(path, accept string) *Watch {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), time.Minute)
	res := d.Open(ctx, http.MethodGet, path, http.Header{"Accept": {accept}}, nil) //nolint:bodyclose // Close does
	w := &Watch{t: d.t, Response: res, r: bufio.NewReader(res.Body), proto: strings.HasPrefix(res.Header.Get("Content-Type"), Protobuf), cancel: cancel}
	d.t.Cleanup(w.Close)
	return w
}

// ServedBy says how the proxy made the answer, nothing if upstream did.
func (w *Watch) ServedBy() string { return w.Response.Header.Get("Portico-Served-By") }

// Close ends the watch.
func (w *Watch) Close() {
	w.cancel()
	_ = w.Response.Body.Close()
}

// Frame returns the next frame, or nil at the end.
func (w *Watch) Frame() []byte {
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

// Frames returns the next n frames.
func (w *Watch) Frames(n int) [][]byte {
	w.t.Helper()
	var out [][]byte
	for range n {
		out = append(out, w.Frame())
	}
	return out
}

// An Event is what tests read of a JSON watch event.
type Event struct {
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

// EndsInitial reports the bookmark behind a watch's initial events.
func (e Event) EndsInitial() bool {
	return e.Type == "BOOKMARK" && e.Object.Metadata.Annotations["k8s.io/initial-events-end"] == "true"
}

// Event returns the next frame of a JSON watch.
func (w *Watch) Event() Event {
	w.t.Helper()
	frame := w.Frame()
	var e Event
	if err := json.Unmarshal(frame, &e); err != nil {
		w.t.Fatalf("%q: %v", frame, err)
	}
	return e
}

// said is an event in short.
func said(e Event) string { return e.Type + " " + e.Object.Metadata.Name }

func watchFramesEqual(t *testing.T, d *Door, p *answerer) {
	d.AddNamespace("watches")
	const path = "/api/v1/namespaces/watches/configmaps"
	for name, accept := range formats {
		t.Run(name, func(t *testing.T) {
			p.warm(t, path, accept)
			start := d.Get(path, JSON).List(t).Metadata.ResourceVersion
			o := func(n string, labels Object) Object {
				return Object{"metadata": Object{"name": name + "-" + n, "labels": labels}, "data": Object{"k": "<&>"}}
			}
			d.Write(http.MethodPost, path, o("a", Object{"app": "web"}))
			d.Write(http.MethodPost, path, o("b", nil))
			d.Patch(path+"/"+name+"-b", `{"metadata":{"labels":{"app":"web"}}}`)
			d.Patch(path+"/"+name+"-a", `{"data":{"x":"y"}}`)
			d.Patch(path+"/"+name+"-a", `{"metadata":{"labels":{"app":"db"}}}`)
			d.Write(http.MethodDelete, path+"/"+name+"-a", nil)
			d.Write(http.MethodDelete, path+"/"+name+"-b", nil)
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
				a, b := d.Watch(path+"?watch=true&"+query, accept), p.Watch(path+"?watch=true&"+query, accept)
				p.checkServedBy(t, query, b.ServedBy())
				if d := cmp.Diff(a.Response.Header.Get("Content-Type"), b.Response.Header.Get("Content-Type")); d != "" {
					t.Error(d)
				}
				want, got := a.Frames(n), b.Frames(n)
				for i := range want {
					if !bytes.Equal(want[i], got[i]) {
						t.Errorf("%s: event %d\ngot  %q\nwant %q", query, i, got[i], want[i])
					}
				}
				a.Close()
				b.Close()
			}
		})
	}
}

func initialEventsEqual(t *testing.T, d *Door, p *answerer) {
	d.AddNamespace("initial")
	for i := range 3 {
		d.Write(http.MethodPost, "/api/v1/namespaces/initial/pods", Pod(fmt.Sprintf("web-%d", i), nil))
	}
	for name, accept := range formats {
		t.Run(name, func(t *testing.T) {
			const path = "/api/v1/namespaces/initial/pods?watch=true&"
			p.warm(t, "/api/v1/pods", accept)
			for query, n := range map[string]int{
				"":                  3,
				"resourceVersion=0": 3,
				"resourceVersion=0&sendInitialEvents=true&resourceVersionMatch=NotOlderThan":                          3,
				"fieldSelector=metadata.name%3Dweb-1":                                                                 1,
				"resourceVersion=0&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true": 4,
				"sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true":                   4,
				"allowWatchBookmarks=true": 4,
			} {
				a, b := d.Watch(path+query, accept), p.Watch(path+query, accept)
				p.checkServedBy(t, query, b.ServedBy())
				want, got := a.Frames(n), b.Frames(n)
				for i := range want {
					if !bytes.Equal(want[i], got[i]) && !bytes.Equal(anyNumber(want[i]), anyNumber(got[i])) {
						t.Errorf("%s: event %d\ngot  %q\nwant %q", query, i, got[i], want[i])
					}
				}
				a.Close()
				b.Close()
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

func oddWatchesEqual(t *testing.T, d *Door, p *answerer) {
	p.warm(t, "/api/v1/pods", JSON)
	for _, query := range []string{
		"resourceVersion=1", "resourceVersion=x", "sendInitialEvents=true", "resourceVersionMatch=NotOlderThan",
		"sendInitialEvents=true&resourceVersionMatch=Exact", "fieldSelector=spec.none%3D1",
	} {
		path := "/api/v1/pods?watch=true&timeoutSeconds=1&" + query
		want, got := d.Get(path, JSON), p.Get(path, JSON)
		if want.Status != got.Status || (want.Status != 200 && !bytes.Equal(want.Body, got.Body)) {
			t.Errorf("%s: %d by %q, want %d\n%.300s\n%.300s", query, got.Status, got.ServedBy(), want.Status, got.Body, want.Body)
		}
	}
}

func futureWatchesWait(t *testing.T, d *Door, p *answerer) {
	d.AddNamespace("future")
	const path = "/api/v1/namespaces/future/configmaps"
	p.warm(t, path, JSON)
	one := d.Write(http.MethodPost, path, Object{"metadata": Object{"name": "one"}})
	var rv int
	_, _ = fmt.Sscan(ResourceVersion(one), &rv)
	w := p.Watch(fmt.Sprintf("%s?watch=true&resourceVersion=%d", path, rv+1), JSON)
	d.Patch(path+"/one", `{"data":{"a":"1"}}`) // rv+1, or later if others write
	d.Patch(path+"/one", `{"data":{"a":"2"}}`)
	last := d.Write(http.MethodDelete, path+"/one", nil)
	_ = last
	for e := w.Event(); e.Type != "DELETED"; e = w.Event() {
		var got int
		if _, _ = fmt.Sscan(e.Object.Metadata.ResourceVersion, &got); got <= rv+1 {
			t.Errorf("event at %d, watch from %d", got, rv+1)
		}
	}
}

func watchesEndCleanly(t *testing.T, _ *Door, p *answerer) {
	p.warm(t, "/api/v1/pods", JSON)
	rv := p.Get("/api/v1/pods?resourceVersion=0", JSON).List(t).Metadata.ResourceVersion
	w := p.Watch("/api/v1/pods?watch=true&timeoutSeconds=3&allowWatchBookmarks=true&resourceVersion="+rv, JSON)
	for {
		frame := w.Frame()
		if len(frame) == 0 {
			return // io.EOF, not an error
		}
		if !strings.Contains(string(frame), "BOOKMARK") {
			t.Errorf("unexpected %s", frame)
		}
	}
}

func watchListsHaveEveryWrite(t *testing.T, d *Door, p *answerer) {
	d.AddNamespace("watchlist")
	const path = "/api/v1/namespaces/watchlist/configmaps"
	p.warm(t, path, JSON)
	for i := range 3 {
		d.Write(http.MethodPost, path, Object{"metadata": Object{"name": fmt.Sprintf("c-%d", i)}})
		w := p.Watch(path+"?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true", JSON)
		var seen []string
		e := w.Event()
		for ; !e.EndsInitial(); e = w.Event() {
			seen = append(seen, said(e))
		}
		if len(seen) != i+1 {
			t.Errorf("round %d: %v", i, seen)
		}
		w.Close()
	}
}
