package cache_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/portico-proxy/portico/core/cache/cachetest"
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

func TestIdleWatchersAllHear(t *testing.T) {
	d := direct(t)
	d.AddNamespace("crowd")
	p := newProxy(t, nothingRefused)
	const path, watchers, connections = "/api/v1/namespaces/crowd/configmaps", 600, 4
	p.warm(path, cachetest.JSON)
	rv := d.Get(path, cachetest.JSON).List(t).Metadata.ResourceVersion
	var crowd []*cachetest.Watch
	for range connections {
		door := cachetest.NewDoor(t, p.config)
		for range watchers / connections {
			crowd = append(crowd, door.Watch(path+"?watch=true&resourceVersion="+rv, cachetest.JSON))
		}
	}
	before := p.upstream.requests.Load()
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
