package telemetry

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"k8s.io/apiserver/pkg/endpoints/request"
)

// maxUpstreamSets bounds the sets of labels of upstream metrics.
const maxUpstreamSets = 1000

// A Call is one attempt to have the API server answer a request.
type Call struct {
	// Address is the host:port that was spoken to. Unless it is set before End,
	// it is the one of the request's URL.
	Address string

	t     *Telemetry
	r     *http.Request
	span  trace.Span // nil if the request is not recorded
	start time.Time
}

// StartUpstream begins a call that sends out, as a child of the span in out's
// context. If that one is recorded, out's header gets the traceparent of the
// call in place of what the caller sent; if not, the caller's passes untouched.
func (t *Telemetry) StartUpstream(out *http.Request) Call {
	c := Call{t: t, r: out, start: time.Now()}
	ctx := out.Context()
	if !trace.SpanFromContext(ctx).IsRecording() {
		return c
	}
	info := infoOf(out)
	ctx, c.span = t.Tracer.Start(ctx, spanName(out.Method, info), trace.WithSpanKind(trace.SpanKindClient), trace.WithTimestamp(c.start))
	c.span.SetAttributes(KeyMethod.String(cleanMethod(out.Method)), KeyAuditID.String(clean(out.Header.Get(HeaderAuditID))))
	out.Header.Del("Tracestate") // belongs to the caller's trace; Inject sets ours if there is one
	propagation.TraceContext{}.Inject(ctx, propagation.HeaderCarrier(out.Header))
	return c
}

// End ends the call when the response's header is there, or err in its place.
// What the body does after that is the server span's: it may be a watch.
func (c Call) End(res *http.Response, err error) {
	if c.Address == "" {
		c.Address = c.r.URL.Host
	}
	code, reason := outcome(c.r.Context(), res, err)
	s := c.t.Metrics.byUpstream.get(upstreamKey{c.Address, code})
	s.requests.Inc()
	observe(s.duration, time.Since(c.start).Seconds(), c.span)
	if c.span != nil {
		c.endSpan(res, reason)
	}
}

func (c Call) endSpan(res *http.Response, reason string) {
	host, port, err := net.SplitHostPort(c.Address)
	if err != nil {
		host = c.Address
	}
	c.span.SetAttributes(KeyServerAddress.String(host))
	if n, err := strconv.Atoi(port); err == nil {
		c.span.SetAttributes(KeyServerPort.Int(n))
	}
	if res != nil {
		c.span.SetAttributes(KeyStatusCode.Int(res.StatusCode))
	}
	if reason != "" {
		c.span.SetAttributes(KeyErrorType.String(reason))
		c.span.SetStatus(codes.Error, reason)
	}
	c.span.End()
}

// outcome returns the label of what came back and, if it is an error, its type.
// A refusal is not one: the API server did its work.
func outcome(ctx context.Context, res *http.Response, err error) (code, reason string) {
	var slow net.Error
	switch {
	case err == nil && res.StatusCode < 500:
		return cleanCode(res.StatusCode), ""
	case err == nil:
		return cleanCode(res.StatusCode), strconv.Itoa(res.StatusCode)
	case ctx.Err() != nil:
		return errorCanceled, errorCanceled
	case errors.As(err, &slow) && slow.Timeout():
		return "error", errorTimeout
	}
	return "error", errorOther
}

type upstreamKey struct{ address, code string }

type upstreamSeries struct {
	requests prometheus.Counter
	duration prometheus.Observer
}

type upstreamCache struct {
	open func(upstreamKey) upstreamSeries

	mu     sync.RWMutex // guards following
	series map[upstreamKey]upstreamSeries
}

func (c *upstreamCache) get(k upstreamKey) upstreamSeries {
	c.mu.RLock()
	s, ok := c.series[k]
	c.mu.RUnlock()
	if ok {
		return s
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.series) >= maxUpstreamSets {
		k.address = "unknown"
	}
	s = c.open(k)
	c.series[k] = s
	return s
}

func (m *Metrics) openUpstream(k upstreamKey) upstreamSeries {
	return upstreamSeries{m.upstream.WithLabelValues(k.address, k.code), m.upstreamDuration.WithLabelValues(k.address)}
}

// infoOf is never nil.
func infoOf(r *http.Request) *request.RequestInfo {
	if info, ok := request.RequestInfoFrom(r.Context()); ok {
		return info
	}
	return &request.RequestInfo{Path: r.URL.Path, Verb: r.Method}
}
