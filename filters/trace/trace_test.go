package trace_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/klog/v2"

	"github.com/portico-proxy/portico/core/pipeline"
	"github.com/portico-proxy/portico/core/telemetry"
	"github.com/portico-proxy/portico/core/telemetry/telemetrytest"
	"github.com/portico-proxy/portico/filters/trace"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// filter passes requests on.
type filter string

func (f filter) Name() string { return string(f) }

func (f filter) ServeHTTP(w http.ResponseWriter, r *http.Request, next pipeline.Handler) error {
	return next.ServeHTTP(w, r)
}

// proxy is a chain behind a real listener: trace, two filters, and last.
type proxy struct {
	*httptest.Server
	collector *telemetrytest.Collector
	telemetry *telemetry.Telemetry
	registry  *prometheus.Registry
	log       bytes.Buffer
	// ended receives once for every request that has left the chain.
	ended chan struct{}
}

type options struct {
	tracing   bool
	verbosity int
	last      func(p *proxy, w http.ResponseWriter, r *http.Request) error
}

func start(t *testing.T, o options) *proxy {
	t.Helper()
	p := &proxy{registry: prometheus.NewRegistry(), ended: make(chan struct{}, 1)}
	clearEnvironment(t)
	if o.tracing {
		p.collector = telemetrytest.Start(t)
		t.Setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://"+p.collector.Address)
		t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
		t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "1") // ms
	}
	var err error
	if p.telemetry, err = telemetry.New(t.Context(), telemetry.Options{Registry: p.registry}); err != nil {
		t.Fatal(err)
	}
	log := funcr.New(func(_, args string) { fmt.Fprintln(&p.log, args) }, funcr.Options{Verbosity: o.verbosity})
	last := pipeline.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error { return o.last(p, w, r) })
	server := &pipeline.Server{Handler: pipeline.Chain(p.telemetry.Tracer, last, trace.New(p.telemetry, log), filter("first"), filter("second"))}
	p.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() { p.ended <- struct{}{} }()
		server.ServeHTTP(w, r)
	}))
	p.Start()
	t.Cleanup(func() {
		p.Close()
		p.flush(context.WithoutCancel(t.Context()), t)
	})
	return p
}

func clearEnvironment(t *testing.T) {
	t.Helper()
	for _, kv := range os.Environ() {
		if name, _, _ := strings.Cut(kv, "="); strings.HasPrefix(name, "OTEL_") {
			t.Setenv(name, "")
		}
	}
}

// flush makes what has ended arrive at the collector.
func (p *proxy) flush(ctx context.Context, t *testing.T) {
	t.Helper()
	if err := p.telemetry.Shutdown(ctx); err != nil {
		t.Error(err)
	}
}

// open sends a request and returns when the response's header is there. An
// error of the connection is a nil response.
func (p *proxy) open(t *testing.T, method, path string, header http.Header) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, p.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header = header
	res, err := p.Client().Do(r)
	if err != nil {
		return nil
	}
	t.Cleanup(func() { res.Body.Close() })
	return res
}

// do sends a request and waits until the chain is done with it.
func (p *proxy) do(t *testing.T, method, path string, header http.Header) *http.Response {
	t.Helper()
	res := p.open(t, method, path, header)
	if res != nil {
		io.Copy(io.Discard, res.Body) //nolint:errcheck // some responses break off
	}
	<-p.ended
	return res
}

func (p *proxy) expect(t *testing.T, metric string, want map[string]float64) {
	t.Helper()
	if want == nil {
		want = map[string]float64{}
	}
	if diff := cmp.Diff(want, telemetrytest.Series(t, p.registry, metric)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", metric, diff)
	}
}

// fromUpstream answers as core/upstream does, and tells what would have been sent.
func fromUpstream(sent *http.Header) func(*proxy, http.ResponseWriter, *http.Request) error {
	return func(p *proxy, w http.ResponseWriter, r *http.Request) error {
		out := r.Clone(r.Context())
		out.URL.Host = "192.0.2.1:6443"
		call := p.telemetry.StartUpstream(out)
		*sent = out.Header
		call.End(&http.Response{StatusCode: http.StatusOK}, nil)
		w.Header().Set(telemetry.HeaderServedBy, telemetry.ServedByUpstream)
		_, err := io.WriteString(w, "answer")
		return err
	}
}

func TestSpansOfOneRequest(t *testing.T) {
	const callersTrace = "0af7651916cd43dd8448eb211c80319c"
	var sent http.Header
	p := start(t, options{tracing: true, last: fromUpstream(&sent)})

	p.do(t, "GET", "/api/v1/namespaces/shop/pods/web", http.Header{"Traceparent": {"00-" + callersTrace + "-b7ad6b7169203331-01"}, "Baggage": {"a=b"}})
	p.flush(t.Context(), t)

	const name = "GET /api/v1/namespaces/{:namespace}/pods/{:name}"
	server, client := p.collector.Span(t, "SERVER", name), p.collector.Span(t, "CLIENT", name)
	if diff := cmp.Diff([]string{callersTrace}, server.Links); diff != "" || server.ParentID != "" || server.TraceID == callersTrace {
		t.Errorf("the caller's context must be a link and nothing else: %+v", server)
	}
	for _, s := range []telemetrytest.Span{p.collector.Span(t, "INTERNAL", "filter first"), p.collector.Span(t, "INTERNAL", "filter second"), client} {
		if s.ParentID != server.SpanID {
			t.Errorf("%s %s is not a child of the server span", s.Kind, s.Name)
		}
	}
	if n := len(p.collector.Spans()); n != 4 {
		t.Errorf("%d spans, want 4", n)
	}
	if got, want := sent.Get("Traceparent"), "00-"+server.TraceID+"-"+client.SpanID+"-01"; got != want {
		t.Errorf("traceparent sent upstream is %q, want %q", got, want)
	}
	id := sent.Get("Audit-ID")
	if _, err := uuid.Parse(id); err != nil || server.Attributes["audit-id"] != id || client.Attributes["audit-id"] != id {
		t.Errorf("Audit-ID %q went upstream, the spans have %q and %q", id, server.Attributes["audit-id"], client.Attributes["audit-id"])
	}
	for key, want := range map[string]string{"http.response.status_code": "200", "portico.served_by": "upstream"} {
		if got := server.Attributes[key]; got != want {
			t.Errorf("attribute %s is %q, want %q", key, got, want)
		}
	}
}

func TestCallersAuditIDIsKept(t *testing.T) {
	for _, id := range []string{"6dd3a5c0-5f3c-4b1e-9d0a-2b8f2b0f4c11", "anything the API server takes", strings.Repeat("x", 100)} {
		var sent http.Header
		p := start(t, options{verbosity: 3, last: fromUpstream(&sent)})
		p.do(t, "GET", "/version", http.Header{"Audit-Id": {id}})
		if got := sent.Get("Audit-ID"); got != id {
			t.Errorf("%q went upstream as %q", id, got)
		}
		if want := fmt.Sprintf(`"auditID"=%q`, id[:min(len(id), 64)]); !strings.Contains(p.log.String(), want) {
			t.Errorf("the log has not %s: %s", want, p.log.String())
		}
	}
}

func TestAuditIDIsEchoedByWhoAnswers(t *testing.T) {
	answer := func(servedBy string, upstreams ...string) func(*proxy, http.ResponseWriter, *http.Request) error {
		return func(_ *proxy, w http.ResponseWriter, _ *http.Request) error {
			w.Header().Set(telemetry.HeaderServedBy, servedBy)
			w.Header()["Audit-Id"] = upstreams
			w.WriteHeader(http.StatusOK)
			return nil
		}
	}
	for name, tc := range map[string]struct {
		last func(*proxy, http.ResponseWriter, *http.Request) error
		want []string
	}{
		"memory":           {answer(telemetry.ServedByCache), []string{"an-id"}},
		"refusal":          {refuse, []string{"an-id"}},
		"upstream":         {answer(telemetry.ServedByUpstream, "an-id"), []string{"an-id"}},
		"upstream-without": {answer(telemetry.ServedByUpstream), nil},
	} {
		t.Run(name, func(t *testing.T) {
			p := start(t, options{last: tc.last})
			res := p.do(t, "GET", "/api/v1/pods", http.Header{"Audit-Id": {"an-id"}})
			if diff := cmp.Diff(tc.want, res.Header["Audit-Id"]); diff != "" {
				t.Errorf("Audit-Id (-want +got):\n%s", diff)
			}
		})
	}
}

func refuse(*proxy, http.ResponseWriter, *http.Request) error {
	return apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "web", errors.New("no"))
}

func TestEveryEndingIsCounted(t *testing.T) {
	begin := func(w http.ResponseWriter) {
		w.WriteHeader(http.StatusOK)
		if err := http.NewResponseController(w).Flush(); err != nil {
			panic(err)
		}
	}
	for name, tc := range map[string]struct {
		last    func(*proxy, http.ResponseWriter, *http.Request) error
		code    string
		aborted bool
		failed  bool
		reason  string
	}{
		"nothing-written": {last: func(*proxy, http.ResponseWriter, *http.Request) error { return nil }, code: "200"},
		"body-only": {last: func(_ *proxy, w http.ResponseWriter, _ *http.Request) error {
			_, err := io.WriteString(w, "x")
			return err
		}, code: "200"},
		"flush-only": {last: func(_ *proxy, w http.ResponseWriter, _ *http.Request) error {
			return http.NewResponseController(w).Flush()
		}, code: "200"},
		"early-hints": {last: func(_ *proxy, w http.ResponseWriter, _ *http.Request) error {
			w.WriteHeader(http.StatusEarlyHints)
			w.WriteHeader(http.StatusConflict)
			return nil
		}, code: "409"},
		"refused": {last: refuse, code: "403", reason: "Forbidden"},
		"unavailable": {last: func(*proxy, http.ResponseWriter, *http.Request) error {
			return apierrors.NewServiceUnavailable("gone")
		}, code: "503", failed: true, reason: "ServiceUnavailable"},
		"error": {last: func(*proxy, http.ResponseWriter, *http.Request) error {
			return errors.New("the inner story")
		}, code: "500", failed: true, reason: "InternalError"},
		"upstream-fails": {last: func(_ *proxy, w http.ResponseWriter, _ *http.Request) error {
			w.WriteHeader(http.StatusBadGateway)
			return nil
		}, code: "502", failed: true, reason: "502"},
		"panic": {last: func(*proxy, http.ResponseWriter, *http.Request) error {
			panic("a bug")
		}, code: "500", failed: true, reason: "panic"},
		"error-midway": {last: func(_ *proxy, w http.ResponseWriter, _ *http.Request) error {
			begin(w)
			return errors.New("broken")
		}, code: "200", aborted: true, failed: true, reason: "aborted"},
		"abort-midway": {last: func(_ *proxy, w http.ResponseWriter, _ *http.Request) error {
			begin(w)
			panic(http.ErrAbortHandler)
		}, code: "200", aborted: true, failed: true, reason: "aborted"},
	} {
		t.Run(name, func(t *testing.T) {
			p := start(t, options{tracing: true, last: tc.last})
			p.do(t, "POST", "/apis", nil)
			p.expect(t, "portico_request_total", map[string]float64{"code=" + tc.code + " verb=POST": 1})
			p.expect(t, "portico_request_duration_seconds", map[string]float64{"verb=POST": 1})
			p.expect(t, "portico_current_inflight_requests", nil)
			aborts := map[string]float64{}
			if tc.aborted {
				aborts["verb=POST"] = 1
			}
			p.expect(t, "portico_request_aborts_total", aborts)
			p.flush(t.Context(), t)
			s := p.collector.Span(t, "SERVER", "POST")
			if s.Failed != tc.failed || s.Attributes["error.type"] != tc.reason || s.Attributes["http.response.status_code"] != tc.code {
				t.Errorf("span failed=%v, attributes %v; want %v, error.type %q, code %s", s.Failed, s.Attributes, tc.failed, tc.reason, tc.code)
			}
		})
	}
}

func TestCallerThatLeavesIsNoFailure(t *testing.T) {
	arrived := make(chan struct{})
	p := start(t, options{tracing: true, last: func(_ *proxy, _ http.ResponseWriter, r *http.Request) error {
		close(arrived)
		<-r.Context().Done()
		return r.Context().Err()
	}})
	ctx, leave := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, p.URL+"/version", nil)
	if err != nil {
		t.Fatal(err)
	}
	var client sync.WaitGroup
	client.Go(func() {
		if res, err := p.Client().Do(r); err == nil {
			res.Body.Close()
		}
	})
	<-arrived
	p.expect(t, "portico_current_inflight_requests", map[string]float64{"request_kind=readOnly": 1})
	leave()
	client.Wait()
	<-p.ended
	p.expect(t, "portico_current_inflight_requests", nil)
	p.expect(t, "portico_request_total", map[string]float64{"code=499 verb=GET": 1})
	p.expect(t, "portico_request_aborts_total", map[string]float64{"verb=GET": 1})
	p.flush(t.Context(), t)
	if s := p.collector.Span(t, "SERVER", "GET"); s.Failed || s.Attributes["error.type"] != "canceled" {
		t.Errorf("span failed=%v, attributes %v", s.Failed, s.Attributes)
	}
}

func TestStreamsSpanEndsWhereTheStreamBegins(t *testing.T) {
	end := make(chan struct{})
	p := start(t, options{tracing: true, last: func(_ *proxy, w http.ResponseWriter, _ *http.Request) error {
		w.WriteHeader(http.StatusOK)
		if err := http.NewResponseController(w).Flush(); err != nil {
			return err
		}
		<-end
		_, err := io.WriteString(w, "event")
		return err
	}})
	const pods = "resource=pods scope=cluster verb=WATCH version=v1"

	res := p.open(t, "GET", "/api/v1/pods?watch=1", nil)
	arrived := func(spans []telemetrytest.Span) bool {
		return slices.ContainsFunc(spans, func(s telemetrytest.Span) bool { return s.Kind == "SERVER" })
	}
	if !p.collector.Await(t.Context(), arrived) {
		t.Fatal("the span did not end while the watch went on")
	}
	p.expect(t, "portico_longrunning_requests", map[string]float64{pods: 1})
	p.expect(t, "portico_current_inflight_requests", nil)
	p.expect(t, "portico_request_total", nil)
	if s := p.collector.Span(t, "SERVER", "GET /api/v1/pods"); s.Attributes["http.response.status_code"] != "200" {
		t.Errorf("attributes %v", s.Attributes)
	}

	close(end)
	if body, err := io.ReadAll(res.Body); err != nil || string(body) != "event" {
		t.Errorf("read %q, %v", body, err)
	}
	<-p.ended
	p.expect(t, "portico_longrunning_requests", nil)
	p.expect(t, "portico_request_total", map[string]float64{"code=200 " + pods: 1})
	p.expect(t, "portico_request_duration_seconds", nil)
}

func TestHijackedConnectionsAreSwitches(t *testing.T) {
	p := start(t, options{tracing: true, last: func(_ *proxy, w http.ResponseWriter, _ *http.Request) error {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return err
		}
		defer conn.Close()
		_, err = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		return err
	}})
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", p.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET /api/v1/namespaces/shop/pods/web/exec HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || !strings.Contains(line, "101") {
		t.Fatalf("answered %q, %v", line, err)
	}
	<-p.ended
	p.expect(t, "portico_request_total", map[string]float64{"code=101 resource=pods scope=resource served_by=upstream subresource=exec verb=CONNECT version=v1": 1})
	p.expect(t, "portico_longrunning_requests", nil)
	p.expect(t, "portico_request_duration_seconds", nil)
	p.flush(t.Context(), t)
	if s := p.collector.Span(t, "SERVER", "GET /api/v1/namespaces/{:namespace}/pods/{:name}/exec"); s.Attributes["http.response.status_code"] != "101" {
		t.Errorf("attributes %v", s.Attributes)
	}
}

func TestLogLineOfARequest(t *testing.T) {
	for verbosity, want := range map[int]int{2: 1, 3: 2} { // the filter below us logs one
		p := start(t, options{verbosity: verbosity, last: func(_ *proxy, w http.ResponseWriter, r *http.Request) error {
			klog.FromContext(r.Context()).Info("from below")
			logr.FromContextOrDiscard(r.Context()).V(4).Info("too much")
			w.Header().Set(telemetry.HeaderServedBy, telemetry.ServedByCache)
			_, err := io.WriteString(w, "answer")
			return err
		}})
		p.do(t, "GET", "/api/v1/namespaces/shop/pods?labelSelector=s3cr3t", http.Header{"Audit-Id": {"an-id"}, "Authorization": {"Bearer s3cr3t"}})
		lines := strings.Split(strings.TrimSpace(p.log.String()), "\n")
		if len(lines) != want {
			t.Errorf("at verbosity %d: %d lines, want %d: %q", verbosity, len(lines), want, lines)
		}
		for _, line := range lines {
			if !strings.Contains(line, `"auditID"="an-id"`) || strings.Contains(line, "s3cr3t") {
				t.Errorf("log line %s", line)
			}
		}
		if verbosity < 3 {
			continue
		}
		for _, want := range []string{`"verb"="list"`, `"path"="/api/v1/namespaces/shop/pods"`, `"code"=200`, `"bytes"=6`, `"duration"=`, `"servedBy"="cache"`} {
			if line := lines[len(lines)-1]; !strings.Contains(line, want) {
				t.Errorf("the log line has not %s: %s", want, line)
			}
		}
	}
}

func TestReadsBytesAndSizes(t *testing.T) {
	var sent http.Header
	p := start(t, options{last: fromUpstream(&sent)})
	p.do(t, "GET", "/api/v1/namespaces/shop/pods/web", nil)
	p.do(t, "PUT", "/api/v1/namespaces/shop/pods/web", nil)
	const pod = "resource=pods scope=resource "
	p.expect(t, "portico_response_sizes", map[string]float64{pod + "verb=GET version=v1": 1})
	p.expect(t, "portico_upstream_request_total", map[string]float64{"address=192.0.2.1:6443 code=200": 2})
}

func TestReadmesConfigurationIsTaken(t *testing.T) {
	clearEnvironment(t)
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(readme), "```yaml\n")
	example, _, found := strings.Cut(rest, "```")
	if !found {
		t.Fatal("README.md has no example of a configuration file")
	}
	file := filepath.Join(t.TempDir(), "tracing.yaml")
	if err := os.WriteFile(file, []byte(example), 0o600); err != nil {
		t.Fatal(err)
	}
	tel, err := telemetry.New(t.Context(), telemetry.Options{TracingConfigFile: file, Registry: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	if !tel.Tracing() {
		t.Error("the example traces nothing")
	}
	if err := tel.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}
