package telemetry_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/portico-proxy/portico/core/telemetry"
	"github.com/portico-proxy/portico/core/telemetry/telemetrytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	callersTrace = "0af7651916cd43dd8448eb211c80319c"
	traceparent  = "00-" + callersTrace + "-b7ad6b7169203331-01"
)

// environment replaces all variables OpenTelemetry looks at.
func environment(t *testing.T, vars map[string]string) {
	t.Helper()
	for _, kv := range os.Environ() {
		if name, _, _ := strings.Cut(kv, "="); strings.HasPrefix(name, "OTEL_") {
			t.Setenv(name, "")
		}
	}
	for name, value := range vars {
		t.Setenv(name, value)
	}
}

func start(t *testing.T, o telemetry.Options) *telemetry.Telemetry {
	t.Helper()
	if o.Registry == nil {
		o.Registry = prometheus.NewRegistry()
	}
	tel, err := telemetry.New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	// t.Context is cancelled by then.
	t.Cleanup(func() { stop(context.WithoutCancel(t.Context()), t, tel) })
	return tel
}

func stop(ctx context.Context, t *testing.T, tel *telemetry.Telemetry) {
	t.Helper()
	if err := tel.Shutdown(ctx); err != nil {
		t.Error(err)
	}
}

var infos = request.RequestInfoFactory{APIPrefixes: sets.NewString("api", "apis"), GrouplessAPIPrefixes: sets.NewString("api")}

// get is a request as it stands in the chain.
func get(t testing.TB, target string) (*http.Request, *request.RequestInfo) {
	t.Helper()
	return newRequest(t, http.MethodGet, target)
}

func newRequest(t testing.TB, method, target string) (*http.Request, *request.RequestInfo) {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, target, nil)
	info, err := infos.NewRequestInfo(r)
	if err != nil {
		t.Fatal(err)
	}
	return r.WithContext(request.WithRequestInfo(r.Context(), info)), info
}

// serve makes the two spans every request has.
func serve(tel *telemetry.Telemetry, r *http.Request, info *request.RequestInfo) *http.Request {
	ctx, span := tel.StartServer(r, info)
	out := r.Clone(ctx)
	out.URL.Host = "192.0.2.1:6443"
	call := tel.StartUpstream(out)
	call.End(&http.Response{StatusCode: http.StatusOK}, nil)
	telemetry.EndServer(span, telemetry.Answer{Code: http.StatusOK, ServedBy: telemetry.ServedByUpstream}, "")
	return out
}

func TestCallersHeadersPassUntouchedWhenNotTracing(t *testing.T) {
	for name, vars := range map[string]map[string]string{
		"unasked":  nil,
		"none":     {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_METRICS_EXPORTER": "none"},
		"disabled": {"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"},
	} {
		t.Run(name, func(t *testing.T) {
			environment(t, vars)
			tel := start(t, telemetry.Options{})
			r, info := get(t, "/api/v1/pods")
			sent := http.Header{"Traceparent": {traceparent}, "Tracestate": {"x=y"}, "Baggage": {"a=b"}}
			r.Header = sent.Clone()

			out := serve(tel, r, info)

			if tel.Tracing() {
				t.Error("tracing, though nobody asked")
			}
			if diff := cmp.Diff(sent, out.Header); diff != "" {
				t.Errorf("headers (-sent +arrived):\n%s", diff)
			}
		})
	}
}

func TestExportsAsTheEnvironmentSays(t *testing.T) {
	c := telemetrytest.Start(t)
	environment(t, map[string]string{
		"OTEL_EXPORTER_OTLP_ENDPOINT": "http://" + c.Address,
		"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
		"OTEL_METRICS_EXPORTER":       "none",
		"OTEL_RESOURCE_ATTRIBUTES":    "k8s.cluster.name=shop,service.version=mine",
	})
	tel := start(t, telemetry.Options{Version: "v1.2.3", NodeName: "node-a"})
	r, info := get(t, "/api/v1/namespaces/shop/pods/web?watch=secret")
	r.Header = http.Header{
		"Traceparent": {traceparent}, "Tracestate": {"x=y"}, "Baggage": {"a=b"}, "User-Agent": {"kubectl"}, "Audit-Id": {"an-id"},
	}

	out := serve(tel, r, info)
	stop(t.Context(), t, tel)

	const name = "GET /api/v1/namespaces/{:namespace}/pods/{:name}"
	server, client := c.Span(t, "SERVER", name), c.Span(t, "CLIENT", name)
	if server.TraceID == callersTrace || server.ParentID != "" {
		t.Errorf("the caller's context became the parent: %+v", server)
	}
	if diff := cmp.Diff([]string{callersTrace}, server.Links); diff != "" {
		t.Errorf("links (-want +got):\n%s", diff)
	}
	if client.ParentID != server.SpanID {
		t.Errorf("the call's parent is %q, want the server span %q", client.ParentID, server.SpanID)
	}
	wantHeader := http.Header{
		"Traceparent": {"00-" + server.TraceID + "-" + client.SpanID + "-01"}, "User-Agent": {"kubectl"}, "Audit-Id": {"an-id"},
	}
	if diff := cmp.Diff(wantHeader, out.Header); diff != "" {
		t.Errorf("headers sent upstream (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]string{
		"http.request.method": "GET", "http.response.status_code": "200", "http.route": "/api/v1/namespaces/{:namespace}/pods/{:name}",
		"url.path": "/api/v1/namespaces/shop/pods/web", "user_agent.original": "kubectl", "audit-id": "an-id", "portico.served_by": "upstream",
		"k8s.api.verb": "get", "k8s.api.group": "", "k8s.api.version": "v1", "k8s.api.resource": "pods", "k8s.api.subresource": "", "k8s.api.namespace": "shop",
	}, server.Attributes); diff != "" {
		t.Errorf("attributes of the server span (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]string{
		"http.request.method": "GET", "http.response.status_code": "200", "audit-id": "an-id", "server.address": "192.0.2.1", "server.port": "6443",
	}, client.Attributes); diff != "" {
		t.Errorf("attributes of the client span (-want +got):\n%s", diff)
	}
	for key, want := range map[string]string{"service.name": "portico", "service.version": "mine", "k8s.node.name": "node-a", "k8s.cluster.name": "shop"} {
		if got := server.Resource[key]; got != want {
			t.Errorf("resource attribute %s is %q, want %q", key, got, want)
		}
	}
}

func TestFileOverrulesTheEnvironmentAndSaysSo(t *testing.T) {
	c := telemetrytest.Start(t)
	environment(t, map[string]string{
		"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://192.0.2.1:1", "OTEL_EXPORTER_OTLP_ENDPOINT": "https://192.0.2.1:1",
		"OTEL_TRACES_SAMPLER": "always_off", "OTEL_METRICS_EXPORTER": "none",
	})
	var log bytes.Buffer
	tel := start(t, telemetry.Options{TracingConfigFile: write(t, tracingHeader+"endpoint: "+c.Address+"\nsamplingRatePerMillion: 1000000\n"), Log: logTo(&log)})

	r, info := get(t, "/version")
	serve(tel, r, info)
	stop(t.Context(), t, tel)

	c.Span(t, "SERVER", "GET")
	for _, want := range []string{"OTEL_TRACES_SAMPLER", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log does not say that %s is ignored: %s", want, log.String())
		}
	}
}

func TestFileWithoutRateSamplesNothing(t *testing.T) {
	c := telemetrytest.Start(t)
	environment(t, nil)
	tel := start(t, telemetry.Options{TracingConfigFile: write(t, tracingHeader+"endpoint: "+c.Address+"\n")})
	r, info := get(t, "/version")
	r.Header = http.Header{"Traceparent": {traceparent}, "Tracestate": {"x=y"}, "Baggage": {"a=b"}}

	out := serve(tel, r, info)
	stop(t.Context(), t, tel)

	if got := c.Spans(); len(got) != 0 {
		t.Errorf("%d spans, want none", len(got))
	}
	// There is no span of ours to put in its place.
	if diff := cmp.Diff(http.Header{"Traceparent": {traceparent}, "Tracestate": {"x=y"}}, out.Header); diff != "" {
		t.Errorf("headers sent upstream (-want +got):\n%s", diff)
	}
}

const tracingHeader = "apiVersion: apiserver.config.k8s.io/v1\nkind: TracingConfiguration\n"

func write(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "tracing.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func logTo(b *bytes.Buffer) logr.Logger {
	return funcr.New(func(prefix, args string) { fmt.Fprintln(b, prefix, args) }, funcr.Options{})
}

func TestRefusesConfigurationByNameOfFileAndField(t *testing.T) {
	for name, tc := range map[string]struct{ text, want string }{
		"unknown-field":  {tracingHeader + "samplingRate: 1\n", "samplingRate"},
		"twice":          {tracingHeader + "endpoint: a:1\nendpoint: b:1\n", "endpoint"},
		"not-a-number":   {tracingHeader + "samplingRatePerMillion: all\n", "samplingRatePerMillion"},
		"rate-too-large": {tracingHeader + "samplingRatePerMillion: 1000001\n", "samplingRatePerMillion"},
		"rate-negative":  {tracingHeader + "samplingRatePerMillion: -1\n", "samplingRatePerMillion"},
		"https":          {tracingHeader + "endpoint: https://example.org\n", "endpoint"},
		"other-kind":     {"apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n", "AuthenticationConfiguration"},
		"no-kind":        {"endpoint: a:1\n", "Kind"},
		"empty":          {"", "Kind"},
	} {
		t.Run(name, func(t *testing.T) {
			environment(t, nil)
			file := write(t, tc.text)
			_, err := telemetry.New(t.Context(), telemetry.Options{TracingConfigFile: file, Registry: prometheus.NewRegistry()})
			if err == nil || !strings.Contains(err.Error(), file) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want an error naming %s and %s", err, file, tc.want)
			}
		})
	}
	environment(t, nil)
	file := filepath.Join(t.TempDir(), "absent.yaml")
	if _, err := telemetry.New(t.Context(), telemetry.Options{TracingConfigFile: file, Registry: prometheus.NewRegistry()}); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("got %v, want an error naming %s", err, file)
	}
}

func TestRefusesEnvironmentByNameOfVariable(t *testing.T) {
	for name, value := range map[string]string{
		"OTEL_TRACES_EXPORTER":        "jaeger",
		"OTEL_METRICS_EXPORTER":       "statsd",
		"OTEL_RESOURCE_ATTRIBUTES":    "no-value",
		"OTEL_EXPORTER_OTLP_PROTOCOL": "carrier-pigeon",
	} {
		t.Run(name, func(t *testing.T) {
			environment(t, map[string]string{name: value})
			if name == "OTEL_EXPORTER_OTLP_PROTOCOL" {
				t.Setenv("OTEL_METRICS_EXPORTER", "otlp")
			}
			registry := prometheus.NewRegistry()
			_, err := telemetry.New(t.Context(), telemetry.Options{Registry: registry})
			if err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("got %v, want an error naming %s", err, name)
			}
			environment(t, nil)
			start(t, telemetry.Options{Registry: registry}) // nothing was left behind
		})
	}
}

func TestOneCallersBytesDoNotLoseOthersSpans(t *testing.T) {
	c := telemetrytest.Start(t)
	environment(t, map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://" + c.Address, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_METRICS_EXPORTER": "none"})
	tel := start(t, telemetry.Options{})

	r, info := newRequest(t, "BREW", "/apis/%ff.example.org/v1/namespaces/%ff/%ff/%ff/%ff")
	r.Header = http.Header{"User-Agent": {"\xff" + strings.Repeat("x", 1<<20)}, "Audit-Id": {strings.Repeat("\xff", 100)}}
	serve(tel, r, info)
	r, info = get(t, "/api/v1/nodes")
	serve(tel, r, info)
	stop(t.Context(), t, tel)

	c.Span(t, "SERVER", "GET /api/v1/nodes")
	if got := len(c.Spans()); got != 4 {
		t.Fatalf("%d spans, want 4", got)
	}
	for _, s := range c.Spans() {
		for key, value := range s.Attributes {
			if len(value) > 2048 {
				t.Errorf("attribute %s has %d bytes", key, len(value))
			}
		}
	}
}

func TestPathsOfProxiedRequestsEndWhereAnotherProgramBegins(t *testing.T) {
	for target, want := range map[string]string{
		"/api/v1/namespaces/proxy/pods/proxy/proxy/reset/s3cr3t?token=s3cr3t": "/api/v1/namespaces/proxy/pods/proxy/proxy",
		"/api/v1/nodes/node-a/proxy/s3cr3t":                                   "/api/v1/nodes/node-a/proxy",
		"/api/v1/proxy/namespaces/shop/services/web/s3cr3t":                   "/api/v1/namespaces/shop/services/web",
		"/api/v1/namespaces/shop/pods?labelSelector=s3cr3t":                   "/api/v1/namespaces/shop/pods",
		"/healthz/s%C3%BC%ff":                                                 "/healthz/s%C3%BC%ff",
	} {
		r, info := get(t, target)
		if got := telemetry.Path(r, info); got != want {
			t.Errorf("%s: %q, want %q", target, got, want)
		}
	}
}
