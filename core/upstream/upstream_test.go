package upstream

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/rest"

	"github.com/portico-proxy/portico/core/pipeline"
	"github.com/portico-proxy/portico/core/telemetry"
)

// origin is an API server that does what the test says, over HTTP/2.
func origin(t *testing.T, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	srv := httptest.NewUnstartedServer(h)
	srv.EnableHTTP2 = true
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return srv
}

// before is an upstream, and a proxy with nothing but it, before an origin.
func before(t *testing.T, cfg *rest.Config, addresses ...string) (*Upstream, *httptest.Server) {
	t.Helper()
	tm, err := telemetry.New(t.Context(), telemetry.Options{Registry: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	u, err := New(Options{Config: cfg, Addresses: addresses, Telemetry: tm, Log: logr.Discard()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(u.Close)
	proxy := httptest.NewServer(&pipeline.Server{Handler: u, Log: logr.Discard()})
	t.Cleanup(proxy.Close)
	return u, proxy
}

func configOf(srv *httptest.Server) *rest.Config {
	return &rest.Config{Host: srv.URL, BearerToken: "the-proxy", TLSClientConfig: rest.TLSClientConfig{Insecure: true}}
}

func get(t *testing.T, url string) (*http.Response, string) {
	t.Helper()
	res, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(body)
}

func TestRequestArrivesAsItWasSent(t *testing.T) {
	var got http.Request
	srv := origin(t, func(_ http.ResponseWriter, r *http.Request) { got = *r })
	_, proxy := before(t, configOf(srv))
	const target = "/api/v1/namespaces/a%2Fb/pods//x/../y?labelSelector=a%3Db&bad;param&limit=%zz&x"
	conn, err := net.Dial("tcp", proxy.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, err = io.WriteString(conn, "GET "+target+" HTTP/1.1\r\nHost: kubernetes.default\r\nX-Forwarded-For: 192.0.2.1\r\nX-Remote-User: root\r\nAccept: text/x\r\nConnection: close\r\n\r\n")
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if got.RequestURI != target || got.Host != "kubernetes.default" {
		t.Errorf("arrived as %s at %s", got.RequestURI, got.Host)
	}
	want := http.Header{"Accept": {"text/x"}, "X-Forwarded-For": {"192.0.2.1, 127.0.0.1"}}
	if diff := cmp.Diff(want, got.Header); diff != "" {
		t.Error(diff)
	}
}

func TestPathPrefixOfTheKubeconfigIsKept(t *testing.T) {
	var got string
	srv := origin(t, func(_ http.ResponseWriter, r *http.Request) { got = r.RequestURI })
	cfg := configOf(srv)
	cfg.Host += "/k8s/clusters/c-1/"
	_, proxy := before(t, cfg)
	get(t, proxy.URL+"/api/v1/pods/a%2Fb?x=1")
	if got != "/k8s/clusters/c-1/api/v1/pods/a%2Fb?x=1" {
		t.Errorf("asked for %s", got)
	}
}

func TestNobodyGetsTheProxysCredential(t *testing.T) {
	var got string
	srv := origin(t, func(_ http.ResponseWriter, r *http.Request) { got = r.Header.Get("Authorization") })
	_, proxy := before(t, configOf(srv))
	get(t, proxy.URL+"/api/v1/pods")
	if got != "" {
		t.Errorf("an anonymous caller went upstream with %q", got)
	}
}

func TestImpersonationReplacesWhatTheCallerSays(t *testing.T) {
	var got http.Header
	srv := origin(t, func(_ http.ResponseWriter, r *http.Request) { got = r.Header.Clone() })
	u, _ := before(t, configOf(srv))
	r := httptest.NewRequest("GET", "/api/v1/pods", nil)
	r.Header.Set("Authorization", "Basic smuggled")
	r.Header.Set("Impersonate-User", "root")
	r.Header.Set("Impersonate-Extra-Scopes", "all")
	r.Header.Set("Sec-Websocket-Protocol", "v4.channel.k8s.io, base64url.bearer.authorization.k8s.io.c211Z2dsZWQ")
	caller := &user.DefaultInfo{Name: "jane", UID: "7", Groups: []string{"devs"}}
	if err := u.ServeHTTP(httptest.NewRecorder(), r.WithContext(WithImpersonation(r.Context(), caller))); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"Authorization": "Bearer the-proxy", "Impersonate-User": "jane", "Impersonate-Uid": "7", "Impersonate-Group": "devs", "Impersonate-Extra-Scopes": "", "Sec-Websocket-Protocol": "v4.channel.k8s.io"} {
		if got.Get(name) != want {
			t.Errorf("%s is %q, want %q", name, got.Get(name), want)
		}
	}
}

func TestConnectionMayNotNameCredentials(t *testing.T) {
	srv := origin(t, func(http.ResponseWriter, *http.Request) { t.Error("it went upstream") })
	_, proxy := before(t, configOf(srv))
	for _, value := range []string{"Impersonate-User", "close,  impersonate-group", "\tauthorization", "X-Remote-User", "keep-alive, Audit-ID"} {
		r, err := http.NewRequestWithContext(t.Context(), "GET", proxy.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Connection", value)
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusBadRequest {
			t.Errorf("%q: got %d", value, res.StatusCode)
		}
	}
}

func TestGoneUpstreamIs503(t *testing.T) {
	closed := httptest.NewTLSServer(nil)
	closed.Close()
	u, proxy := before(t, configOf(closed))
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		r, err := http.NewRequestWithContext(t.Context(), method, proxy.URL+"/api/v1/pods", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		// Nothing was sent, so a write may be sent again too.
		if res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") == "" {
			t.Errorf("%s: got %d, Retry-After %q", method, res.StatusCode, res.Header.Get("Retry-After"))
		}
	}
	if u.Ready(httptest.NewRequest("GET", "/readyz", nil)) == nil {
		t.Error("ready without an API server")
	}
	if u.Started(t.Context()) {
		t.Error("an API server that is gone has started")
	}
}

func TestAPIServersSayThatTheyHaveStarted(t *testing.T) {
	code := http.StatusForbidden
	u, _ := before(t, configOf(origin(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/readyz" {
			w.WriteHeader(code)
		}
	})))
	for _, code = range []int{http.StatusForbidden, http.StatusInternalServerError, http.StatusOK} {
		if got := u.Started(t.Context()); got != (code == http.StatusOK) {
			t.Errorf("%d means that it has started: %v", code, got)
		}
	}
}

func TestWriteOfUnknownOutcomeIsNotToBeRepeated(t *testing.T) {
	srv := origin(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	u, _ := before(t, configOf(srv))
	for method, retry := range map[string]int32{http.MethodGet: retrySeconds, http.MethodPost: 0, http.MethodPatch: 0, http.MethodDelete: 0} {
		err := u.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(method, "/api/v1/pods", nil))
		status := apierrors.APIStatus(nil)
		if !errors.As(err, &status) || status.Status().Reason != metav1.StatusReasonServiceUnavailable {
			t.Fatalf("%s: got %v", method, err)
		}
		seconds := int32(0)
		if d := status.Status().Details; d != nil {
			seconds = d.RetryAfterSeconds
		}
		if seconds != retry {
			t.Errorf("%s: retry after %d s, want %d", method, seconds, retry)
		}
	}
}

func TestAnotherAddressServesWhenOneIsGone(t *testing.T) {
	srv := origin(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "here") })
	closed := httptest.NewTLSServer(nil)
	closed.Close()
	cfg := configOf(closed)
	_, proxy := before(t, cfg, closed.Listener.Addr().String(), srv.Listener.Addr().String())
	if res, body := get(t, proxy.URL); res.StatusCode != http.StatusOK || body != "here" {
		t.Errorf("got %d %q", res.StatusCode, body)
	}
}

func TestAddressesBehindAProxyAreRefused(t *testing.T) {
	cfg := configOf(origin(t, func(http.ResponseWriter, *http.Request) {}))
	cfg.Proxy = http.ProxyURL(&url.URL{Scheme: "http", Host: "proxy.example.org:3128"})
	for addresses, want := range map[string]error{"": nil, "10.0.0.1:6443": errRoads} {
		u, err := New(Options{Config: cfg, Addresses: strings.Fields(addresses), Log: logr.Discard()})
		if !errors.Is(err, want) {
			t.Errorf("with %q: %v, want %v", addresses, err, want)
		}
		if u != nil {
			u.Close()
		}
	}
}

func TestCutAnswerIsNotTakenForWhole(t *testing.T) {
	srv := origin(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "half")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	_, proxy := before(t, configOf(srv))
	res, err := http.Get(proxy.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if body, err := io.ReadAll(res.Body); err == nil {
		t.Errorf("got %q without an error", body)
	}
}

func TestAnswersSayThatTheyAreUpstreams(t *testing.T) {
	srv := origin(t, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Portico-Served-By", "cache") })
	_, proxy := before(t, configOf(srv))
	if res, _ := get(t, proxy.URL); res.Header.Get("Portico-Served-By") != "upstream" {
		t.Errorf("got %q", res.Header.Get("Portico-Served-By"))
	}
}

// TestRefusalsReachClientsAsTheyAre has an API server that is busy, and one that is
// not ready: it is asked once, and what it says of when to come again is handed on.
func TestRefusalsReachClientsAsTheyAre(t *testing.T) {
	for _, code := range []int{http.StatusTooManyRequests, http.StatusServiceUnavailable} {
		var asked atomic.Int32
		srv := origin(t, func(w http.ResponseWriter, _ *http.Request) {
			asked.Add(1)
			w.Header().Set("Retry-After", "17")
			w.Header().Set("X-Kubernetes-Pf-Flowschema-Uid", "f")
			w.WriteHeader(code)
			_, _ = io.WriteString(w, "not now")
		})
		_, proxy := before(t, configOf(srv))
		for n, path := range []string{"/api/v1/pods", "/api/v1/pods?watch=1", "/version"} {
			res, body := get(t, proxy.URL+path)
			if res.StatusCode != code || res.Header.Get("Retry-After") != "17" || res.Header.Get("X-Kubernetes-Pf-Flowschema-Uid") != "f" || body != "not now" {
				t.Errorf("%s: %d %v %q, want %d as it is", path, res.StatusCode, res.Header, body, code)
			}
			if asked.Load() != int32(n+1) {
				t.Errorf("%s: asked %d times", path, asked.Load()-int32(n))
			}
		}
	}
}
