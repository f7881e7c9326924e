package storage

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"go.opentelemetry.io/otel/trace/noop"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/portico-proxy/portico/core/cache"
	"github.com/portico-proxy/portico/core/pipeline"
)

// proxy is the cache in front of an API server.
type proxy struct {
	t        *testing.T
	upstream *httptest.Server
	lag      time.Duration
	frozen   atomic.Bool
	server   *httptest.Server
	chain    pipeline.Switch
	end      func() // ends the cache that runs
}

// newProxy starts a proxy that upstream watches reach late by lag.
func newProxy(t *testing.T, upstream *httptest.Server, lag time.Duration) *proxy {
	t.Helper()
	p := &proxy{t: t, upstream: upstream, lag: lag}
	p.live()
	t.Cleanup(func() { p.end() })
	p.server = httptest.NewUnstartedServer(&pipeline.Server{Handler: &p.chain, Log: logr.Discard()})
	p.server.EnableHTTP2 = true
	p.server.StartTLS()
	t.Cleanup(func() {
		p.server.CloseClientConnections()
		p.server.Close()
	})
	return p
}

// grant stands for the filter that asks whether a caller may see an answer.
type grant struct{}

func (grant) Name() string { return "grant" }
func (grant) ServeHTTP(w http.ResponseWriter, r *http.Request, next pipeline.Handler) error {
	ctx := request.WithUser(r.Context(), &user.DefaultInfo{Name: "somebody"})
	return next.ServeHTTP(w, r.WithContext(pipeline.WithGrant(ctx)))
}

// live begins a cache that knows nothing.
func (p *proxy) live() {
	base, err := url.Parse(p.upstream.URL)
	if err != nil {
		p.t.Fatal(err)
	}
	transport := p.upstream.Client().Transport
	c, err := cache.New(cache.Options{Upstream: late{transport, p.lag, &p.frozen}, Base: base, Log: logr.Discard()})
	if err != nil {
		p.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan error, 1)
	go func() { stopped <- c.Start(ctx) }()
	p.end = func() {
		cancel()
		if err := <-stopped; err != nil {
			p.t.Error(err)
		}
	}
	reverse := &httputil.ReverseProxy{Transport: transport, FlushInterval: -1, Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(base)
		r.Out.Header["Accept-Encoding"] = r.In.Header["Accept-Encoding"]
	}}
	last := pipeline.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		reverse.ServeHTTP(w, r)
		return nil
	})
	p.chain.Store(pipeline.Chain(noop.NewTracerProvider().Tracer(""), last, grant{}, c))
}

// restart makes the proxy forget what it had in memory.
func (p *proxy) restart() {
	p.end()
	p.live()
}

// late delays what watches deliver. While it is frozen they deliver nothing more, and
// none begins.
type late struct {
	http.RoundTripper
	lag    time.Duration
	frozen *atomic.Bool
}

func (l late) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Query().Get("watch") == "" {
		return l.RoundTripper.RoundTrip(r)
	}
	if l.frozen.Load() {
		<-r.Context().Done()
	}
	res, err := l.RoundTripper.RoundTrip(r)
	if err == nil {
		res.Body = lateBody{res.Body, r.Context(), l}
	}
	return res, err
}

type lateBody struct {
	io.ReadCloser
	ctx  context.Context
	late late
}

func (b lateBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.late.lag > 0 {
		<-time.After(b.late.lag)
	}
	if b.late.frozen.Load() {
		<-b.ctx.Done()
	}
	return n, err
}
