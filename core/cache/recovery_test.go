package cache_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"go.opentelemetry.io/otel/trace/noop"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/portico-proxy/portico/core/cache"
	"github.com/portico-proxy/portico/core/cache/cachetest"
	"github.com/portico-proxy/portico/core/pipeline"
)

// returning is an API server of a few words that can be gone, but for what it is able
// to do, and takes its time. It has one ConfigMap.
type returning struct {
	gone   atomic.Bool
	slow   atomic.Bool  // loads never end
	passed atomic.Int32 // requests of callers

	mu    sync.Mutex // guards following
	asked map[string]int
}

func (u *returning) RoundTrip(r *http.Request) (*http.Response, error) {
	what, text := "discovery", `{"kind":"APIResourceList","apiVersion":"v1","groupVersion":"v1","resources":[{"name":"configmaps","kind":"ConfigMap","namespaced":true,"verbs":["get","list","watch"]}]}`
	q := r.URL.Query()
	switch {
	case q.Get("sendInitialEvents") != "":
		what, text = "load", `{"type":"ADDED","object":{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"c","namespace":"a","resourceVersion":"3"}}}`+"\n"+
			`{"type":"BOOKMARK","object":{"kind":"ConfigMap","apiVersion":"v1","metadata":{"resourceVersion":"10","annotations":{"k8s.io/initial-events-end":"true"}}}}`+"\n"
	case q.Get("watch") != "":
		what, text = "watch", ""
	case q.Get("limit") == "1":
		what, text = "probe", `{"kind":"ConfigMapList","apiVersion":"v1","metadata":{"resourceVersion":"10"},"items":[]}`
	case strings.HasSuffix(r.URL.Path, "/configmaps"):
		what = "list"
	}
	u.mu.Lock()
	u.asked[what]++
	u.mu.Unlock()
	if u.gone.Load() && what != "discovery" {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	}
	<-time.After(100 * time.Millisecond)
	body := io.Reader(strings.NewReader(text))
	if what == "load" && u.slow.Load() {
		body = strings.NewReader("")
	}
	if q.Get("watch") != "" {
		body = io.MultiReader(body, untilDone{r.Context()})
	}
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(body)}, nil
}

type untilDone struct{ ctx context.Context }

func (u untilDone) Read([]byte) (int, error) {
	<-u.ctx.Done()
	return 0, u.ctx.Err()
}

// answer is how u answers callers.
func (u *returning) answer(w http.ResponseWriter, _ *http.Request) error {
	u.passed.Add(1)
	if u.gone.Load() {
		return apierrors.NewServiceUnavailable("the API server cannot be reached")
	}
	<-time.After(100 * time.Millisecond)
	w.WriteHeader(http.StatusOK)
	_, err := io.WriteString(w, "from upstream")
	return err
}

// TestMissingCollectionIsAskedForOnce has a hundred clients read what is not in memory:
// at first, and when the API server is back after a while in which they had asked too.
func TestMissingCollectionIsAskedForOnce(t *testing.T) {
	for _, query := range []string{"", "?resourceVersion=0", "?resourceVersion=7&resourceVersionMatch=NotOlderThan"} {
		for _, lost := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s-lost-%t", strings.Trim(query, "?"), lost), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { readMissing(t, query, lost) })
			})
		}
	}
}

// herd is a cache before an API server that can be gone.
type herd struct {
	*returning
	cache  *cache.Cache
	server *pipeline.Server
}

// newHerd starts one that ends when the function returned is called.
func newHerd(t *testing.T) (h *herd, end func()) {
	t.Helper()
	u := &returning{asked: map[string]int{}}
	o := cache.Options{Upstream: u, Base: &url.URL{Scheme: "https", Host: "upstream"}, Log: logr.Discard()}
	o.Policies = func(schema.GroupResource) cache.Policy { return cache.Policy{} }
	c, err := cache.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan error, 1)
	go func() { stopped <- c.Start(ctx) }()
	synctest.Wait()
	chain := pipeline.Chain(noop.NewTracerProvider().Tracer(""), pipeline.HandlerFunc(u.answer), grant{c}, c)
	return &herd{u, c, &pipeline.Server{Handler: chain, Log: logr.Discard()}}, func() {
		cancel()
		if err := <-stopped; err != nil {
			t.Error(err)
		}
	}
}

// read has n clients read at once, and returns how many were answered by what.
func (h *herd) read(t *testing.T, n int, query string) map[string]int {
	t.Helper()
	from := map[string]int{}
	var mu sync.Mutex
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			w := httptest.NewRecorder()
			h.server.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api/v1/configmaps"+query, nil))
			mu.Lock()
			defer mu.Unlock()
			from[fmt.Sprintf("%d %s", w.Code, w.Header().Get(cache.ServedBy))]++
		})
	}
	all.Wait()
	return from
}

// requests are those since the last call, by what was asked for.
func (h *herd) requests() map[string]int {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := h.asked
	h.asked = map[string]int{}
	return all
}

// TestOnlyTheFirstWaitForWhatLoadsSlowly has a load take for ever.
func TestOnlyTheFirstWaitForWhatLoadsSlowly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, end := newHerd(t)
		defer end()
		h.slow.Store(true)
		h.read(t, 10, "")
		begun := time.Now()
		if from := h.read(t, 10, ""); from["200 "] != 10 {
			t.Errorf("answered %v", from)
		}
		if took := time.Since(begun); took > 200*time.Millisecond { // of the bubble's time
			t.Errorf("others waited %v", took)
		}
	})
}

func readMissing(t *testing.T, query string, lost bool) {
	h, end := newHerd(t)
	defer end()
	if lost {
		h.gone.Store(true)
		for range 20 {
			if from := h.read(t, 1, query); from["503 "] != 1 {
				t.Errorf("answered %v", from)
			}
			<-time.After(10 * time.Second)
		}
		h.gone.Store(false)
		h.requests()
		h.passed.Store(0)
	}
	const clients = 100
	from := h.read(t, clients, query)
	asked := h.requests()
	t.Logf("%v: asked %v, and %d passed", from, asked, h.passed.Load())
	if h.passed.Load() > 1 || asked["load"] != 1 || asked["probe"] > 2 || asked["list"] > 0 || asked["discovery"] > 1 {
		t.Errorf("%d clients cost %v, and %d requests of their own", clients, asked, h.passed.Load())
	}
	if from["200 cache"] < clients-1 {
		t.Errorf("answered %v", from)
	}
}

// TestRefusalOfOneStreamSparesOthers has an API server that has just started know
// nobody, and somebody ask for what is in memory in another format.
func TestRefusalOfOneStreamSparesOthers(t *testing.T) {
	p := newProxy(t, nothingRefused)
	const path = "/api/v1/namespaces/default/services"
	p.warm(path, cachetest.Protobuf)
	before := p.upstream.requests.Load()
	p.upstream.unknown.Store(true)
	p.Get(path+"?resourceVersion=0", cachetest.JSON)
	until(t, func() bool { return p.upstream.requests.Load() > before && len(p.cache.Streams()) < 2 })
	if got := p.Get(path+"?resourceVersion=0", cachetest.Protobuf); got.ServedBy() != "cache" {
		t.Errorf("what was in memory is answered by %q", got.ServedBy())
	}
}
