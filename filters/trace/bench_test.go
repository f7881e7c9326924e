package trace_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/klog/v2"

	"github.com/portico-proxy/portico/core/pipeline"
	"github.com/portico-proxy/portico/core/telemetry"
	"github.com/portico-proxy/portico/filters/trace"
)

// discard is a ResponseWriter that costs nothing.
type discard struct{ header http.Header }

func (d discard) Header() http.Header       { return d.header }
func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) WriteHeader(int)             {}

// BenchmarkFilter is what a request pays that is neither recorded nor logged.
// The base is the same request with no filter around it.
func BenchmarkFilter(b *testing.B) {
	tel, err := telemetry.New(b.Context(), telemetry.Options{Registry: prometheus.NewRegistry()})
	if err != nil {
		b.Fatal(err)
	}
	defer tel.Shutdown(b.Context()) //nolint:errcheck // exports nothing
	answer := pipeline.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) error {
		w.WriteHeader(http.StatusOK)
		_, err := w.Write(nil)
		return err
	})
	infos := request.RequestInfoFactory{APIPrefixes: sets.NewString("api", "apis"), GrouplessAPIPrefixes: sets.NewString("api")}
	r := httptest.NewRequestWithContext(b.Context(), http.MethodGet, "/api/v1/namespaces/shop/pods/web", nil)
	info, err := infos.NewRequestInfo(r)
	if err != nil {
		b.Fatal(err)
	}
	r = r.WithContext(request.WithRequestInfo(r.Context(), info))
	w := discard{header: http.Header{telemetry.HeaderServedBy: {telemetry.ServedByUpstream}}}
	for _, tc := range []struct {
		name  string
		chain pipeline.Handler
	}{
		{"base", pipeline.Chain(tel.Tracer, answer)},
		{"discard", pipeline.Chain(tel.Tracer, answer, trace.New(tel, logr.Discard()))},
		{"klog", pipeline.Chain(tel.Tracer, answer, trace.New(tel, klog.Background()))},
		{"funcr", pipeline.Chain(tel.Tracer, answer, trace.New(tel, funcr.New(func(_, _ string) {}, funcr.Options{})))},
	} {
		b.Run(tc.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				delete(r.Header, "Audit-Id")
				if err := tc.chain.ServeHTTP(w, r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
