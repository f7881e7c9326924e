package cache_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"testing"

	"github.com/portico-proxy/portico/core/cache/cachetest"
)

// truth is what happened to a collection, as the API server tells it.
type truth struct {
	t      testing.TB
	d      *cachetest.Door
	path   string
	events []event // once done is closed
	done   chan struct{}
}

// event is one change of one key.
type event struct {
	rv         uint64
	kind       string
	key, value string
}

// snapshot is what a list showed.
type snapshot struct {
	rv        uint64
	notBefore uint64 // it asked for
	values    map[string]string
}

// version is what a GET showed of one key; rv 0 is nothing.
type version struct {
	key, value string
	rv         uint64
	notBefore  uint64
}

// stream is what a watch showed.
type stream struct {
	since  uint64
	events []event
}

const endKey = "end"

// follow begins to learn the truth.
func follow(t testing.TB, d *cachetest.Door, path string) *truth {
	t.Helper()
	f := &truth{t: t, d: d, path: path, done: make(chan struct{})}
	rv := d.Get(path+"?limit=1", cachetest.JSON).List(t).Metadata.ResourceVersion
	res := d.Open(t.Context(), http.MethodGet, path+"?watch=true&resourceVersion="+rv, http.Header{"Accept": {cachetest.JSON}}, nil)
	go func() {
		defer close(f.done)
		defer func() { _ = res.Body.Close() }()
		for in := json.NewDecoder(res.Body); ; {
			var e struct {
				Type   string `json:"type"`
				Object answer `json:"object"`
			}
			if err := in.Decode(&e); err != nil {
				t.Errorf("the truth: %v", err)
				return
			}
			if e.Object.Metadata.Name == endKey {
				return
			}
			f.events = append(f.events, event{e.Object.rv(), e.Type, e.Object.Metadata.Name, e.Object.Data["v"]})
		}
	}()
	return f
}

// end waits until everything is known that has happened.
func (f *truth) end() {
	f.t.Helper()
	f.d.Write(http.MethodPost, f.path, object{"metadata": object{"name": endKey}})
	<-f.done
}

// untrue says which of the things that were seen have never been so.
func (h *history) untrue() []string {
	return slices.Concat(h.untrueSnapshots(), h.untrueVersions(), h.untrueStreams())
}

func (h *history) untrueSnapshots() (wrong []string) {
	slices.SortFunc(h.snapshots, func(a, b snapshot) int { return cmp.Compare(a.rv, b.rv) })
	state, left := map[string]string{}, h.truth.events
	for _, s := range h.snapshots {
		for len(left) > 0 && left[0].rv <= s.rv {
			if state[left[0].key] = left[0].value; left[0].kind == "DELETED" {
				delete(state, left[0].key)
			}
			left = left[1:]
		}
		if s.rv < s.notBefore || !maps.Equal(state, s.values) {
			wrong = append(wrong, fmt.Sprintf("a list showed %+v, but there was %v", s, state))
		}
	}
	return wrong
}

// untrueVersions looks for versions that were never there, or no longer at the
// time that was asked for.
func (h *history) untrueVersions() (wrong []string) {
	byKey := map[string][]event{}
	for _, e := range h.truth.events {
		byKey[e.key] = append(byKey[e.key], e)
	}
	for _, v := range h.versions {
		if !v.isAmong(byKey[v.key]) {
			wrong = append(wrong, fmt.Sprintf("a get showed %+v", v))
		}
	}
	return wrong
}

// isAmong reports whether v was what its key was like, at or after notBefore.
func (v version) isAmong(events []event) bool {
	// Before everything there is nothing.
	events = slices.Concat([]event{{kind: "DELETED"}}, events)
	for i, e := range events {
		if i+1 < len(events) && events[i+1].rv <= v.notBefore {
			continue // it was over by then
		}
		if gone := e.kind == "DELETED"; gone == (v.rv == 0) && (gone || e.rv == v.rv && e.value == v.value) {
			return true
		}
	}
	return false
}

// untrueStreams looks for events that are not those that followed.
func (h *history) untrueStreams() (wrong []string) {
	for _, s := range h.streams {
		from, _ := slices.BinarySearchFunc(h.truth.events, s.since+1, func(e event, rv uint64) int { return cmp.Compare(e.rv, rv) })
		want := h.truth.events[from:]
		if len(s.events) > len(want) || !slices.Equal(s.events, want[:len(s.events)]) {
			wrong = append(wrong, fmt.Sprintf("a watch from %d showed %v, but there was %v", s.since, s.events, want[:min(len(want), len(s.events)+3)]))
		}
	}
	return wrong
}
