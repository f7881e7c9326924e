// Package upstream is the last handler of the chain: it sends a request to the
// API server as the caller sent it and streams the answer back.
package upstream

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/http/httptrace"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"

	"github.com/go-logr/logr"
	"golang.org/x/net/http/httpguts"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/transport"

	"github.com/portico-proxy/portico/core/pipeline"
	"github.com/portico-proxy/portico/core/telemetry"
	"github.com/portico-proxy/portico/core/view"
	"github.com/portico-proxy/portico/core/view/lens"
)

// Options says which API server to speak to, and as whom.
type Options struct {
	// Config names the API server and holds the proxy's own identity. The
	// identity is lent to nobody: see [Upstream.RoundTrip].
	Config *rest.Config
	// Addresses are host:port pairs of the same API server, tried when the one
	// in use is gone. Empty means the one in Config.Host; so it must be where
	// Config has a proxy-url.
	Addresses []string
	// Name is this proxy's among those that share Addresses: it decides which of
	// them it prefers. Empty means any.
	Name string
	// Telemetry traces and counts what is sent.
	Telemetry *telemetry.Telemetry
	// Log receives changes of the addresses' state.
	Log logr.Logger
}

// Upstream is the API server behind the proxy.
type Upstream struct {
	target    *url.URL
	telemetry *telemetry.Telemetry
	log       logr.Logger
	callers   leg // carries what callers send, as they send it
	own       leg // carries the proxy's identity
	dialer    *dialer
	silence   silence
	bulk      *httputil.ReverseProxy
	watches   *httputil.ReverseProxy

	drain     context.Context
	stopWatch context.CancelFunc
}

// A leg is the connection pools of one identity.
type leg struct {
	requests http.RoundTripper
	upgrades http.RoundTripper // HTTP/1.1: HTTP/2 has no Upgrade, among others
	reads    *reads            // nil if there is no such pool
	// strangers are for those who are not acquainted; nil if there are none.
	strangers http.RoundTripper
	*acquaintances
}

// errRoads says that addresses would not be used.
var errRoads = errors.New("--server names addresses to connect to, and the kubeconfig has a proxy-url, which connects to the kubeconfig's own server: take away one of the two")

// New prepares connections to the API server; it does not open any.
func New(o Options) (*Upstream, error) {
	if o.Config.Proxy != nil && len(o.Addresses) > 0 {
		return nil, errRoads
	}
	target, err := apiServer(o.Config)
	if err != nil {
		return nil, err
	}
	d := newDialer(target, o)
	if o.Config.Proxy == nil {
		d.check = func(ctx context.Context, address string) error {
			return answers(ctx, target.String()+"/livez", address, tlsTo(o.Config, false, false))
		}
	}
	callers, own, err := newLegs(o.Config, d)
	if err != nil {
		return nil, err
	}
	u := &Upstream{target: target, telemetry: o.Telemetry, log: o.Log, callers: callers, own: own, dialer: d}
	u.drain, u.stopWatch = context.WithCancel(context.Background()) //nolint:forbidigo // ended by EndWatches alone
	u.bulk = u.reverseProxy(bulkBuffers)
	u.watches = u.reverseProxy(watchBuffers)
	return u, nil
}

// apiServer is where cfg points to, with any path prefix.
func apiServer(cfg *rest.Config) (*url.URL, error) {
	target, _, err := rest.DefaultServerUrlFor(cfg)
	if err != nil {
		return nil, fmt.Errorf("read the API server's address %q: %w", cfg.Host, err)
	}
	target.Path = strings.TrimSuffix(target.Path, "/")
	return target, nil
}

func (u *Upstream) reverseProxy(buffers httputil.BufferPool) *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Rewrite:        u.rewrite,
		Transport:      u,
		FlushInterval:  -1, // a watcher waits for each frame
		BufferPool:     buffers,
		ModifyResponse: u.received,
		ErrorLog:       log.New(detail{u.log}, "", 0),
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			w.(*answer).err = err
		},
	}
}

// detail passes what the reverse proxy says of answers that break off to the
// log of those who ask: metrics count them.
type detail struct{ log logr.Logger }

func (d detail) Write(p []byte) (int, error) {
	d.log.V(2).Info("answer broke off", "detail", string(p))
	return len(p), nil
}

// received sees the answer's header before the caller does.
func (u *Upstream) received(res *http.Response) error {
	if res.StatusCode == http.StatusSwitchingProtocols {
		return nil
	}
	res.Header.Set(telemetry.HeaderServedBy, telemetry.ServedByUpstream)
	if len(res.Trailer) > 0 {
		// HTTP/1.1 has room for trailers only where the length is not said.
		res.Header.Del("Content-Length")
	}
	if res.StatusCode == http.StatusOK && isWatch(res.Request) {
		u.watchCleanly(res)
	}
	if isRead(res.Request) && isObject(res.Header) && len(res.Trailer) == 0 {
		res.Body = &gathered{ReadCloser: res.Body}
	}
	if l := lens.From(res.Request.Context()); l != nil {
		return l.Apply(res)
	}
	return nil
}

// answer carries the reverse proxy's error to the chain, which alone writes errors.
type answer struct {
	http.ResponseWriter
	err  error
	read bool // the request is one: see isRead
}

func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// FlushError flushes what somebody waits for. Nobody waits for half an object.
func (a *answer) FlushError() error {
	if a.read && isObject(a.Header()) {
		return nil
	}
	return http.NewResponseController(a.ResponseWriter).Flush()
}

// ServeHTTP passes r on. Once it has begun to answer it can only succeed or
// panic with http.ErrAbortHandler, which cuts the connection.
func (u *Upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) error {
	if err := checkTarget(r); err != nil {
		return err
	}
	if err := checkHeaders(r); err != nil {
		return err
	}
	r, err := lens.On(r)
	if err != nil {
		return err
	}
	if isWatch(r) && len(r.Header["Upgrade"]) > 0 { // nobody here reads its frames: it is cut
		ctx, cancel := view.Views(nil).Until(r.Context())
		defer cancel()
		r = r.WithContext(ctx)
	}
	out, connection := &answer{ResponseWriter: w, read: isRead(r)}, &connection{}
	u.proxyFor(r).ServeHTTP(out, r.WithContext(connection.watch(r.Context())))
	if out.err == nil || errors.Is(out.err, view.ErrUnseen) {
		return out.err
	}
	return unreachable(r, out.err, connection.address.Load() != nil)
}

// connection is the one that a request was sent on, if any was.
type connection struct {
	address atomic.Pointer[string] // set from the transport's goroutines
}

type connectionKey struct{}

func (c *connection) watch(ctx context.Context) context.Context {
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		address := info.Conn.RemoteAddr().String()
		c.address.Store(&address)
	}})
	return context.WithValue(ctx, connectionKey{}, c)
}

func (u *Upstream) proxyFor(r *http.Request) *httputil.ReverseProxy {
	if isWatch(r) {
		return u.watches
	}
	return u.bulk
}

// rewrite leaves the request as it came, but for where it goes, and watches, whose
// frames have to be known.
func (u *Upstream) rewrite(p *httputil.ProxyRequest) {
	out := p.Out
	out.URL.Scheme, out.URL.Host = u.target.Scheme, u.target.Host
	if u.target.Path != "" {
		out.URL.Path = u.target.Path + out.URL.Path
		if out.URL.RawPath != "" {
			out.URL.RawPath = u.target.EscapedPath() + out.URL.RawPath
		}
	}
	// ReverseProxy drops parameters it cannot parse; judging them is upstream's.
	out.URL.RawQuery = p.In.URL.RawQuery
	out.Host = sendable(p.In.Host)
	// Not a copy: it is filled when the body has been read.
	out.Trailer = p.In.Trailer
	forward(p)
	if isWatch(p.In) && len(p.In.Header["Upgrade"]) == 0 {
		refuseEncodings(out.Header)
	}
	makeReplayable(out)
}

// RoundTrip sends r by the leg of the caller it is for. Callers' requests never
// travel on a connection that presents the proxy's client certificate: the API
// server would take that for the caller.
func (u *Upstream) RoundTrip(r *http.Request) (*http.Response, error) {
	if l := lens.From(r.Context()); l != nil {
		return l.RoundTrip(r, u.roundTrip)
	}
	return u.roundTrip(r)
}

func (u *Upstream) roundTrip(r *http.Request) (*http.Response, error) {
	call := u.telemetry.StartUpstream(r)
	res, err := u.send(r)
	if c, ok := r.Context().Value(connectionKey{}).(*connection); ok {
		if address := c.address.Load(); address != nil {
			call.Address = *address
		}
	}
	call.End(res, err)
	if err == nil {
		mayEndEarly(res, r)
	}
	return res, err
}

func (u *Upstream) send(r *http.Request) (*http.Response, error) {
	caller, ok := r.Context().Value(impersonateKey{}).(user.Info)
	if !ok {
		return u.callers.roundTrip(r)
	}
	dropCredentials(r.Header)
	as := transport.ImpersonationConfig{
		UserName: caller.GetName(), UID: caller.GetUID(), Groups: caller.GetGroups(), Extra: caller.GetExtra(),
	}
	return transport.NewImpersonatingRoundTripper(as, roundTripper(u.own.roundTrip)).RoundTrip(r)
}

func (l leg) roundTrip(r *http.Request) (*http.Response, error) {
	if l.strangers == nil {
		return l.poolFor(r).RoundTrip(r)
	}
	credential := l.of(r)
	pool := l.poolFor(r)
	if pool == l.requests && !l.know(credential) {
		pool = l.strangers
	}
	res, err := pool.RoundTrip(r)
	if err == nil {
		l.learn(r, credential, res.StatusCode)
	}
	return res, err
}

func (l leg) poolFor(r *http.Request) http.RoundTripper {
	// HTTP/2 has no path in a CONNECT (RFC 9113 section 8.5). And if trailers come
	// after the answer, Go's HTTP/2 server closes the connection for everybody.
	needsHTTP1 := r.Method == http.MethodConnect && r.URL.Path != "" || len(r.Trailer) > 0
	if needsHTTP1 || httpguts.HeaderValuesContainsToken(r.Header["Connection"], "Upgrade") {
		return l.upgrades
	}
	if l.reads != nil && isRead(r) && fitsHTTP1(r) && l.reads.enter() {
		return l.reads
	}
	return l.requests
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// Own carries the proxy's own requests, such as reviews, under its own identity.
func (u *Upstream) Own() http.RoundTripper { return roundTripper(u.ask) }

// Base is the API server's address, with any path prefix. It is the caller's.
func (u *Upstream) Base() *url.URL {
	base := *u.target
	return &base
}

// EndWatches ends all watches, each after the frame it is in, as if their time
// were over. It returns at once; watches that begin later end at once.
func (u *Upstream) EndWatches() { u.stopWatch() }

// Close ends watches and idle connections. Requests in flight go on.
func (u *Upstream) Close() {
	u.stopWatch()
	u.dialer.end()
	for _, l := range []leg{u.callers, u.own} {
		closeIdle(l.requests)
		closeIdle(l.upgrades)
		if l.strangers != nil {
			closeIdle(l.strangers)
		}
		if l.reads != nil {
			closeIdle(l.reads.RoundTripper)
		}
	}
}

type impersonateKey struct{}

// WithImpersonation makes the request go upstream as caller, on the proxy's
// credential. Only for callers whose own credential cannot be passed on, and
// only after it has been verified.
func WithImpersonation(ctx context.Context, caller user.Info) context.Context {
	return context.WithValue(ctx, impersonateKey{}, caller)
}

func isWatch(r *http.Request) bool {
	info, ok := request.RequestInfoFrom(r.Context())
	return ok && info.Verb == "watch"
}

var (
	_ pipeline.Handler  = (*Upstream)(nil)
	_ http.RoundTripper = (*Upstream)(nil)
)
