package cache_test

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/portico-proxy/portico/core/cache/cachetest"
)

// history is what clients did with the ConfigMaps of one namespace, and saw.
type history struct {
	t         testing.TB
	namespace string
	path      string
	keys      []string
	truth     *truth
	requests  atomic.Int64

	mu        sync.Mutex // guards following
	ops       []porcupine.Operation
	snapshots []snapshot
	versions  []version
	streams   []stream
}

// runs keeps the namespaces of repeated tests apart.
var runs atomic.Int64

// newHistory begins one with a collection that is too large to be fetched again
// each time that it is read, or small.
func newHistory(t *testing.T, p *proxy, large bool) *history {
	t.Helper()
	namespace, d := fmt.Sprintf("linear-%d", runs.Add(1)), direct(t)
	d.AddNamespace(namespace)
	h := &history{t: t, namespace: namespace, path: "/api/v1/namespaces/" + namespace + "/configmaps", keys: strings.Split("abcdefghijkl", "")}
	size := 1
	if large {
		size = 300 << 10
	}
	d.Write(http.MethodPost, h.path, object{"metadata": object{"name": "filler"}, "data": object{"k": strings.Repeat("x", size)}})
	p.warm(h.path, cachetest.JSON)
	h.truth = follow(t, d, h.path)
	return h
}

// run lets clients write through writers and read through reader.
func (h *history) run(l load, reader opener, writers []opener) {
	h.t.Helper()
	var wg sync.WaitGroup
	for id := range l.clients {
		c := &client{history: h, id: id, r: rand.New(rand.NewPCG(uint64(id), uint64(runs.Load()))), reader: reader(h.t)}
		for _, w := range writers {
			c.writers = append(c.writers, w(h.t))
		}
		wg.Go(func() {
			for range l.each {
				c.act()
			}
		})
	}
	wg.Wait()
	h.truth.end()
}

// client does one thing after another.
type client struct {
	*history
	id      int
	r       *rand.Rand
	reader  *cachetest.Door
	writers []*cachetest.Door
	written int
	latest  uint64 // resourceVersion that it knows of
}

func (c *client) act() {
	acts := []func(){
		c.post, c.post, c.put, c.put, c.patch, c.apply, c.remove, c.remove,
		c.get, c.get, c.list, c.list, c.listPages, c.listWatching,
		c.getOld, c.listOld, c.listOld, c.listAt, c.watch,
	}
	acts[c.r.IntN(len(acts))]()
}

func (c *client) key() string { return c.keys[c.r.IntN(len(c.keys))] }

// configMap is one of the keys.
func (c *client) configMap(key string) (value, body string) {
	c.written++
	value = fmt.Sprintf("%d-%d", c.id, c.written)
	return value, fmt.Sprintf(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":%q,"labels":{"key":"true"}},"data":{"v":%q}}`, key, value)
}

func (c *client) post() {
	key := c.key()
	value, body := c.configMap(key)
	c.write(cachetest.Operation{Key: key, Kind: cachetest.Create, Value: value}, http.MethodPost, c.path, cachetest.JSON, body)
}

func (c *client) put() {
	key := c.key()
	value, body := c.configMap(key)
	c.write(cachetest.Operation{Key: key, Kind: cachetest.Change, Value: value}, http.MethodPut, c.path+"/"+key, cachetest.JSON, body)
}

func (c *client) patch() {
	key := c.key()
	value, body := c.configMap(key)
	c.write(cachetest.Operation{Key: key, Kind: cachetest.Change, Value: value}, http.MethodPatch, c.path+"/"+key, "application/merge-patch+json", body)
}

func (c *client) apply() {
	key := c.key()
	value, body := c.configMap(key)
	c.write(cachetest.Operation{Key: key, Kind: cachetest.Put, Value: value}, http.MethodPatch, c.path+"/"+key+"?fieldManager=test&force=true", "application/apply-patch+yaml", body)
}

func (c *client) remove() {
	key := c.key()
	c.write(cachetest.Operation{Key: key, Kind: cachetest.Remove}, http.MethodDelete, c.path+"/"+key, "", "")
}

// answer is an object, a list, a Status or a watch event's object.
type answer struct {
	Metadata struct {
		Name            string `json:"name"`
		ResourceVersion string `json:"resourceVersion"`
		Continue        string `json:"continue"`
	} `json:"metadata"`
	Data  map[string]string `json:"data"`
	Items []answer          `json:"items"`
	// Reason is a Status's.
	Reason string `json:"reason"`
}

func (a *answer) rv() uint64 {
	rv, _ := strconv.ParseUint(a.Metadata.ResourceVersion, 10, 64)
	return rv
}

// do sends a request. It returns the time of its beginning as well.
func (c *client) do(d *cachetest.Door, method, path, contentType, body string) (a answer, code int, start int64) {
	c.requests.Add(1)
	start = time.Now().UnixNano()
	res := d.Open(c.t.Context(), method, path, http.Header{"Accept": {cachetest.JSON}, "Content-Type": {contentType}}, []byte(body))
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err == nil {
		err = json.Unmarshal(b, &a)
	}
	if err != nil {
		c.t.Errorf("%s %s: %d %v", method, path, res.StatusCode, err)
	}
	return a, res.StatusCode, start
}

func (c *client) write(o cachetest.Operation, method, path, contentType, body string) {
	a, code, start := c.do(c.writers[c.r.IntN(len(c.writers))], method, path, contentType, body)
	outcome := cachetest.Done
	switch {
	case code == http.StatusNotFound, a.Reason == "AlreadyExists":
		outcome = cachetest.Refused
	case code == http.StatusConflict:
		outcome = cachetest.Conflict
	case code >= http.StatusMultipleChoices:
		c.t.Errorf("%s %s: %d %s", method, path, code, a.Reason)
		return
	}
	c.latest = max(c.latest, a.rv())
	c.record(start, o, outcome)
}

func (c *client) record(start int64, o cachetest.Operation, outcome string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ops = append(c.ops, porcupine.Operation{ClientId: c.id, Input: o, Output: outcome, Call: start, Return: time.Now().UnixNano()})
}

// read fetches path and expects it to be there, but for absent objects.
func (c *client) read(path string) (answer, int64, bool) {
	a, code, start := c.do(c.reader, http.MethodGet, path, "", "")
	ok := code == http.StatusOK || code == http.StatusNotFound
	if !ok {
		c.t.Errorf("%s: %d %s", path, code, a.Reason)
	}
	return a, start, ok
}

func (c *client) get() {
	key := c.key()
	if a, start, ok := c.read(c.path + "/" + key); ok {
		c.record(start, cachetest.Operation{Key: key}, a.Data["v"])
	}
}

// lists are ways to ask for all keys: as a part of the collection or of the whole.
func (c *client) lists() string {
	return []string{
		c.path + "?labelSelector=key",
		c.path + "?labelSelector=key%3Dtrue&limit=500",
		c.path + "?fieldSelector=metadata.name%21%3Dfiller",
		"/api/v1/configmaps?labelSelector=key&fieldSelector=metadata.namespace%3D" + c.namespace,
	}[c.r.IntN(4)]
}

func (c *client) list() {
	if a, start, ok := c.read(c.lists()); ok {
		c.saw(start, snapshot{rv: a.rv(), values: values(a.Items)})
	}
}

// listPages reads a list in pages that may have begun long ago when they end.
func (c *client) listPages() {
	query := c.path + "?labelSelector=key&limit=2"
	a, start, ok := c.read(query)
	s := snapshot{rv: a.rv(), values: values(a.Items)}
	for ok && a.Metadata.Continue != "" {
		if a, _, ok = c.read(query + "&continue=" + url.QueryEscape(a.Metadata.Continue)); !ok {
			return
		}
		if a.rv() != s.rv {
			c.t.Errorf("a page at %d of a list at %d", a.rv(), s.rv)
		}
		maps.Copy(s.values, values(a.Items))
	}
	if ok {
		c.saw(start, s)
	}
}

// listWatching reads the state by a watch.
func (c *client) listWatching() {
	start := time.Now().UnixNano()
	s := snapshot{values: map[string]string{}}
	c.each(c.path+"?labelSelector=key&watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true", func(kind string, o answer) bool {
		s.rv = o.rv()
		switch kind {
		case "ADDED", "MODIFIED":
			s.values[o.Metadata.Name] = o.Data["v"]
		case "DELETED":
			delete(s.values, o.Metadata.Name)
		case "BOOKMARK":
			c.saw(start, s)
			return false
		default:
			c.t.Errorf("%s event %s", kind, o.Reason)
			return false
		}
		return true
	})
}

// each calls f with the events of a watch until it returns false.
func (c *client) each(path string, f func(kind string, o answer) bool) {
	c.requests.Add(1)
	res := c.reader.Open(c.t.Context(), http.MethodGet, path, http.Header{"Accept": {cachetest.JSON}}, nil)
	defer func() { _ = res.Body.Close() }()
	for in := json.NewDecoder(res.Body); ; {
		var e struct {
			Type   string `json:"type"`
			Object answer `json:"object"`
		}
		if err := in.Decode(&e); err == io.EOF {
			return
		} else if err != nil {
			c.t.Errorf("%s: %v", path, err)
			return
		}
		if !f(e.Type, e.Object) {
			return
		}
	}
}

func values(items []answer) map[string]string {
	out := map[string]string{}
	for _, i := range items {
		out[i.Metadata.Name] = i.Data["v"]
	}
	return out
}

// saw records a read of the newest state of all keys.
func (c *client) saw(start int64, s snapshot) {
	for _, key := range c.keys {
		c.record(start, cachetest.Operation{Key: key}, s.values[key])
	}
	c.remember(s)
}

func (c *client) remember(s snapshot) {
	c.latest = max(c.latest, s.rv)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.snapshots = append(c.snapshots, s)
}

// since is a resourceVersion to read at: none in particular, or the latest that
// the client knows of.
func (c *client) since() uint64 { return []uint64{0, c.latest}[c.r.IntN(2)] }

func (c *client) getOld() {
	v := version{key: c.key(), notBefore: c.since()}
	a, code, _ := c.do(c.reader, http.MethodGet, fmt.Sprintf("%s/%s?resourceVersion=%d", c.path, v.key, v.notBefore), "", "")
	if code != http.StatusOK && code != http.StatusNotFound {
		c.t.Errorf("get %+v: %d %s", v, code, a.Reason)
	}
	v.rv, v.value = a.rv(), a.Data["v"]
	c.mu.Lock()
	defer c.mu.Unlock()
	c.versions = append(c.versions, v)
}

func (c *client) listOld() {
	since := c.since()
	if a, _, ok := c.read(fmt.Sprintf("%s&resourceVersionMatch=NotOlderThan&resourceVersion=%d", c.lists(), since)); ok {
		c.remember(snapshot{rv: a.rv(), notBefore: since, values: values(a.Items)})
	}
}

// listAt asks for exactly what it knows of, in the new way or the old.
func (c *client) listAt() {
	if c.latest == 0 {
		return
	}
	how := []string{"&resourceVersionMatch=Exact", "&limit=500"}[c.r.IntN(2)]
	a, _, ok := c.read(fmt.Sprintf("%s?labelSelector=key&resourceVersion=%d%s", c.path, c.latest, how))
	if !ok {
		return
	}
	if a.rv() != c.latest {
		c.t.Errorf("a list at %d, want %d", a.rv(), c.latest)
	}
	c.remember(snapshot{rv: a.rv(), values: values(a.Items)})
}

// watch follows for a second or a few events.
func (c *client) watch() {
	if c.latest == 0 {
		return
	}
	const events = 5
	s := stream{since: c.latest}
	c.each(fmt.Sprintf("%s?labelSelector=key&watch=true&timeoutSeconds=1&resourceVersion=%d", c.path, s.since), func(kind string, o answer) bool {
		s.events = append(s.events, event{rv: o.rv(), kind: kind, key: o.Metadata.Name, value: o.Data["v"]})
		return len(s.events) < events
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	c.streams = append(c.streams, s)
}
