package telemetry_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/portico-proxy/portico/core/telemetry"
	"github.com/portico-proxy/portico/core/telemetry/telemetrytest"
)

func newMetrics(t testing.TB) (*telemetry.Metrics, *prometheus.Registry) {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	m, err := telemetry.NewMetrics(registry)
	if err != nil {
		t.Fatal(err)
	}
	return m, registry
}

// answered counts one request as the chain's first filter does.
func answered(t testing.TB, m *telemetry.Metrics, method, target string, a telemetry.Answer) {
	t.Helper()
	r, info := newRequest(t, method, target)
	m.Answered(r, info, a)
}

func requests(t testing.TB, g prometheus.Gatherer) map[string]float64 {
	t.Helper()
	return telemetrytest.Series(t, g, "portico_request_total")
}

func TestMetricsHaveGoodNames(t *testing.T) {
	environment(t, nil)
	registry := prometheus.NewPedanticRegistry()
	tel := start(t, telemetry.Options{Registry: registry})
	answered(t, tel.Metrics, http.MethodGet, "/api/v1/pods", telemetry.Answer{Code: 200})
	r, _ := get(t, "/api/v1/pods")
	call := tel.StartUpstream(r)
	call.End(nil, errors.New("refused"))
	observeCache(t, tel)

	problems, err := testutil.GatherAndLint(registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	if n, err := testutil.GatherAndCount(registry); err != nil || n == 0 {
		t.Errorf("%d series, error %v", n, err)
	}
}

func TestLabelsAreKubeAPIServers(t *testing.T) {
	for name, tc := range map[string]struct{ method, target, contentType, want string }{
		"get":         {"GET", "/api/v1/namespaces/shop/pods/web", "", "code=200 resource=pods scope=resource verb=GET version=v1"},
		"head":        {"HEAD", "/api/v1/namespaces/shop/pods/web", "", "code=200 resource=pods scope=resource verb=GET version=v1"},
		"list":        {"GET", "/apis/apps/v1/namespaces/shop/deployments", "", "code=200 group=apps resource=deployments scope=namespace verb=LIST version=v1"},
		"list-all":    {"GET", "/apis/apps/v1/deployments", "", "code=200 group=apps resource=deployments scope=cluster verb=LIST version=v1"},
		"watch":       {"GET", "/api/v1/pods?watch=1", "", "code=200 resource=pods scope=cluster verb=WATCH version=v1"},
		"watch-path":  {"GET", "/api/v1/watch/pods", "", "code=200 resource=pods scope=cluster verb=WATCH version=v1"},
		"create":      {"POST", "/api/v1/namespaces/shop/pods", "", "code=200 resource=pods scope=resource verb=POST version=v1"},
		"patch":       {"PATCH", "/api/v1/nodes/a/status", "application/merge-patch+json", "code=200 resource=nodes scope=resource subresource=status verb=PATCH version=v1"},
		"apply":       {"PATCH", "/api/v1/nodes/a", "application/apply-patch+yaml", "code=200 resource=nodes scope=resource verb=APPLY version=v1"},
		"delete":      {"DELETE", "/api/v1/nodes", "", "code=200 resource=nodes scope=cluster verb=DELETE version=v1"},
		"exec":        {"POST", "/api/v1/namespaces/shop/pods/web/exec", "", "code=200 resource=pods scope=resource subresource=exec verb=CONNECT version=v1"},
		"discovery":   {"GET", "/apis/apps/v1", "", "code=200 verb=GET"},
		"no-resource": {"GET", "/healthz", "", "code=200 verb=GET"},
		"odd-method":  {"BREW", "/healthz", "", "code=200 verb=other"},
	} {
		t.Run(name, func(t *testing.T) {
			m, registry := newMetrics(t)
			r, info := newRequest(t, tc.method, tc.target)
			r.Header.Set("Content-Type", tc.contentType)
			m.Answered(r, info, telemetry.Answer{Code: 200})
			if diff := cmp.Diff(map[string]float64{tc.want: 1}, requests(t, registry)); diff != "" {
				t.Errorf("portico_request_total (-want +got):\n%s", diff)
			}
		})
	}
}

func TestWhatCannotBeTrustedIsNoLabel(t *testing.T) {
	m, registry := newMetrics(t)
	answered(t, m, "GET", "/api", telemetry.Answer{Code: 299, ServedBy: "a backend's invention"})
	answered(t, m, "GET", "/api", telemetry.Answer{Code: telemetry.CodeClientGone, ServedBy: telemetry.ServedByStale})
	want := map[string]float64{"code=other verb=GET": 1, "code=499 served_by=stale verb=GET": 1}
	if diff := cmp.Diff(want, requests(t, registry)); diff != "" {
		t.Errorf("portico_request_total (-want +got):\n%s", diff)
	}
}

func TestResourcesAreNamedOnceARequestForThemSucceeded(t *testing.T) {
	m, registry := newMetrics(t)
	for _, code := range []int{401, 403, 404, 429, 500, 503} {
		answered(t, m, "GET", "/apis/example.org/v1/widgets", telemetry.Answer{Code: code})
	}
	// CORS answers a preflight request for any path.
	answered(t, m, "OPTIONS", "/apis/example.org/v1/widgets", telemetry.Answer{Code: 204})
	for labels := range requests(t, registry) {
		if strings.Contains(labels, "widgets") || !strings.Contains(labels, "resource=unknown") {
			t.Errorf("%s: the resource has not been seen to exist", labels)
		}
	}
	answered(t, m, "GET", "/apis/example.org/v1/widgets", telemetry.Answer{Code: 200})
	answered(t, m, "GET", "/apis/example.org/v1/widgets", telemetry.Answer{Code: 503})
	got := requests(t, registry)
	for _, want := range []string{
		"code=200 group=example.org resource=widgets scope=cluster verb=LIST version=v1",
		"code=503 group=example.org resource=widgets scope=cluster verb=LIST version=v1",
	} {
		if got[want] != 1 {
			t.Errorf("%s: %v, want 1", want, got[want])
		}
	}
}

// Callers choose paths and methods; a backend behind an aggregated API or a
// proxied pod also chooses that they succeed.
func TestCallersCannotInventSeries(t *testing.T) {
	const tries = 6_000
	for name, code := range map[string]int{"refused": 403, "absent": 404, "succeeding": 200} {
		t.Run(name, func(t *testing.T) {
			m, registry := newMetrics(t)
			for i := range tries {
				target := fmt.Sprintf("/apis/g%d.example.org/v%d/r%d/n/s%d", i, i, i, i)
				answered(t, m, "GET", target, telemetry.Answer{Code: code})
			}
			answered(t, m, "M%FF", "/apis/%ff/%fe/%fd/n/%fc", telemetry.Answer{Code: 200})
			answered(t, m, "GET", "/apis/a/v1/"+strings.Repeat("r", 1000), telemetry.Answer{Code: 200})
			got := requests(t, registry)
			limit := 10
			if code == 200 {
				limit = 5010
			}
			if len(got) > limit {
				t.Errorf("%d series, want at most %d", len(got), limit)
			}
			total := 0.0
			for _, n := range got {
				total += n
			}
			if total != tries+2 {
				t.Errorf("%v requests counted, want %d", total, tries+2)
			}
		})
	}
}

func TestDurationsOfStreamsAreNotObserved(t *testing.T) {
	m, registry := newMetrics(t)
	answered(t, m, "GET", "/api/v1/pods?watch=1", telemetry.Answer{Code: 200, Streamed: true, Took: time.Hour, Aborted: true, CallerGone: true})
	answered(t, m, "GET", "/api/v1/pods?watch=1", telemetry.Answer{Code: 410, Took: time.Second, Aborted: true})
	// Only of the request that did not become a stream.
	want := map[string]float64{"resource=pods scope=cluster verb=WATCH version=v1": 1}
	for _, name := range []string{"portico_request_aborts_total", "portico_request_duration_seconds"} {
		if diff := cmp.Diff(want, telemetrytest.Series(t, registry, name)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestSampledRequestsAreExemplars(t *testing.T) {
	c := telemetrytest.Start(t)
	environment(t, map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://" + c.Address, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_METRICS_EXPORTER": "none"})
	registry := prometheus.NewRegistry()
	tel := start(t, telemetry.Options{Registry: registry})
	r, info := get(t, "/api/v1/pods")
	_, span := tel.StartServer(r, info)
	tel.Metrics.Answered(r, info, telemetry.Answer{Code: 200, Took: time.Millisecond, Span: span})
	telemetry.EndServer(span, telemetry.Answer{Code: 200}, "")

	ids := telemetrytest.Exemplars(t, registry, "portico_request_duration_seconds")
	if diff := cmp.Diff([]string{"trace_id=" + span.SpanContext().TraceID().String()}, ids); diff != "" {
		t.Errorf("exemplars (-want +got):\n%s", diff)
	}
}

func TestUpstreamCallsAreCountedByOutcome(t *testing.T) {
	environment(t, nil)
	registry := prometheus.NewRegistry()
	tel := start(t, telemetry.Options{Registry: registry})
	call := func(ctx context.Context, res *http.Response, err error) {
		r, _ := get(t, "https://192.0.2.1:6443/api/v1/pods")
		c := tel.StartUpstream(r.WithContext(ctx))
		c.End(res, err)
	}
	gone, leave := context.WithCancel(t.Context())
	leave()
	call(t.Context(), &http.Response{StatusCode: 200}, nil)
	call(t.Context(), &http.Response{StatusCode: 503}, nil)
	call(t.Context(), nil, errors.New("connection refused"))
	call(gone, nil, context.Canceled)
	r, _ := get(t, "https://192.0.2.1:6443/api/v1/pods")
	c := tel.StartUpstream(r)
	c.Address = "192.0.2.2:6443"
	c.End(&http.Response{StatusCode: 200}, nil)

	got := telemetrytest.Series(t, registry, "portico_upstream_request_total")
	want := map[string]float64{
		"address=192.0.2.1:6443 code=200": 1, "address=192.0.2.1:6443 code=503": 1, "address=192.0.2.1:6443 code=error": 1,
		"address=192.0.2.1:6443 code=canceled": 1, "address=192.0.2.2:6443 code=200": 1,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("portico_upstream_request_total (-want +got):\n%s", diff)
	}
}

func TestMetricsArePushedWhenAsked(t *testing.T) {
	for name, variable := range map[string]string{"endpoint": "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "all": "OTEL_EXPORTER_OTLP_ENDPOINT"} {
		t.Run(name, func(t *testing.T) {
			c := telemetrytest.Start(t)
			environment(t, map[string]string{variable: "http://" + c.Address, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_TRACES_EXPORTER": "none"})
			tel := start(t, telemetry.Options{})
			answered(t, tel.Metrics, "GET", "/api/v1/pods", telemetry.Answer{Code: 200, Bytes: 1})
			stop(t.Context(), t, tel)

			sum := c.Metric("portico_request_total").GetSum()
			if len(sum.GetDataPoints()) != 1 || sum.DataPoints[0].GetAsDouble() != 1 {
				t.Errorf("portico_request_total arrived as %v", sum)
			}
			if h := c.Metric("portico_request_duration_seconds").GetHistogram(); len(h.GetDataPoints()) != 1 {
				t.Errorf("portico_request_duration_seconds arrived as %v", h)
			}
		})
	}
}

func TestRegistryServesOneAtATime(t *testing.T) {
	environment(t, nil)
	registry := prometheus.NewRegistry()
	first := start(t, telemetry.Options{Registry: registry})
	if _, err := telemetry.New(t.Context(), telemetry.Options{Registry: registry}); err == nil {
		t.Fatal("two share a registry")
	}
	answered(t, first.Metrics, "GET", "/", telemetry.Answer{Code: 200})
	if got := len(requests(t, registry)); got != 1 {
		t.Errorf("the first one's metrics are gone: %d series, want 1", got)
	}
	stop(t.Context(), t, first)
	start(t, telemetry.Options{Registry: registry})
}

func TestHammerMetrics(t *testing.T) {
	m, registry := newMetrics(t)
	const each, workers = 200, 8
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() {
			for i := range each {
				code := 200 + 204*(i%2) // 200, 404
				r, info := get(t, fmt.Sprintf("/api/v1/r%d", (i+w)%50))
				m.InFlight(info).Inc()
				m.Streams(r, info, code).Inc()
				m.Answered(r, info, telemetry.Answer{Code: code})
				m.Streams(r, info, code).Dec()
				m.InFlight(info).Dec()
			}
		})
	}
	all.Wait()
	total := 0.0
	for _, n := range requests(t, registry) {
		total += n
	}
	if total != each*workers {
		t.Errorf("%v requests counted, want %d", total, each*workers)
	}
}

func BenchmarkMetrics(b *testing.B) {
	m, _ := newMetrics(b)
	r, info := get(b, "/apis/apps/v1/namespaces/shop/deployments/web")
	for _, tc := range []struct {
		name string
		code int
	}{{"known", 200}, {"unknown", 404}} {
		b.Run(tc.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				g := m.InFlight(info)
				g.Inc()
				m.Answered(r, info, telemetry.Answer{Code: tc.code, Bytes: 1000, ServedBy: telemetry.ServedByUpstream, Took: time.Millisecond})
				g.Dec()
			}
		})
	}
}
