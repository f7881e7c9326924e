package faults

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/portico-proxy/portico/test/proxy"
)

// worker sends one kind of request again and again on connections of its own.
type worker struct {
	*caller
	kind string
	n    int

	good, gone atomic.Int64
	// cut counts streams that the caller could tell were not whole.
	cut atomic.Int64
	// wrong receives what no caller should see.
	wrong chan<- string
}

const configMaps = "/api/v1/namespaces/default/configmaps"

// remembered is a collection that is answered from memory once it is there.
const remembered = "/api/v1/services"

// remember asks until it is.
func remember(t *testing.T, p *proxy.Proxy) {
	t.Helper()
	c := admin(t, p)
	eventually(t, "answers from memory", func() bool { return c.get(t, remembered).header.Get("Portico-Served-By") != "upstream" })
}

// requests are what each kind of worker sends: a method, a path, a body.
var requests = map[string]func(n int) (method, path, body string){
	"get":  func(int) (string, string, string) { return http.MethodGet, "/api/v1/namespaces/default", "" },
	"list": func(int) (string, string, string) { return http.MethodGet, configMaps, "" },
	// Whoever asks for the newest state is told by the API server how new it is.
	"remembered": func(int) (string, string, string) { return http.MethodGet, remembered, "" },
	"create": func(int) (string, string, string) {
		return http.MethodPost, configMaps + "?dryRun=All", configMap(`"generateName":"load-"`, 20<<10)
	},
	"apply": func(n int) (string, string, string) {
		name := fmt.Sprintf("load-%d", n)
		return http.MethodPut, configMaps + "/" + name, configMap(`"name":"`+name+`"`, n<<10)
	},
	"watch": func(int) (string, string, string) {
		return http.MethodGet, configMaps + "?watch=1&timeoutSeconds=600", ""
	},
}

// begin sets perKind workers of each kind to work. What it returns stops them
// and waits until their connections are closed.
func begin(t *testing.T, p *proxy.Proxy, perKind int, kinds ...string) (workers []*worker, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wrong := make(chan string, 1000)
	for _, kind := range kinds {
		for n := range perKind {
			w := &worker{caller: newCaller(t, p.URL, p.CA, n%2 == 0), kind: kind, n: n, wrong: wrong}
			workers = append(workers, w)
			wg.Go(func() { w.work(ctx) })
		}
	}
	return workers, func() {
		cancel()
		wg.Wait()
		close(wrong)
		for what := range wrong {
			t.Error(what)
		}
		for _, w := range workers {
			w.client.CloseIdleConnections()
		}
	}
}

func (w *worker) work(ctx context.Context) {
	pace := time.NewTicker(50 * time.Millisecond)
	defer pace.Stop()
	for ctx.Err() == nil {
		<-pace.C
		method, path, body := requests[w.kind](w.n)
		res, err := w.send(ctx, method, path, body, http.Header{"Content-Type": {"application/json"}})
		if ctx.Err() != nil {
			break
		}
		if op := (*net.OpError)(nil); errors.As(err, &op) && op.Op == "dial" {
			w.complain("the proxy itself does not answer: %v", err)
		}
		if err != nil {
			w.cut.Add(1) // between the header and the body of upstream's answer
			continue
		}
		w.receive(ctx, method, res)
		res.Body.Close()
	}
}

func (w *worker) receive(ctx context.Context, method string, res *http.Response) {
	if w.kind == "watch" && res.StatusCode == http.StatusOK {
		w.good.Add(1) // an open stream is as good as a watch gets
	}
	data, err := io.ReadAll(res.Body)
	a := answer{code: res.StatusCode, header: res.Header, body: data}
	switch {
	case ctx.Err() != nil:
	case err != nil:
		w.cut.Add(1)
	case a.code < 300 && w.kind == "watch":
		w.complain("a watch ended as if its time were over")
	case a.code < 300:
		w.good.Add(1)
	case a.isUnavailable() && (a.retryable() || method != http.MethodGet):
		w.gone.Add(1)
	default:
		w.complain("%s: %d, Retry-After %q: %.300s", w.kind, a.code, a.header.Get("Retry-After"), a.body)
	}
}

func (w *worker) complain(format string, args ...any) {
	select {
	case w.wrong <- fmt.Sprintf(format, args...):
	default: // a thousand are enough
	}
}

// progress is how far each of some workers is to come.
type progress struct {
	workers []*worker
	count   func(*worker) int64
	goals   []int64
}

// more is reached when each worker counts one more than now.
func more(workers []*worker, count func(*worker) int64) progress {
	p := progress{workers: workers, count: count}
	for _, w := range workers {
		p.goals = append(p.goals, count(w)+1)
	}
	return p
}

func (p progress) await(t *testing.T, what string) {
	t.Helper()
	eventually(t, what, func() bool {
		for i, w := range p.workers {
			if p.count(w) < p.goals[i] {
				return false
			}
		}
		return true
	})
}

func good(w *worker) int64 { return w.good.Load() }
func gone(w *worker) int64 { return w.gone.Load() }
func cut(w *worker) int64  { return w.cut.Load() }

// holdings is what a process that leaks has more of.
type holdings struct{ goroutines, files float64 }

func held(p *proxy.Proxy) holdings {
	return holdings{goroutines: p.Gauge("go_goroutines"), files: p.Gauge("process_open_fds")}
}

// within leaves room for connections that are pooled. Forty workers that leave
// anything behind, or one of their connections each, leave more.
func (h holdings) within(base holdings) bool {
	return h.goroutines <= base.goroutines+16 && h.files <= base.files+8
}

func TestKilledAPIServerLeavesNoTrace(t *testing.T) {
	p := before(t)
	const perKind = 8
	kinds := []string{"watch", "get", "list", "remembered", "create", "apply"}
	makeConfigMaps(t, perKind)
	admin(t, p).get(t, configMaps) // so that there is a connection to the API server
	remember(t, p)
	base := held(p)

	workers, stop := begin(t, p, perKind, kinds...)
	more(workers, good).await(t, "answers")
	for range 2 {
		unavailable, cuts := more(workers, gone), more(workers[:perKind], cut)
		kill(t, first)
		unavailable.await(t, "503s while the API server is gone")
		cuts.await(t, "cut watches")
		answered := more(workers, good) // a watch that has been answered is not asked again
		restart(t, first)
		answered.await(t, "answers after the restart")
	}
	stop()
	var now holdings
	defer func() { t.Logf("holds %v, before the faults %v", now, base) }()
	eventually(t, "goroutines and descriptors are as before", func() bool {
		now = held(p)
		return now.within(base)
	})
}

// makeConfigMaps makes those that workers write to.
func makeConfigMaps(t *testing.T, n int) {
	t.Helper()
	direct := newCaller(t, world.URL(), world.Config().CAData, true)
	for i := range n {
		_, err := direct.do(t.Context(), http.MethodPost, configMaps, configMap(fmt.Sprintf(`"name":"load-%d"`, i), 1))
		if err != nil {
			t.Fatal(err)
		}
	}
}
