package lens_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/portico-proxy/portico/core/cache/cachetest"
)

// TestWatchersHaveWhatListsTell changes objects and views at random, and compares all
// that watchers are told with what follows from the API server's own history: what
// they have is at every resourceVersion what a list at it would tell them.
func TestWatchersHaveWhatListsTell(t *testing.T) {
	both(t, func(t *testing.T, h *house, from string) {
		f := newFuzz(t, h, "fuzz-"+from)
		h.warm(t, from, f.path)
		rounds, err := strconv.Atoi(os.Getenv("PORTICO_SOAK"))
		if err != nil {
			rounds = 12_000
		}
		for range rounds / 1000 {
			f.begin()
			for range 8 {
				f.write()
			}
			f.check()
		}
	})
}

// fuzz is a namespace with a history.
type fuzz struct {
	t       *testing.T
	h       *house
	rand    *rand.Rand
	path    string
	start   uint64
	history *cachetest.Watch // past the proxy, from the last of events on
	events  []event
	views   int
	glass   *glass
	readers []*reader
}

// event is one that the API server sent.
type event struct {
	kind string
	key  string
	rv   uint64
	raw  []byte
}

// reader is a client that lists and watches.
type reader struct {
	w     *cachetest.Watch
	start uint64
	has   map[string]string // what it was told, by key
	glass *glass
}

func newFuzz(t *testing.T, h *house, namespace string) *fuzz {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	f := &fuzz{t: t, h: h, rand: rand.New(rand.NewPCG(seed, 0)), path: "/api/v1/namespaces/" + namespace + "/configmaps"}
	direct(t).AddNamespace(namespace)
	f.start = number(t, direct(t).Get(f.path, cachetest.JSON).List(t).Metadata.ResourceVersion)
	f.change()
	return f
}

// change puts another view in force and ends the one before.
func (f *fuzz) change() {
	before := f.glass
	f.views++
	f.glass = newGlass(fmt.Sprint("view-", f.views), fmt.Sprint("hidden-", f.rand.IntN(3)))
	f.h.view.Store(f.glass)
	if before != nil {
		close(before.changed)
	}
}

// begin starts readers, each in its own way.
func (f *fuzz) begin() {
	if f.history != nil {
		f.history.Close() // a test's watches last a minute
	}
	f.history = direct(f.t).Watch(f.path+"?watch=true&resourceVersion="+strconv.FormatUint(f.last(), 10), cachetest.JSON)
	f.readers = nil
	for _, accept := range []string{cachetest.JSON, likeClientGo} {
		r := &reader{has: map[string]string{}, glass: f.glass}
		list := f.h.Get(f.path+[]string{"", "?resourceVersion=0"}[f.rand.IntN(2)], accept)
		rv := list.List(f.t).Metadata.ResourceVersion
		r.start = number(f.t, rv)
		items, _ := decoded(f.t, list.Body)["items"].([]any)
		for _, item := range items {
			o := item.(object)
			r.has[o["metadata"].(object)["name"].(string)] = canonical(f.t, marshal(f.t, o))
		}
		r.w = f.h.Watch(f.path+"?watch=true&timeoutSeconds=600&resourceVersion="+rv, accept)
		f.readers = append(f.readers, r)
	}
}

// write changes something.
func (f *fuzz) write() {
	d := direct(f.t)
	name := fmt.Sprint("o-", f.rand.IntN(5))
	label := fmt.Sprintf(`"hidden-%d":%s`, f.rand.IntN(3), []string{`"1"`, "null"}[f.rand.IntN(2)])
	value := []string{"plain", maskedMark, "more"}[f.rand.IntN(3)] + strconv.Itoa(f.rand.IntN(1000))
	exists := d.Get(f.path+"/"+name, cachetest.JSON).Status == http.StatusOK
	switch {
	case !exists:
		labels := object{}
		if f.rand.IntN(2) == 0 {
			labels[fmt.Sprint("hidden-", f.rand.IntN(3))] = "1"
		}
		f.note(d.Write(http.MethodPost, f.path, object{"metadata": object{"name": name, "labels": labels}, "data": object{"k": value}}))
	case f.rand.IntN(5) == 0:
		d.Write(http.MethodDelete, f.path+"/"+name, nil)
		f.read()
	default:
		f.note(d.Patch(f.path+"/"+name, `{"metadata":{"labels":{`+label+`}},"data":{"k":"`+value+`"}}`))
	}
}

// note reads the event of a write, if it has changed anything.
func (f *fuzz) note(o object) {
	if number(f.t, cachetest.ResourceVersion(o)) > f.last() {
		f.read()
	}
}

func (f *fuzz) read() { f.events = append(f.events, readEvent(f.t, f.history)) }

func readEvent(t *testing.T, w *cachetest.Watch) event {
	t.Helper()
	frame := w.Frame()
	var e struct {
		Type   string
		Object json.RawMessage
	}
	if err := json.Unmarshal(frame, &e); err != nil {
		t.Fatalf("%q: %v", frame, err)
	}
	if e.Type == "ERROR" {
		return event{kind: e.Type, raw: e.Object}
	}
	metadata := decoded(t, e.Object)["metadata"].(object)
	return event{e.Type, metadata["name"].(string), number(t, metadata["resourceVersion"].(string)), e.Object}
}

// check compares what readers are told with what follows from the history.
func (f *fuzz) check() {
	f.t.Helper()
	for _, r := range f.readers {
		for _, want := range f.follow(r) {
			got := readEvent(f.t, r.w)
			if got.kind != want.kind || got.key != want.key || got.rv != want.rv || !equal(f.t, got.raw, want.raw) {
				f.t.Fatalf("by %s from %d: got %s %s, want %s %s", r.w.ServedBy(), r.start, got.kind, got.raw, want.kind, want.raw)
			}
			r.has[got.key] = canonical(f.t, got.raw)
			if got.kind == "DELETED" {
				delete(r.has, got.key)
			}
		}
		f.compare(r)
	}
	if f.rand.IntN(2) == 0 {
		f.change()
		for _, r := range f.readers {
			if e := readEvent(f.t, r.w); e.kind != "ERROR" || !bytes.Contains(e.raw, []byte(`"code":410`)) {
				f.t.Fatalf("by %s: the view has changed, and what came is %s %s", r.w.ServedBy(), e.kind, e.raw)
			}
		}
	}
	for _, r := range f.readers {
		r.w.Close()
	}
}

// compare lists at the resourceVersion that r has come to.
func (f *fuzz) compare(r *reader) {
	f.t.Helper()
	want := map[string]string{}
	for key, raw := range f.at(f.last()) {
		if s := r.glass.through(f.t, raw); s != nil {
			want[key] = canonical(f.t, s)
		}
	}
	if diff := cmp.Diff(want, r.has); diff != "" {
		f.t.Fatalf("by %s: %s", r.w.ServedBy(), diff)
	}
	list := f.h.Get(f.path+"?resourceVersionMatch=Exact&resourceVersion="+strconv.FormatUint(f.last(), 10), cachetest.JSON)
	got := map[string]string{}
	for _, item := range decoded(f.t, list.Body)["items"].([]any) {
		got[item.(object)["metadata"].(object)["name"].(string)] = canonical(f.t, marshal(f.t, item))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		f.t.Fatalf("listed by %s: %s", list.ServedBy(), diff)
	}
}

func (f *fuzz) last() uint64 {
	if len(f.events) == 0 {
		return f.start
	}
	return f.events[len(f.events)-1].rv
}

// at is the objects at rv.
func (f *fuzz) at(rv uint64) map[string][]byte {
	objects := map[string][]byte{}
	for _, e := range f.events {
		if e.rv > rv {
			break
		}
		objects[e.key] = e.raw
		if e.kind == "DELETED" {
			delete(objects, e.key)
		}
	}
	return objects
}

// follow is what r is to be told.
func (f *fuzz) follow(r *reader) (want []event) {
	now := f.at(r.start)
	for _, e := range f.events {
		if e.rv <= r.start {
			continue
		}
		before := r.glass.through(f.t, now[e.key])
		var after []byte
		if now[e.key] = e.raw; e.kind == "DELETED" {
			delete(now, e.key)
		} else {
			after = r.glass.through(f.t, e.raw)
		}
		switch {
		case after != nil && before != nil:
			want = append(want, event{"MODIFIED", e.key, e.rv, after})
		case after != nil:
			want = append(want, event{"ADDED", e.key, e.rv, after})
		case before != nil:
			o := decoded(f.t, before)
			o["metadata"].(object)["resourceVersion"] = strconv.FormatUint(e.rv, 10)
			want = append(want, event{"DELETED", e.key, e.rv, marshal(f.t, o)})
		}
	}
	return want
}

// through is what of raw exists behind the glass.
func (g *glass) through(t *testing.T, raw []byte) []byte {
	if raw == nil {
		return nil
	}
	labels, _ := decoded(t, raw)["metadata"].(object)["labels"].(object)
	if _, hidden := labels[g.hidden]; hidden {
		return nil
	}
	return bytes.ReplaceAll(raw, []byte(maskedMark), []byte("xxxxxx"))
}

// canonical is raw without its kind, which lists leave out, in one order.
func canonical(t *testing.T, raw []byte) string {
	o := decoded(t, raw)
	delete(o, "kind")
	delete(o, "apiVersion")
	return string(marshal(t, o))
}

func equal(t *testing.T, a, b []byte) bool { return canonical(t, a) == canonical(t, b) }

func number(t *testing.T, rv string) uint64 {
	n, err := strconv.ParseUint(rv, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func marshal(t *testing.T, v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
