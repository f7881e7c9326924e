package lens_test

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace/noop"
	"go.uber.org/goleak"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/client-go/rest"

	"github.com/portico-proxy/portico/core/cache"
	"github.com/portico-proxy/portico/core/cache/cachetest"
	"github.com/portico-proxy/portico/core/pipeline"
	"github.com/portico-proxy/portico/core/telemetry"
	"github.com/portico-proxy/portico/core/upstream"
	"github.com/portico-proxy/portico/core/view"
	"github.com/portico-proxy/portico/test/controlplane"
)

// plane is shared by all tests of the package: each uses namespaces of its own.
var plane *controlplane.ControlPlane

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if controlplane.Fuzzing() {
		return m.Run()
	}
	dir, err := controlplane.Programs(context.Background(), controlplane.ProgramsOptions{Progress: os.Stderr})
	if err == nil {
		plane, err = controlplane.Start(context.Background(), controlplane.Options{Programs: dir, Flags: map[controlplane.Part][]string{
			controlplane.APIServer: {"--disable-admission-plugins=ServiceAccount"},
		}})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer plane.Stop()
	return m.Run()
}

type object = cachetest.Object

// glass hides what is labelled, masks what says so, and counts how often it looks.
type glass struct {
	name    string
	hidden  string // objects that bear this label do not exist
	looked  atomic.Int64
	broken  atomic.Bool
	changed chan struct{}
}

func newGlass(name, hidden string) *glass {
	return &glass{name: name, hidden: hidden, changed: make(chan struct{})}
}

var errBroken = errors.New("broken")

func (g *glass) Key() string              { return g.name }
func (g *glass) Changed() <-chan struct{} { return g.changed }

func (g *glass) See(_ context.Context, o view.Object) ([]byte, error) {
	g.looked.Add(1)
	if g.broken.Load() {
		return nil, errBroken
	}
	if o.Labels.Has(g.hidden) {
		return nil, nil
	}
	if !bytes.Contains(o.JSON, []byte(maskedMark)) {
		return o.JSON, nil
	}
	return bytes.ReplaceAll(o.JSON, []byte(maskedMark), []byte("xxxxxx")), nil
}

// What must never be sent.
const (
	hiddenMark = "mark-of-the-hidden"
	maskedMark = "mark-of-the-masked"
)

// house is a proxy whose callers have the views of the moment.
type house struct {
	*cachetest.Door
	view   atomic.Pointer[glass]
	config *rest.Config
	wire   *tap
}

// plant gives every request the view of the moment.
type plant struct{ h *house }

func (plant) Name() string { return "plant" }
func (p plant) ServeHTTP(w http.ResponseWriter, r *http.Request, next pipeline.Handler) error {
	ctx := request.WithUser(r.Context(), &user.DefaultInfo{Name: "somebody"})
	if g := p.h.view.Load(); g != nil {
		ctx = view.With(ctx, g)
	}
	return next.ServeHTTP(p.h.wire.over(w), r.WithContext(pipeline.WithGrant(ctx)))
}

// tap keeps all that is sent.
type tap struct {
	mu   sync.Mutex // guards following
	sent bytes.Buffer
}

func (t *tap) over(w http.ResponseWriter) http.ResponseWriter { return &tapped{w, t} }

type tapped struct {
	http.ResponseWriter
	tap *tap
}

func (w *tapped) Unwrap() http.ResponseWriter { return w.ResponseWriter }
func (w *tapped) Write(p []byte) (int, error) {
	w.tap.mu.Lock()
	w.tap.sent.Write(p)
	w.tap.mu.Unlock()
	return w.ResponseWriter.Write(p)
}

// leaks reports what was sent and must not be.
func (t *tap) leaks() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var found []string
	for _, mark := range []string{hiddenMark, maskedMark} {
		if at := bytes.Index(t.sent.Bytes(), []byte(mark)); at >= 0 {
			found = append(found, string(t.sent.Bytes()[max(0, at-300):min(t.sent.Len(), at+100)]))
		}
	}
	return found
}

// newHouse starts a proxy, with memory or without, and stops it with the test.
func newHouse(t testing.TB, memory bool, g *glass) *house {
	t.Helper()
	ignore := goleak.IgnoreCurrent()
	tm, err := telemetry.New(t.Context(), telemetry.Options{Registry: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	up, err := upstream.New(upstream.Options{Config: plane.Config(), Telemetry: tm, Log: logr.Discard()})
	if err != nil {
		t.Fatal(err)
	}
	h := &house{wire: &tap{}}
	h.view.Store(g)
	filters := []pipeline.Filter{plant{h}}
	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan error, 1)
	if memory {
		c, err := cache.New(cache.Options{
			Upstream: up.Own(), Base: up.Base(), Log: logr.Discard(),
			Policies: func(schema.GroupResource) cache.Policy { return cache.Policy{} },
		})
		if err != nil {
			t.Fatal(err)
		}
		go func() { stopped <- c.Start(ctx) }()
		filters = append(filters, c)
	} else {
		stopped <- nil
	}
	server := httptest.NewUnstartedServer(&pipeline.Server{Handler: pipeline.Chain(noop.NewTracerProvider().Tracer(""), up, filters...), Log: logr.Discard()})
	server.EnableHTTP2 = true
	server.StartTLS()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	h.config = &rest.Config{Host: server.URL, BearerToken: plane.Token("admin").Token, TLSClientConfig: rest.TLSClientConfig{CAData: ca}}
	t.Cleanup(func() {
		cancel()
		if err := <-stopped; err != nil {
			t.Error(err)
		}
		server.CloseClientConnections()
		server.Close()
		up.Close()
		goleak.VerifyNone(t, ignore, goleak.IgnoreAnyFunction("net/http.(*http2ClientConn).readLoop"), goleak.IgnoreAnyFunction("golang.org/x/net/http2.(*ClientConn).readLoop"),
			goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"), goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"),
			goleak.IgnoreAnyFunction("k8s.io/client-go/util/cert.(*dynamicClientCert).Run"))
	})
	h.Door = cachetest.NewDoor(t, h.config)
	return h
}

// both runs test against a proxy that answers from memory and one that does not.
func both(t *testing.T, test func(t *testing.T, h *house, from string)) {
	for from, memory := range map[string]bool{"cache": true, "upstream": false} {
		t.Run(from, func(t *testing.T) {
			g := newGlass("glass", "hidden")
			h := newHouse(t, memory, g)
			test(t, h, from)
			for _, leak := range h.wire.leaks() {
				t.Errorf("sent: %s", leak)
			}
		})
	}
}

// warm waits until memory answers for path.
func (h *house) warm(t testing.TB, from, path string) {
	t.Helper()
	if from != "cache" {
		return
	}
	until(t, func() bool { return h.Get(path+"?resourceVersion=0", cachetest.JSON).ServedBy() == "cache" })
}

func direct(t testing.TB) *cachetest.Door {
	t.Helper()
	return cachetest.NewDoor(t, plane.Config())
}

// until waits for something that happens in another process.
func until(t testing.TB, done func() bool) {
	t.Helper()
	tick, deadline := time.NewTicker(20*time.Millisecond), time.After(time.Minute)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("waited in vain")
		}
	}
}

// decoded reads what a test compares.
func decoded(t testing.TB, raw []byte) object {
	t.Helper()
	var o object
	if err := json.Unmarshal(raw, &o); err != nil {
		t.Fatalf("%v: %.300s", err, raw)
	}
	return o
}

// seen is what of a direct answer exists behind the glass.
func seen(t testing.TB, raw []byte, hidden string) object {
	t.Helper()
	o := decoded(t, bytes.ReplaceAll(raw, []byte(maskedMark), []byte("xxxxxx")))
	items, _ := o["items"].([]any)
	left := []any{}
	for _, item := range items {
		labels, _ := item.(object)["metadata"].(object)["labels"].(object)
		if _, gone := labels[hidden]; !gone {
			left = append(left, item)
		}
	}
	o["items"] = left
	return o
}
