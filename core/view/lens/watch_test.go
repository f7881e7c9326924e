package lens_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/portico-proxy/portico/core/cache/cachetest"
)

// told is what a test compares of an event.
type told struct{ Type, Name, K, RV string }

// tell reads the next event that is no bookmark.
func tell(t *testing.T, w *cachetest.Watch) told {
	t.Helper()
	for {
		frame := w.Frame()
		if frame == nil {
			t.Fatal("the watch has ended")
		}
		var e struct {
			Type   string
			Object json.RawMessage
		}
		if err := json.Unmarshal(frame, &e); err != nil {
			t.Fatalf("%q: %v", frame, err)
		}
		if e.Type == "BOOKMARK" {
			continue
		}
		o := decoded(t, e.Object)
		var cells []any
		version := ""
		if rows, ok := o["rows"].([]any); ok {
			version, _ = o["metadata"].(object)["resourceVersion"].(string)
			cells = rows[0].(object)["cells"].([]any)
			o, _ = rows[0].(object)["object"].(object)
		}
		got := told{Type: e.Type}
		if m, ok := o["metadata"].(object); ok {
			got.Name, _ = m["name"].(string)
			got.RV, _ = m["resourceVersion"].(string)
		}
		if cells != nil {
			got.Name = cells[0].(string)
			if got.RV != "" && version != "" && got.RV != version {
				t.Errorf("a table of %s has an object of %s", version, got.RV)
			}
			got.RV = version
		}
		if data, ok := o["data"].(object); ok {
			got.K, _ = data["k"].(string)
		}
		return got
	}
}

// live does to objects what a watcher must be told of in other words.
func live(t *testing.T, path string) []told {
	t.Helper()
	d := direct(t)
	rv := cachetest.ResourceVersion
	var want []told
	o := d.Write(http.MethodPost, path, object{"metadata": object{"name": "m-open"}, "data": object{"k": "1"}})
	want = append(want, told{"ADDED", "m-open", "1", rv(o)})
	// Nobody is told of what does not exist.
	d.Write(http.MethodPost, path, object{"metadata": object{"name": "n-" + hiddenMark, "labels": object{"hidden": "1"}}, "data": object{"k": hiddenMark}})
	d.Patch(path+"/n-"+hiddenMark, `{"data":{"k":"`+hiddenMark+`-2"}}`)
	d.Write(http.MethodDelete, path+"/n-"+hiddenMark, nil)
	o = d.Patch(path+"/m-open", `{"data":{"k":"`+maskedMark+`"}}`)
	want = append(want, told{"MODIFIED", "m-open", "xxxxxx", rv(o)})
	// What ceases to exist is told as it was.
	o = d.Patch(path+"/m-open", `{"metadata":{"labels":{"hidden":"1"}},"data":{"k":"`+hiddenMark+`"}}`)
	want = append(want, told{"DELETED", "m-open", "xxxxxx", rv(o)})
	d.Patch(path+"/m-open", `{"data":{"k":"`+hiddenMark+`-3"}}`)
	o = d.Patch(path+"/m-open", `{"metadata":{"labels":{"hidden":null}},"data":{"k":"4"}}`)
	want = append(want, told{"ADDED", "m-open", "4", rv(o)})
	// What existed when the watch began.
	o = d.Patch(path+"/a-open", `{"data":{"k":"5"}}`)
	want = append(want, told{"MODIFIED", "a-open", "5", rv(o)})
	o = d.Patch(path+"/c-masked", `{"metadata":{"labels":{"hidden":"1"}}}`)
	want = append(want, told{"DELETED", "c-masked", "xxxxxx", rv(o)})
	d.Write(http.MethodDelete, path+"/c-masked", nil)
	o = d.Patch(path+"/b-"+hiddenMark, `{"metadata":{"labels":{"hidden":null},"annotations":{"k":"`+maskedMark+`"}},"data":{"k":"6"}}`)
	d.Patch(path+"/b-"+hiddenMark, `{"metadata":{"labels":{"hidden":"1"}}}`)
	d.Write(http.MethodDelete, path+"/m-open", nil)
	d.Write(http.MethodDelete, path+"/e-open", nil)
	_ = o
	return want
}

func TestWatchersAreToldOfWhatExists(t *testing.T) {
	both(t, func(t *testing.T, h *house, from string) {
		path := fill(t, "watches-"+from)
		h.warm(t, from, path)
		start := direct(t).Get(path, cachetest.JSON).List(t).Metadata.ResourceVersion
		initial := []told{{Type: "ADDED", Name: "a-open", K: "v"}, {Type: "ADDED", Name: "c-masked", K: "xxxxxx"}, {Type: "ADDED", Name: "e-open"}}
		type one struct {
			w       *cachetest.Watch
			query   string
			initial []told
		}
		var watches []one
		const stream = "?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
		for _, accept := range []string{cachetest.JSON, partialOne, table, likeClientGo} {
			for query, before := range map[string][]told{
				"?watch=true&resourceVersion=" + start: nil, "?watch=true": initial, "?watch=true&resourceVersion=0": initial, stream: initial,
				"?watch=true&sendInitialEvents=false&resourceVersionMatch=NotOlderThan": nil,
			} {
				watches = append(watches, one{h.Watch(path+query, accept), query + " as " + accept, before})
			}
			old := h.Watch(path+"?watch=true&resourceVersion="+start, accept)
			watches = append(watches, one{old, "again as " + accept, nil})
		}
		want := live(t, path)
		for _, one := range watches {
			for i, event := range append(slices.Clip(one.initial), want...) {
				got := tell(t, one.w)
				if event.RV == "" {
					got.RV = ""
				}
				if got.K == "" {
					event.K = ""
				}
				if diff := cmp.Diff(event, got); diff != "" {
					t.Errorf("%s by %s: event %d: %s", one.query, one.w.ServedBy(), i, diff)
				}
			}
		}
		h.wire.mu.Lock()
		defer h.wire.mu.Unlock()
		h.wire.sent.Reset() // what follows did exist for a moment, under its telling name
	})
}

func TestWatchesEndWhenTheViewChanges(t *testing.T) {
	both(t, func(t *testing.T, h *house, from string) {
		path := fill(t, "changes-"+from)
		h.warm(t, from, path)
		g := h.view.Load()
		start := direct(t).Get(path, cachetest.JSON).List(t).Metadata.ResourceVersion
		watches := []*cachetest.Watch{h.Watch(path+"?watch=true&resourceVersion="+start, cachetest.JSON), h.Watch(path+"?watch=true", table)}
		for range 3 {
			watches[1].Frame()
		}
		close(g.changed)
		for _, w := range watches {
			if e := w.Event(); e.Type != "ERROR" || e.Object.Code != http.StatusGone {
				t.Errorf("by %s: got %+v", w.ServedBy(), e)
			}
			if rest := w.Frame(); len(rest) > 0 {
				t.Errorf("after the end: %s", rest)
			}
		}
	})
}

func TestViewsThatCannotTellHideNothing(t *testing.T) {
	both(t, func(t *testing.T, h *house, from string) {
		path := fill(t, "broken-"+from)
		h.warm(t, from, path)
		g := newGlass("another", "hidden")
		h.view.Store(g)
		start := direct(t).Get(path, cachetest.JSON).List(t).Metadata.ResourceVersion
		w := h.Watch(path+"?watch=true&resourceVersion="+start, cachetest.JSON)
		g.broken.Store(true)
		direct(t).Patch(path+"/a-open", `{"data":{"k":"2"}}`)
		if e := w.Event(); e.Type != "ERROR" || e.Object.Code != http.StatusInternalServerError {
			t.Errorf("by %s: got %+v", w.ServedBy(), e)
		}
		if rest := w.Frame(); len(rest) > 0 {
			t.Errorf("after the end: %s", rest)
		}
		for _, query := range []string{"", "?resourceVersion=0", "/a-open", "/a-open?resourceVersion=0", "?watch=true&resourceVersion=0"} {
			got := h.Get(path+query, cachetest.JSON)
			if o := decoded(t, got.Body); got.Status != http.StatusInternalServerError && o["type"] != "ERROR" {
				t.Errorf("%s: got %d %s", query, got.Status, got.Body)
			}
		}
	})
}

func TestCallersThatTakeNoJSONAreRefused(t *testing.T) {
	both(t, func(t *testing.T, h *house, from string) {
		path := fill(t, "accepts-"+from)
		for _, accept := range []string{cachetest.Protobuf, "application/yaml", "application/cbor, application/yaml"} {
			for _, query := range []string{"", "/a-open", "?watch=true"} {
				if got := h.Get(path+query, accept); got.Status != http.StatusNotAcceptable {
					t.Errorf("%s as %s: got %d %s", query, accept, got.Status, got.Body)
				}
			}
		}
	})
}
