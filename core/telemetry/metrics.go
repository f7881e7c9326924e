package telemetry

import (
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"k8s.io/apiserver/pkg/endpoints/request"
)

// durationBuckets are kube-apiserver's for apiserver_request_duration_seconds,
// with two more below: answers from memory take less than its smallest.
var durationBuckets = []float64{
	0.0005, 0.001, 0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 45, 60,
}

var requestLabels = []string{labelVerb, labelGroup, labelVersion, labelResource, labelSubresource, labelScope}

// Metrics are what the proxy counts. All methods may be called at any time from
// any goroutine; a request costs one map lookup and a few atomic operations.
type Metrics struct {
	requests    *prometheus.CounterVec
	duration    *prometheus.HistogramVec
	sizes       *prometheus.HistogramVec
	aborts      *prometheus.CounterVec
	longRunning *prometheus.GaugeVec

	inFlight           *prometheus.GaugeVec
	readOnly, mutating prometheus.Gauge

	upstream         *prometheus.CounterVec
	upstreamDuration *prometheus.HistogramVec
	filters          *prometheus.HistogramVec

	byLabels   *seriesCache
	byUpstream *upstreamCache
}

// NewMetrics registers the proxy's metrics in r. It is an error if r has them already.
func NewMetrics(r prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: metricRequests, Help: "Requests answered, by what was asked, how it was answered (served_by is empty if the proxy refused it) and HTTP code.",
		}, with(labelServedBy, labelCode)),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: metricDuration, Help: "Time from a request's arrival to the end of its response in seconds. Long-running requests are not in it.",
			Buckets: durationBuckets,
		}, with(labelServedBy)),
		sizes: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: metricSizes, Help: "Bytes of response bodies of GET and LIST, as sent.",
			Buckets: prometheus.ExponentialBuckets(1000, 10, 7),
		}, requestLabels),
		aborts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: metricAborts, Help: "Requests that ended before their response did: the client left, or the response broke off.",
		}, requestLabels),
		longRunning: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: metricLongRunning, Help: "Watches, exec, attach, port-forward, proxy and log requests whose response has begun and not ended.",
		}, requestLabels),
		inFlight: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: metricInFlight, Help: "Requests being answered, without long-running ones whose response has begun.",
		}, []string{labelRequestKind}),
		upstream: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: metricUpstream, Help: "Requests sent to the API server, by its address and HTTP code, or \"error\" or \"canceled\" where there was no answer.",
		}, []string{labelAddress, labelCode}),
		upstreamDuration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: metricUpstreamDuration, Help: "Time from sending a request to the API server until the header of its response in seconds.",
			Buckets: durationBuckets,
		}, []string{labelAddress}),
		filters: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: metricFilterDuration, Help: "Time that a FilterBinding's filter took for one decision in seconds, by what it decided (pass, deny, error).",
			Buckets: prometheus.ExponentialBuckets(1e-6, 4, 12),
		}, []string{labelFilter, labelPhase, labelMode, labelDecision}),
	}
	m.byLabels = &seriesCache{open: m.open, series: map[seriesKey]*series{}, known: map[resourceKey]bool{}}
	m.byUpstream = &upstreamCache{open: m.openUpstream, series: map[upstreamKey]upstreamSeries{}}
	m.readOnly, m.mutating = m.inFlight.WithLabelValues("readOnly"), m.inFlight.WithLabelValues("mutating")
	return m, m.register(r)
}

func (m *Metrics) register(r prometheus.Registerer) error {
	all := m.collectors()
	for i, c := range all {
		if err := r.Register(c); err != nil {
			// Not the rest: they may be somebody else's of the same name.
			unregister(r, all[:i])
			return fmt.Errorf("register metrics: %w", err)
		}
	}
	return nil
}

func unregister(r prometheus.Registerer, collectors []prometheus.Collector) {
	for _, c := range collectors {
		r.Unregister(c)
	}
}

func with(more ...string) []string { return append(append([]string{}, requestLabels...), more...) }

func (m *Metrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.requests, m.duration, m.sizes, m.aborts, m.longRunning, m.inFlight, m.upstream, m.upstreamDuration, m.filters}
}

// An Answer says how a request ended.
type Answer struct {
	Code     int   // HTTP
	Bytes    int64 // of the body
	ServedBy string
	Took     time.Duration
	// Streamed is set for long-running requests whose response had begun.
	Streamed bool
	// Aborted is set if the response ended before it was complete, and
	// CallerGone too if that was because the caller left.
	Aborted, CallerGone bool
	// Span may be nil; a sampled one becomes the duration's exemplar.
	Span trace.Span
}

// Answered counts one request, at its end.
func (m *Metrics) Answered(r *http.Request, info *request.RequestInfo, a Answer) {
	k := keyOf(r, info, a.Code)
	k.servedBy = cleanServedBy(a.ServedBy)
	s := m.byLabels.get(k)
	s.requests.Inc()
	// A caller that leaves a stream ends it as streams are ended.
	if a.Aborted && !(a.Streamed && a.CallerGone) {
		s.aborts.Inc()
	}
	if a.Streamed {
		return
	}
	observe(s.duration, a.Took.Seconds(), a.Span)
	if k.verb == "GET" || k.verb == "LIST" {
		s.sizes.Observe(float64(a.Bytes))
	}
}

// observe leaves a way from a slow bucket to a trace. Scrapers that ask for
// OpenMetrics see it.
func observe(o prometheus.Observer, seconds float64, span trace.Span) {
	if span != nil {
		if sc := span.SpanContext(); sc.IsSampled() {
			o.(prometheus.ExemplarObserver).ObserveWithExemplar(seconds, prometheus.Labels{"trace_id": sc.TraceID().String()})
			return
		}
	}
	o.Observe(seconds)
}

// InFlight is the gauge of requests like info's.
func (m *Metrics) InFlight(info *request.RequestInfo) prometheus.Gauge {
	// As kube-apiserver tells them apart (its server/filters/maxinflight.go).
	switch info.Verb {
	case "get", "list", "watch":
		return m.readOnly
	}
	return m.mutating
}

// Streams is the gauge of long-running requests like r, whose response has
// begun with code.
func (m *Metrics) Streams(r *http.Request, info *request.RequestInfo, code int) prometheus.Gauge {
	return m.byLabels.get(keyOf(r, info, code)).longRunning
}

// A Decision is what the filter of a FilterBinding decided.
type Decision struct {
	Filter   string // the binding's name
	Phase    string
	Mode     string
	Decision string // pass, deny or error
	Took     time.Duration
}

// Decided counts one decision of a filter.
func (m *Metrics) Decided(d Decision) {
	m.filters.WithLabelValues(d.Filter, d.Phase, d.Mode, d.Decision).Observe(d.Took.Seconds())
}
