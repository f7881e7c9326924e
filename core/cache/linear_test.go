package cache_test

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/portico-proxy/portico/core/cache"
	"github.com/portico-proxy/portico/core/cache/cachetest"
)

// operation is one read or write of one key; a list reads every key.
type operation struct {
	key   string
	write bool
	value string // "" is absence
}

// register is what each key has to be like.
var register = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		byKey := map[string][]porcupine.Operation{}
		for _, o := range history {
			key := o.Input.(operation).key
			byKey[key] = append(byKey[key], o)
		}
		var parts [][]porcupine.Operation
		for _, part := range byKey {
			parts = append(parts, part)
		}
		return parts
	},
	Init: func() any { return "" },
	Step: func(state, input, output any) (bool, any) {
		if in := input.(operation); in.write {
			return true, in.value
		}
		return output == state, state
	},
}

// history runs clients against doors and records what they see.
type history struct {
	t    testing.TB
	path string
	keys []string

	mu  sync.Mutex
	ops []porcupine.Operation
}

func (h *history) record(client int, start int64, o operation, saw string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = append(h.ops, porcupine.Operation{ClientId: client, Input: o, Output: saw, Call: start, Return: time.Now().UnixNano()})
}

// put makes or changes a key by server-side apply.
func (h *history) put(client int, d *cachetest.Door, key, value string) {
	body := fmt.Sprintf(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":%q,"labels":{"key":"true"}},"data":{"v":%q}}`, key, value)
	start := time.Now().UnixNano()
	h.do(d, http.MethodPatch, h.path+"/"+key+"?fieldManager=test&force=true", "application/apply-patch+yaml", body)
	h.record(client, start, operation{key, true, value}, "")
}

func (h *history) remove(client int, d *cachetest.Door, key string) {
	start := time.Now().UnixNano()
	h.do(d, http.MethodDelete, h.path+"/"+key, "", "")
	h.record(client, start, operation{key, true, ""}, "")
}

func (h *history) do(d *cachetest.Door, method, path, contentType, body string) {
	res := d.Open(h.t.Context(), method, path, http.Header{"Accept": {cachetest.JSON}, "Content-Type": {contentType}}, []byte(body))
	defer func() { _ = res.Body.Close() }()
	if got, err := io.ReadAll(res.Body); err != nil || (res.StatusCode >= 300 && res.StatusCode != http.StatusNotFound) {
		h.t.Errorf("%s %s: %d %v %.300s", method, path, res.StatusCode, err, got)
	}
}

type configMap struct {
	Metadata struct {
		Name string `json:"name"`
	} `json:"metadata"`
	Data map[string]string `json:"data"`
}

func (h *history) list(client int, d *cachetest.Door) {
	start := time.Now().UnixNano()
	a := d.Get(h.path+"?labelSelector=key", cachetest.JSON)
	var l struct {
		Items []configMap `json:"items"`
	}
	if err := json.Unmarshal(a.Body, &l); err != nil || a.Status != http.StatusOK {
		h.t.Errorf("list: %d %v", a.Status, err)
		return
	}
	saw := map[string]string{}
	for _, i := range l.Items {
		saw[i.Metadata.Name] = i.Data["v"]
	}
	h.sawAll(client, start, saw)
}

// watch reads the state by a WatchList.
func (h *history) watch(client int, d *cachetest.Door) {
	start := time.Now().UnixNano()
	w := d.Watch(h.path+"?labelSelector=key&watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true", cachetest.JSON)
	defer w.Close()
	saw := map[string]string{}
	for {
		var e struct {
			Type   string    `json:"type"`
			Object configMap `json:"object"`
		}
		if err := json.Unmarshal(w.Frame(), &e); err != nil {
			h.t.Error(err)
			return
		}
		switch e.Type {
		case "ADDED", "MODIFIED":
			saw[e.Object.Metadata.Name] = e.Object.Data["v"]
		case "DELETED":
			delete(saw, e.Object.Metadata.Name)
		case "BOOKMARK":
			h.sawAll(client, start, saw)
			return
		default:
			h.t.Errorf("%s event", e.Type)
			return
		}
	}
}

func (h *history) get(client int, d *cachetest.Door, key string) {
	start := time.Now().UnixNano()
	a := d.Get(h.path+"/"+key, cachetest.JSON)
	var c configMap
	if err := json.Unmarshal(a.Body, &c); err != nil || (a.Status != http.StatusOK && a.Status != http.StatusNotFound) {
		h.t.Errorf("get: %d %v", a.Status, err)
		return
	}
	h.record(client, start, operation{key: key}, c.Data["v"])
}

func (h *history) sawAll(client int, start int64, saw map[string]string) {
	for _, key := range h.keys {
		h.record(client, start, operation{key: key}, saw[key])
	}
}

// run lets clients write through writers and read through reader, n times each.
func (h *history) run(reader *cachetest.Door, writers []*cachetest.Door, n int) {
	var wg sync.WaitGroup
	for client := range 6 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(client), 1))
			for i := range n {
				key, via := h.keys[r.IntN(len(h.keys))], writers[r.IntN(len(writers))]
				switch r.IntN(8) {
				case 0:
					h.remove(client, via, key)
				case 1, 2, 3:
					h.put(client, via, key, fmt.Sprintf("%d-%d", client, i))
				case 4:
					h.get(client, reader, key)
				case 5:
					h.watch(client, reader)
				default:
					h.list(client, reader)
				}
			}
		})
	}
	wg.Wait()
}

// runs keeps the namespaces of repeated tests apart.
var runs atomic.Int64

// rounds is how many operations each client makes: few, or PORTICO_SOAK.
func rounds(t testing.TB, few int) int {
	t.Helper()
	soak := os.Getenv("PORTICO_SOAK")
	if soak == "" {
		return few
	}
	n, err := strconv.Atoi(soak)
	if err != nil {
		t.Fatalf("PORTICO_SOAK: %v", err)
	}
	return n
}

func newHistory(t *testing.T, d *cachetest.Door, p *proxy, namespace string) *history {
	t.Helper()
	namespace += "-" + strconv.FormatInt(runs.Add(1), 10)
	d.AddNamespace(namespace)
	h := &history{t: t, path: "/api/v1/namespaces/" + namespace + "/configmaps", keys: []string{"a", "b", "c", "d"}}
	// Too large a collection to be fetched again each time.
	d.Write(http.MethodPost, h.path, object{"metadata": object{"name": "large"}, "data": object{"k": strings.Repeat("x", 300<<10)}})
	p.warm(h.path, cachetest.JSON)
	return h
}

func (h *history) verdict() porcupine.CheckResult {
	return porcupine.CheckOperationsTimeout(register, h.ops, 10*time.Minute)
}

func TestReadsAreLinearizable(t *testing.T) {
	p := newProxy(t, func(o *cache.Options) { nothingRefused(o); o.Upstream.(*counter).slow.Store(true) })
	d := direct(t)
	h := newHistory(t, d, p, "linear")
	h.run(p.Door, []*cachetest.Door{p.Door, d}, rounds(t, 40))
	if got := h.verdict(); got != porcupine.Ok {
		t.Errorf("%d operations: %s", len(h.ops), got)
	}
}

func TestUnprovenReadsAreFoundOut(t *testing.T) {
	p := newProxy(t, func(o *cache.Options) { nothingRefused(o); o.Upstream.(*counter).slow.Store(true) })
	p.cache.SkipProof()
	d := direct(t)
	h := newHistory(t, d, p, "unproven")
	h.run(p.Door, []*cachetest.Door{d}, 30)
	if got := h.verdict(); got != porcupine.Illegal {
		t.Errorf("%d operations: %s", len(h.ops), got)
	}
}

// sessions lets everybody have session reads.
func sessions(o *cache.Options) {
	o.Policies = func(schema.GroupResource) cache.Policy {
		return cache.Policy{Session: func(user.Info) bool { return true }}
	}
}

// TestSessionsSeeTheirWrites holds all clients of one proxy to linearizability:
// while nobody writes past it, a session is as good.
func TestSessionsSeeTheirWrites(t *testing.T) {
	p := newProxy(t, func(o *cache.Options) { sessions(o); o.Upstream.(*counter).slow.Store(true) })
	h := newHistory(t, direct(t), p, "session")
	h.run(p.Door, []*cachetest.Door{p.Door}, rounds(t, 40))
	if got := h.verdict(); got != porcupine.Ok {
		t.Errorf("%d operations: %s", len(h.ops), got)
	}
}

func TestForgottenWritesAreFoundOut(t *testing.T) {
	p := newProxy(t, func(o *cache.Options) { sessions(o); o.Upstream.(*counter).slow.Store(true) })
	p.cache.ForgetWrites()
	h := newHistory(t, direct(t), p, "forgotten")
	h.run(p.Door, []*cachetest.Door{p.Door}, 30)
	if got := h.verdict(); got != porcupine.Illegal {
		t.Errorf("%d operations: %s", len(h.ops), got)
	}
}
