package cache_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"regexp"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"go.opentelemetry.io/otel/trace/noop"
	"go.uber.org/goleak"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/client-go/rest"

	"github.com/portico-proxy/portico/core/cache"
	"github.com/portico-proxy/portico/core/cache/cachetest"
	"github.com/portico-proxy/portico/core/pipeline"
	"github.com/portico-proxy/portico/test/controlplane"
)

// plane is shared by all tests of the package: each uses namespaces of its own.
var plane *controlplane.ControlPlane

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

// planeOptions are those of every control plane here.
func planeOptions(programs string) controlplane.Options {
	return controlplane.Options{Programs: programs, Flags: map[controlplane.Part][]string{
		controlplane.APIServer: {"--disable-admission-plugins=ServiceAccount"},
	}}
}

func run(m *testing.M) int {
	if controlplane.Fuzzing() {
		return m.Run()
	}
	dir, err := controlplane.Programs(context.Background(), controlplane.ProgramsOptions{Progress: os.Stderr})
	if err == nil {
		plane, err = controlplane.Start(context.Background(), planeOptions(dir))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer plane.Stop()
	return m.Run()
}

// direct is the way past the proxy.
func direct(t testing.TB) *cachetest.Door {
	t.Helper()
	return cachetest.NewDoor(t, plane.Config())
}

// proxy is a cache in front of the API server.
type proxy struct {
	*cachetest.Door
	handler  http.Handler
	t        testing.TB
	config   *rest.Config
	cache    *cache.Cache
	upstream *counter
	passed   atomic.Int64 // requests that the cache handed on
}

// counter counts what the cache itself sends upstream.
type counter struct {
	http.RoundTripper
	requests atomic.Int64
	gate     atomic.Pointer[chan struct{}] // holds requests until it is closed
	slow     atomic.Bool                   // delays what watches deliver
	lossy    atomic.Bool                   // loses some of it
	starved  atomic.Bool                   // loses bookmarks, but for those that end initial events
	brief    atomic.Bool                   // ends watches that are to be short at once
	held     atomic.Pointer[chan struct{}] // holds it back until it is closed
	rewound  atomic.Bool                   // lists are of an earlier revision
	deaf     atomic.Bool                   // does not hear that upstream proves progress on demand
	hasty    atomic.Bool                   // loses what comes before such a proof
	gone     atomic.Bool                   // nobody answers, though what is open stays open
	late     atomic.Bool                   // what it is asked takes too long
	unknown  atomic.Bool                   // upstream knows no longer who asks
	pausing  atomic.Bool                   // somebody on the way wants to be asked in a minute
	code     atomic.Int32                  // is what callers are answered, if not 0
}

// atFirst is a list as it might have been at revision 1.
func atFirst(body io.ReadCloser) io.ReadCloser {
	defer func() { _ = body.Close() }()
	text, err := io.ReadAll(body)
	if err != nil {
		return http.NoBody
	}
	of := regexp.MustCompile(`"resourceVersion":"\d+"`)
	return io.NopCloser(bytes.NewReader(of.ReplaceAll(text, []byte(`"resourceVersion":"1"`))))
}

// held is a watch that says nothing while somebody holds it.
type held struct {
	io.ReadCloser
	by *counter
}

func (h held) Read(p []byte) (int, error) {
	n, err := h.ReadCloser.Read(p)
	if gate := h.by.held.Load(); gate != nil {
		<-*gate
	}
	return n, err
}

// lagging is a watch over a slow line.
type lagging struct{ io.ReadCloser }

func (l lagging) Read(p []byte) (int, error) {
	n, err := l.ReadCloser.Read(p)
	<-time.After(lag)
	return n, err
}

// leaky is a watch that loses every third event, or all, or bookmarks instead.
type leaky struct {
	io.ReadCloser
	bookmarks bool
	events    bool // all of them
	lines     *bufio.Reader
	n         int
	left      []byte
}

func (l *leaky) Read(p []byte) (int, error) {
	for len(l.left) == 0 {
		line, err := l.lines.ReadBytes('\n')
		if err != nil {
			return 0, err
		}
		if l.n++; !l.loses(line) {
			l.left = line
		}
	}
	n := copy(p, l.left)
	l.left = l.left[n:]
	return n, nil
}

func (l *leaky) loses(line []byte) bool {
	bookmark := bytes.Contains(line, []byte(`"BOOKMARK"`))
	if l.bookmarks {
		return bookmark && !bytes.Contains(line, []byte("initial-events-end"))
	}
	return (l.events || l.n%3 == 0) && !bookmark
}

var errGone = &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}

// lag is long enough for a write to be read back before memory has its event.
const lag = 10 * time.Millisecond

func (c *counter) RoundTrip(r *http.Request) (*http.Response, error) {
	c.requests.Add(1)
	if gate := c.gate.Load(); gate != nil {
		<-*gate
	}
	if c.gone.Load() {
		return nil, errGone
	}
	if c.late.Load() {
		return nil, context.DeadlineExceeded
	}
	if c.unknown.Load() {
		return &http.Response{StatusCode: http.StatusUnauthorized, Body: http.NoBody}, nil
	}
	if c.pausing.Load() {
		return &http.Response{StatusCode: http.StatusServiceUnavailable, Header: http.Header{"Retry-After": {"60"}}, Body: http.NoBody}, nil
	}
	res, err := c.RoundTripper.RoundTrip(r)
	if err == nil && c.rewound.Load() && r.URL.Query().Get("watch") == "" {
		res.Body = atFirst(res.Body)
	}
	if err != nil || r.URL.Query().Get("watch") == "" {
		return res, err
	}
	c.spoil(r, res)
	return res, nil
}

// spoil changes the answer to a watch.
func (c *counter) spoil(r *http.Request, res *http.Response) {
	if c.deaf.Load() {
		res.Header.Del("Portico-Progress")
	}
	if r.Header.Get("Portico-Progress") != "" && c.hasty.Load() {
		res.Body = &leaky{ReadCloser: res.Body, events: true, lines: bufio.NewReader(res.Body)}
	}
	if c.brief.Load() && r.URL.Query().Get("timeoutSeconds") == "3" {
		_ = res.Body.Close()
		res.Body = http.NoBody
	}
	res.Body = held{res.Body, c}
	if c.slow.Load() {
		res.Body = lagging{res.Body}
	}
	if c.lossy.Load() || c.starved.Load() {
		res.Body = &leaky{ReadCloser: res.Body, bookmarks: c.starved.Load(), lines: bufio.NewReader(res.Body)}
	}
}

// grant stands for the filters that ask whether a request would be answered from memory
// and whether its caller may see that.
type grant struct{ *cache.Cache }

func (grant) Name() string { return "grant" }
func (g grant) ServeHTTP(w http.ResponseWriter, r *http.Request, next pipeline.Handler) error {
	if asked, ok := g.Ask(r); ok && g.Stale(asked) > 0 {
		r = asked
	}
	ctx := request.WithUser(r.Context(), &user.DefaultInfo{Name: "somebody"})
	return next.ServeHTTP(w, r.WithContext(pipeline.WithGrant(ctx)))
}

// newProxy starts a cache and a server in front of it, and stops both with the test.
func newProxy(t testing.TB, change func(*cache.Options)) *proxy {
	t.Helper()
	return newProxyOf(t, plane.Config(), change)
}

// newProxyOf does so for another API server.
func newProxyOf(t testing.TB, cfg *rest.Config, change func(*cache.Options)) *proxy {
	t.Helper()
	ignore := goleak.IgnoreCurrent()
	p, stop := startProxy(t, cfg, change)
	t.Cleanup(func() {
		stop()
		expectNoLeaks(t, ignore)
	})
	return p
}

// newTiers starts a proxy of an area, and one of a node that has that for its API
// server, and stops both with the test.
func newTiers(t testing.TB, change func(*cache.Options)) (area, node *proxy) {
	t.Helper()
	ignore := goleak.IgnoreCurrent()
	area, stopArea := startProxy(t, plane.Config(), change)
	node, stopNode := startProxy(t, area.config, change)
	t.Cleanup(func() {
		stopNode()
		stopArea()
		expectNoLeaks(t, ignore)
	})
	return area, node
}

func expectNoLeaks(t testing.TB, ignore goleak.Option) {
	t.Helper()
	goleak.VerifyNone(t, ignore, goleak.IgnoreAnyFunction("net/http.(*http2ClientConn).readLoop"), goleak.IgnoreAnyFunction("golang.org/x/net/http2.(*ClientConn).readLoop"),
		goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"), goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"),
		goleak.IgnoreAnyFunction("k8s.io/client-go/util/cert.(*dynamicClientCert).Run"))
}

// startProxy starts a cache and a server in front of it.
func startProxy(t testing.TB, cfg *rest.Config, change func(*cache.Options)) (p *proxy, stop func()) {
	t.Helper()
	transport, err := rest.TransportFor(cfg)
	if err != nil {
		t.Fatal(err)
	}
	base, err := url.Parse(cfg.Host)
	if err != nil {
		t.Fatal(err)
	}
	p = &proxy{t: t, upstream: &counter{RoundTripper: transport}}
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
		if p.upstream.gone.Load() {
			return apierrors.NewServiceUnavailable("the API server cannot be reached")
		}
		if code := p.upstream.code.Load(); code != 0 {
			w.WriteHeader(int(code))
			return nil
		}
		reverse.ServeHTTP(w, r)
		return nil
	})
	chain := pipeline.Chain(noop.NewTracerProvider().Tracer(""), last, grant{p.cache}, p.cache)
	p.handler = &pipeline.Server{Handler: chain, Log: logr.Discard()}
	server := httptest.NewUnstartedServer(p.handler)
	server.EnableHTTP2 = true
	server.StartTLS()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	p.config = &rest.Config{Host: server.URL, TLSClientConfig: rest.TLSClientConfig{CAData: ca}}
	p.Door = cachetest.NewDoor(t, p.config)
	return p, func() {
		cancel()
		if err := <-stopped; err != nil {
			t.Error(err)
		}
		server.CloseClientConnections()
		server.Close()
		utilnet.CloseIdleConnectionsFor(transport)
	}
}

// warm makes sure that the proxy holds path's collection in accept's format.
// Large ones take longer than the proxy lets a request wait.
func (p *proxy) warm(path, accept string) {
	p.t.Helper()
	if !strings.Contains(path, "?") {
		path += "?resourceVersion=0"
	}
	var got cachetest.Answer
	for range 20 {
		if got = p.Get(path, accept); got.ServedBy() == "cache" {
			return
		}
	}
	p.t.Fatalf("%s was answered %d, not from memory: %.300s", path, got.Status, got.Body)
}

// nothingRefused lets everything into memory.
func nothingRefused(o *cache.Options) {
	o.Policies = func(schema.GroupResource) cache.Policy { return cache.Policy{} }
}

type object = cachetest.Object

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

func marshal(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
