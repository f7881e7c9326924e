package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/portico-proxy/portico/core/cache/cachetest"
	"github.com/portico-proxy/portico/core/telemetry"
)

// history is what clients did with the ConfigMaps of one namespace, and saw.
type history struct {
	t     *testing.T
	doors []door
	path  string
	keys  []string

	mu         sync.Mutex // guards following
	ops        []porcupine.Operation
	unanswered int // lists
}

// filler makes a collection too large to be fetched whenever it has to be proven
// current.
const filler = 300 << 10

// newHistory begins one with a collection that is small, or large in every other round.
func (w *world) newHistory(t *testing.T, round int) *history {
	t.Helper()
	h := w.smallHistory(t, round)
	if round%2 == 1 {
		body := fmt.Sprintf(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"filler"},"data":{"v":%q}}`, strings.Repeat("x", filler))
		until(t, "a large collection", func() bool {
			_, code := w.direct.do(t.Context(), http.MethodPost, h.path, cachetest.JSON, body)
			return code == http.StatusCreated || code == http.StatusConflict
		})
	}
	return h
}

func (w *world) smallHistory(t *testing.T, round int) *history {
	t.Helper()
	namespace := fmt.Sprintf("chaos-%d", round)
	until(t, "a namespace", func() bool {
		body := fmt.Sprintf(`{"apiVersion":"v1","kind":"Namespace","metadata":{"name":%q}}`, namespace)
		_, code := w.direct.do(t.Context(), http.MethodPost, "/api/v1/namespaces", cachetest.JSON, body)
		return code == http.StatusCreated || code == http.StatusConflict
	})
	keys := strings.Split("abcdefghijklmnopqrstuvwx", "")
	return &history{t: t, doors: w.doors, path: "/api/v1/namespaces/" + namespace + "/configmaps", keys: keys}
}

// check asks whether all that was seen can have happened. Too many writes
// without an answer may make that impossible to say in time.
func (h *history) check() {
	h.t.Helper()
	if h.verdict() != porcupine.Illegal {
		return
	}
	h.t.Error("what the clients saw cannot have happened")
	for _, part := range cachetest.Register.Partition(h.ops) {
		if porcupine.CheckOperationsTimeout(cachetest.Register, part, checkTime) == porcupine.Illegal {
			h.tell(part)
		}
	}
}

func (h *history) verdict() porcupine.CheckResult {
	h.t.Helper()
	unknown := 0
	for _, o := range h.ops {
		if o.Output == cachetest.Unknown {
			unknown++
		}
	}
	verdict := porcupine.CheckOperationsTimeout(cachetest.Register, h.ops, checkTime)
	h.t.Logf("%d operations, %d of them writes without an answer: %s", len(h.ops), unknown, verdict)
	return verdict
}

func (h *history) tell(ops []porcupine.Operation) {
	for _, o := range ops {
		in := o.Input.(cachetest.Operation)
		h.t.Logf("%d to %d: client %d: %+v: %v", o.Call, o.Return, o.ClientId, in, o.Output)
	}
}

// answer is an object, a list, a Status or a watch event's object.
type answer struct {
	Metadata struct {
		Namespace       string            `json:"namespace"`
		Name            string            `json:"name"`
		ResourceVersion string            `json:"resourceVersion"`
		Continue        string            `json:"continue"`
		Annotations     map[string]string `json:"annotations"`
	} `json:"metadata"`
	Data   map[string]string `json:"data"`
	Items  []answer          `json:"items"`
	Reason string            `json:"reason"`
	Code   int               `json:"code"` // of a Status
	by     string            // [telemetry.HeaderServedBy]
}

func (a *answer) rv() uint64 {
	rv, _ := strconv.ParseUint(a.Metadata.ResourceVersion, 10, 64)
	return rv
}

// unsent is the code of a request that found nobody.
const unsent = -1

// do sends a request and returns code 0 if there was no whole answer, or unsent.
func (d door) do(ctx context.Context, method, path, contentType, body string) (answer, int) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var a answer
	res, err := d.open(ctx, method, path, contentType, body)
	if err != nil {
		<-time.After(breath)
		return a, codeOf(err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil || json.Unmarshal(b, &a) != nil {
		return answer{}, 0
	}
	if res.StatusCode >= http.StatusInternalServerError {
		<-time.After(breath)
	}
	a.by = res.Header.Get(telemetry.HeaderServedBy)
	return a, res.StatusCode
}

func codeOf(err error) int {
	var failed *net.OpError
	if errors.As(err, &failed) && failed.Op == "dial" {
		return unsent
	}
	return 0
}

func (d door) open(ctx context.Context, method, path, contentType, body string) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, d.url+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Accept", cachetest.JSON)
	r.Header.Set("Content-Type", contentType)
	return d.client.Do(r)
}

// client does one thing after another, each through whichever proxy.
type client struct {
	*history
	id      int
	r       *rand.Rand
	written int
}

func (c *client) act() {
	acts := []func(){c.post, c.post, c.put, c.patch, c.remove, c.get, c.get, c.list, c.list, c.listPages, c.listWatching}
	acts[c.r.IntN(len(acts))]()
}

func (c *client) door() door { return c.doors[c.r.IntN(len(c.doors))] }

func (c *client) key() string { return c.keys[c.r.IntN(len(c.keys))] }

func (c *client) configMap(key string) (value, body string) {
	c.written++
	value = fmt.Sprintf("%d-%d", c.id, c.written)
	return value, fmt.Sprintf(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":%q,"labels":{"chaos":"true"}},"data":{"v":%q}}`, key, value)
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

func (c *client) remove() {
	key := c.key()
	c.write(cachetest.Operation{Key: key, Kind: cachetest.Remove}, http.MethodDelete, c.path+"/"+key, "", "")
}

func (c *client) write(o cachetest.Operation, method, path, contentType, body string) {
	start := time.Now().UnixNano()
	a, code := c.door().do(c.t.Context(), method, path, contentType, body)
	outcome := cachetest.Unknown
	switch {
	case code == unsent:
		return
	case code == http.StatusOK, code == http.StatusCreated:
		outcome = cachetest.Done
	case code == http.StatusNotFound, a.Reason == "AlreadyExists":
		outcome = cachetest.Refused
	case code == http.StatusConflict:
		outcome = cachetest.Conflict
	}
	c.record(start, o, outcome)
}

func (c *client) record(start int64, o cachetest.Operation, outcome string) {
	end := time.Now().UnixNano()
	if outcome == cachetest.Unknown {
		end = math.MaxInt64 // whatever was written may still come
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ops = append(c.ops, porcupine.Operation{ClientId: c.id, Input: o, Output: outcome, Call: start, Return: end})
}

func (c *client) get() {
	key, start := c.key(), time.Now().UnixNano()
	a, code := c.door().do(c.t.Context(), http.MethodGet, c.path+"/"+key, "", "")
	if code == http.StatusOK || code == http.StatusNotFound {
		c.record(start, cachetest.Operation{Key: key}, a.Data["v"])
	}
}

func (c *client) list() {
	start := time.Now().UnixNano()
	a, code := c.door().do(c.t.Context(), http.MethodGet, c.path+"?labelSelector=chaos", "", "")
	if code == http.StatusOK {
		c.saw(start, values(a.Items))
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unanswered++
}

// listPages takes each page from another proxy.
func (c *client) listPages() {
	start, found, token := time.Now().UnixNano(), map[string]string{}, ""
	for rv := uint64(0); ; {
		a, code := c.door().do(c.t.Context(), http.MethodGet, c.path+"?labelSelector=chaos&limit=5&continue="+url.QueryEscape(token), "", "")
		if code != http.StatusOK {
			return // what there was may have been compacted
		}
		if rv != 0 && a.rv() != rv {
			c.t.Errorf("a page at %d of a list at %d", a.rv(), rv)
		}
		rv, token = a.rv(), a.Metadata.Continue
		maps.Copy(found, values(a.Items))
		if token == "" {
			c.saw(start, found)
			return
		}
	}
}

// listWatching reads the state by a watch.
func (c *client) listWatching() {
	start, found := time.Now().UnixNano(), map[string]string{}
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()
	c.door().watch(ctx, c.path+"?labelSelector=chaos&watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true", func(kind string, o answer) bool {
		switch kind {
		case "ADDED", "MODIFIED":
			found[o.Metadata.Name] = o.Data["v"]
		case "DELETED":
			delete(found, o.Metadata.Name)
		case "BOOKMARK":
			c.saw(start, found)
			return false
		default:
			return false
		}
		return true
	})
}

// watch calls f with events until it returns false or the watch ends.
func (d door) watch(ctx context.Context, path string, f func(kind string, o answer) bool) (code int) {
	res, err := d.open(ctx, http.MethodGet, path, "", "")
	if err != nil {
		return 0
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		return res.StatusCode
	}
	for in := json.NewDecoder(res.Body); ; {
		var e struct {
			Type   string `json:"type"`
			Object answer `json:"object"`
		}
		if err := in.Decode(&e); err != nil {
			return 0
		}
		if e.Type == "ERROR" {
			return e.Object.Code
		}
		if !f(e.Type, e.Object) {
			return http.StatusOK
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
func (c *client) saw(start int64, found map[string]string) {
	for _, key := range c.keys {
		c.record(start, cachetest.Operation{Key: key}, found[key])
	}
}
