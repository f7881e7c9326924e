// Package telemetrytest receives what tests' subjects export, over real OTLP/gRPC.
package telemetrytest

import (
	"context"
	"encoding/hex"
	"net"
	"slices"
	"strconv"
	"sync"
	"testing"

	collectormetrics "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	collectortrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	metricspb "go.opentelemetry.io/proto/otlp/metrics/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
)

// A Span is one span as it arrived. Ids are in hexadecimal.
type Span struct {
	Name                      string
	Kind                      string // "SERVER", "CLIENT", "INTERNAL"
	TraceID, SpanID, ParentID string
	// Links are the trace ids linked to.
	Links      []string
	Attributes map[string]string
	// Failed reports the error status, and Message what goes with it.
	Failed  bool
	Message string
	// Resource are the attributes of who sent it.
	Resource map[string]string
}

// Collector keeps what it is sent.
type Collector struct {
	// Address is its host:port on loopback.
	Address string

	mu      sync.Mutex // guards following
	spans   []Span
	metrics map[string]*metricspb.Metric
	arrived sync.Cond // signals that spans has grown
}

// Start serves a collector until the test ends. Exporters must have been shut
// down before its answers are complete.
func Start(tb testing.TB) *Collector {
	tb.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	c := &Collector{Address: lis.Addr().String(), metrics: map[string]*metricspb.Metric{}}
	c.arrived.L = &c.mu
	s := grpc.NewServer()
	collectortrace.RegisterTraceServiceServer(s, traces{collector: c})
	collectormetrics.RegisterMetricsServiceServer(s, metrics{collector: c})
	done := make(chan error, 1)
	go func() { done <- s.Serve(lis) }()
	tb.Cleanup(func() {
		s.Stop()
		if err := <-done; err != nil {
			tb.Error(err)
		}
	})
	return c
}

// Spans returns all spans in the order they ended, as far as the exporter kept it.
func (c *Collector) Spans() []Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.spans)
}

// Span returns the one span of that kind and name. It fails the test if there
// is not exactly one.
func (c *Collector) Span(tb testing.TB, kind, name string) Span {
	tb.Helper()
	var found []Span
	var all []string
	for _, s := range c.Spans() {
		all = append(all, s.Kind+" "+s.Name)
		if s.Kind == kind && s.Name == name {
			found = append(found, s)
		}
	}
	if len(found) != 1 {
		tb.Fatalf("%d spans %s %s among %q, want 1", len(found), kind, name, all)
	}
	return found[0]
}

// Await waits until spans have arrived in which done finds what it looks for,
// or the test has no more time. It is for spans of what has not ended; the
// exporter sends them every OTEL_BSP_SCHEDULE_DELAY.
func (c *Collector) Await(ctx context.Context, done func([]Span) bool) bool {
	stop := context.AfterFunc(ctx, func() {
		c.mu.Lock() // or a waiter between its two looks would miss it
		defer c.mu.Unlock()
		c.arrived.Broadcast()
	})
	defer stop()
	c.mu.Lock()
	defer c.mu.Unlock()
	for !done(c.spans) {
		if ctx.Err() != nil {
			return false
		}
		c.arrived.Wait()
	}
	return true
}

// Metric returns the metric that was last sent as name, or nil.
func (c *Collector) Metric(name string) *metricspb.Metric {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.metrics[name]
}

type traces struct {
	collectortrace.UnimplementedTraceServiceServer
	collector *Collector
}

func (t traces) Export(_ context.Context, r *collectortrace.ExportTraceServiceRequest) (*collectortrace.ExportTraceServiceResponse, error) {
	t.collector.mu.Lock()
	defer t.collector.mu.Unlock()
	for _, from := range r.ResourceSpans {
		for _, scope := range from.ScopeSpans {
			for _, s := range scope.Spans {
				t.collector.spans = append(t.collector.spans, read(s, attributes(from.Resource.Attributes)))
			}
		}
	}
	t.collector.arrived.Broadcast()
	return &collectortrace.ExportTraceServiceResponse{}, nil
}

func read(s *tracepb.Span, resource map[string]string) Span {
	out := Span{
		Name: s.Name, Kind: s.Kind.String()[len("SPAN_KIND_"):],
		TraceID: hex.EncodeToString(s.TraceId), SpanID: hex.EncodeToString(s.SpanId), ParentID: hex.EncodeToString(s.ParentSpanId),
		Attributes: attributes(s.Attributes), Resource: resource,
		Failed: s.Status.GetCode() == tracepb.Status_STATUS_CODE_ERROR, Message: s.Status.GetMessage(),
	}
	for _, l := range s.Links {
		out.Links = append(out.Links, hex.EncodeToString(l.TraceId))
	}
	return out
}

func attributes(in []*commonpb.KeyValue) map[string]string {
	out := map[string]string{}
	for _, kv := range in {
		switch v := kv.Value.Value.(type) {
		case *commonpb.AnyValue_IntValue:
			out[kv.Key] = strconv.FormatInt(v.IntValue, 10)
		default:
			out[kv.Key] = kv.Value.GetStringValue()
		}
	}
	return out
}

type metrics struct {
	collectormetrics.UnimplementedMetricsServiceServer
	collector *Collector
}

func (m metrics) Export(_ context.Context, r *collectormetrics.ExportMetricsServiceRequest) (*collectormetrics.ExportMetricsServiceResponse, error) {
	m.collector.mu.Lock()
	defer m.collector.mu.Unlock()
	for _, from := range r.ResourceMetrics {
		for _, scope := range from.ScopeMetrics {
			for _, metric := range scope.Metrics {
				m.collector.metrics[metric.Name] = metric
			}
		}
	}
	return &collectormetrics.ExportMetricsServiceResponse{}, nil
}

var (
	_ collectortrace.TraceServiceServer     = traces{}
	_ collectormetrics.MetricsServiceServer = metrics{}
)
