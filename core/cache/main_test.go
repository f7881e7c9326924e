package cache_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"go.opentelemetry.io/otel/trace/noop"
	"go.uber.org/goleak"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/rest"

	"github.com/portico-proxy/portico/core/cache"
	"github.com/portico-proxy/portico/core/pipeline"
	"github.com/portico-proxy/portico/test/controlplane"
)

// plane is shared by all tests of the package: each uses namespaces of its own.
var plane *controlplane.ControlPlane

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
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

// door is one way to the API server.
type door struct {
	t      testing.TB
	url    string
	client *http.Client
}

// direct is the way past the proxy.
func direct(t testing.TB) *door {
	t.Helper()
	return &door{t: t, url: plane.URL(), client: httpClient(t, plane.Config())}
}

// proxy is a cache in front of the API server.
type proxy struct {
	door
	cache    *cache.Cache
	upstream *counter
	passed   atomic.Int64 // requests that the cache handed on
}

// counter counts what the cache itself sends upstream.
type counter struct {
	http.RoundTripper
	requests atomic.Int64
	gate     atomic.Pointer[chan struct{}] // holds requests until it is closed
}

func (c *counter) RoundTrip(r *http.Request) (*http.Response, error) {
	c.requests.Add(1)
	if gate := c.gate.Load(); gate != nil {
		<-*gate
	}
	return c.RoundTripper.RoundTrip(r)
}

// grant stands for the filter that asks whether a caller may see an answer.
type grant struct{}

func (grant) Name() string { return "grant" }
func (grant) ServeHTTP(w http.ResponseWriter, r *http.Request, next pipeline.Handler) error {
	return next.ServeHTTP(w, r.WithContext(pipeline.WithGrant(r.Context())))
}

// newProxy starts a cache and a server in front of it, and stops both with the test.
func newProxy(t testing.TB, change func(*cache.Options)) *proxy {
	t.Helper()
	ignore := goleak.IgnoreCurrent()
	cfg := plane.Config()
	transport, err := rest.TransportFor(cfg)
	if err != nil {
		t.Fatal(err)
	}
	base, err := url.Parse(cfg.Host)
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{upstream: &counter{RoundTripper: transport}}
	o := cache.Options{Upstream: p.upstream, Base: base, Log: logr.Discard()}
	if change != nil {
		change(&o)
	}
	p.cache, err = cache.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan error, 1)
	go func() { stopped <- p.cache.Start(ctx) }()

	reverse := &httputil.ReverseProxy{Transport: transport, FlushInterval: -1, Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(base)
		r.Out.Header["Accept-Encoding"] = r.In.Header["Accept-Encoding"]
	}}
	last := pipeline.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		p.passed.Add(1)
		reverse.ServeHTTP(w, r)
		return nil
	})
	chain := pipeline.Chain(noop.NewTracerProvider().Tracer(""), last, grant{}, p.cache)
	server := httptest.NewUnstartedServer(&pipeline.Server{Handler: chain, Log: logr.Discard()})
	server.EnableHTTP2 = true
	server.StartTLS()
	p.door = door{t: t, url: server.URL, client: server.Client()}
	t.Cleanup(func() {
		p.client.CloseIdleConnections()
		cancel()
		if err := <-stopped; err != nil {
			t.Error(err)
		}
		server.CloseClientConnections()
		server.Close()
		utilnet.CloseIdleConnectionsFor(transport)
		goleak.VerifyNone(t, ignore, goleak.IgnoreAnyFunction("net/http.(*http2ClientConn).readLoop"), goleak.IgnoreAnyFunction("golang.org/x/net/http2.(*ClientConn).readLoop"),
			goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"), goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"),
			goleak.IgnoreAnyFunction("k8s.io/client-go/util/cert.(*dynamicClientCert).Run"))
	})
	return p
}

func httpClient(t testing.TB, cfg *rest.Config) *http.Client {
	t.Helper()
	tlsConfig, err := rest.TLSConfigFor(cfg)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: tlsConfig, ForceAttemptHTTP2: true, DisableCompression: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// An answer is a response read to its end.
type answer struct {
	status int
	header http.Header
	body   []byte
}

func (a answer) servedBy() string { return a.header.Get(cache.ServedBy) }

const (
	jsonType  = "application/json"
	protoType = "application/vnd.kubernetes.protobuf"
)

// open sends a request and leaves the body to the caller.
func (d *door) open(ctx context.Context, method, path, accept string, body []byte) *http.Response {
	d.t.Helper()
	r, err := http.NewRequestWithContext(ctx, method, d.url+path, bytes.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	r.Header.Set("Accept", accept)
	if body != nil {
		r.Header.Set("Content-Type", jsonType)
	}
	res, err := d.client.Do(r)
	if err != nil {
		d.t.Fatal(err)
	}
	return res
}

// get reads path to its end.
func (d *door) get(path, accept string) answer {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	res := d.open(ctx, http.MethodGet, path, accept, nil)
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	return answer{res.StatusCode, res.Header, body}
}

// write sends an object and returns what came back.
func (d *door) write(method, path string, object any) map[string]any {
	d.t.Helper()
	body, err := json.Marshal(object)
	if err != nil {
		d.t.Fatal(err)
	}
	if object == nil {
		body = nil
	}
	res := d.open(context.Background(), method, path, jsonType, body)
	defer func() { _ = res.Body.Close() }()
	var out map[string]any
	if err := json.NewDecoder(res.Body).Decode(&out); err != nil || res.StatusCode >= 300 {
		d.t.Fatalf("%s %s: %d %v %v", method, path, res.StatusCode, out, err)
	}
	return out
}

// patch merges into an object.
func (d *door) patch(path, merge string) map[string]any {
	d.t.Helper()
	r, err := http.NewRequest(http.MethodPatch, d.url+path, strings.NewReader(merge))
	if err != nil {
		d.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/merge-patch+json")
	res, err := d.client.Do(r)
	if err != nil {
		d.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	var out map[string]any
	if err := json.NewDecoder(res.Body).Decode(&out); err != nil || res.StatusCode >= 300 {
		d.t.Fatalf("patch %s: %d %v %v", path, res.StatusCode, out, err)
	}
	return out
}

type object = map[string]any

func meta(o object) object { return o["metadata"].(object) }

func rvOf(o object) string { return meta(o)["resourceVersion"].(string) }

func namespace(t testing.TB, d *door, name string) {
	t.Helper()
	d.write(http.MethodPost, "/api/v1/namespaces", object{"metadata": object{"name": name}})
}

func pod(name string, labels object) object {
	return object{
		"metadata": object{"name": name, "labels": labels},
		"spec":     object{"containers": []any{object{"name": "c", "image": "example.org/c"}}},
	}
}

// warm makes sure that the proxy holds path's collection in accept's format.
// Large ones take longer than the proxy lets a request wait.
func (p *proxy) warm(path, accept string) {
	p.t.Helper()
	var got answer
	for range 20 {
		if got = p.get(path+"?resourceVersion=0", accept); got.servedBy() == "cache" {
			return
		}
	}
	p.t.Fatalf("%s was answered %d, not from memory: %.300s", path, got.status, got.body)
}
