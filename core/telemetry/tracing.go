package telemetry

import (
	"context"
	"fmt"
	"os"

	"github.com/go-logr/logr"
	"go.opentelemetry.io/contrib/exporters/autoexport"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	tracingapi "k8s.io/component-base/tracing/api/v1"
)

// attributeLimit bounds, in characters, what a caller can put into a span.
const attributeLimit = 1024

// newTraces returns nil if nobody asked for traces.
func newTraces(ctx context.Context, o Options, res *resource.Resource) (*sdktrace.TracerProvider, error) {
	var exporter sdktrace.SpanExporter
	var options []sdktrace.TracerProviderOption
	var err error
	if o.TracingConfigFile == "" {
		exporter, err = exporterFromEnv(ctx)
	} else {
		exporter, options, err = exporterFromFile(ctx, o)
	}
	if err != nil || exporter == nil {
		return nil, err
	}
	options = append(options, sdktrace.WithResource(res), sdktrace.WithRawSpanLimits(spanLimits()),
		sdktrace.WithBatcher(&loggedSpans{SpanExporter: exporter, log: o.Log}))
	return sdktrace.NewTracerProvider(options...), nil
}

func spanLimits() sdktrace.SpanLimits {
	limits := sdktrace.NewSpanLimits() // as OTEL_SPAN_* say
	if limits.AttributeValueLengthLimit < 0 {
		limits.AttributeValueLengthLimit = attributeLimit
	}
	return limits
}

// exporterFromEnv obeys OTEL_TRACES_EXPORTER, OTEL_EXPORTER_OTLP_* and their
// kin. The sampler's variables are the SDK's own to read.
func exporterFromEnv(ctx context.Context) (sdktrace.SpanExporter, error) {
	if !asked("TRACES") {
		return nil, nil
	}
	exporter, err := autoexport.NewSpanExporter(ctx)
	if err != nil {
		return nil, fmt.Errorf("open the exporter that OTEL_TRACES_EXPORTER=%q and OTEL_EXPORTER_OTLP_* name: %w", os.Getenv("OTEL_TRACES_EXPORTER"), err)
	}
	if autoexport.IsNoneSpanExporter(exporter) {
		return nil, nil
	}
	return exporter, nil
}

// asked reports whether the environment asks for a signal, which is TRACES or
// METRICS. OpenTelemetry's default is to export to localhost unasked; a proxy
// on every node should not.
func asked(signal string) bool {
	if os.Getenv("OTEL_SDK_DISABLED") == "true" {
		return false
	}
	return len(set("OTEL_"+signal+"_EXPORTER", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_"+signal+"_ENDPOINT")) > 0
}

// set returns those variables that are set and not empty.
func set(names ...string) (found []string) {
	for _, name := range names {
		if os.Getenv(name) != "" {
			found = append(found, name)
		}
	}
	return found
}

// exporterFromFile does what kube-apiserver does with the same file: OTLP over
// gRPC without TLS, a share of the requests, and no request if no share is given.
func exporterFromFile(ctx context.Context, o Options) (sdktrace.SpanExporter, []sdktrace.TracerProviderOption, error) {
	cfg, err := readTracingConfiguration(o.TracingConfigFile)
	if err != nil {
		return nil, nil, err
	}
	if ignored := set("OTEL_TRACES_EXPORTER", "OTEL_TRACES_SAMPLER", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"); len(ignored) > 0 {
		o.Log.Info("The tracing configuration file decides about traces, not the environment", "file", o.TracingConfigFile, "ignored", ignored)
	}
	endpoint := "localhost:4317"
	if cfg.Endpoint != nil {
		endpoint = *cfg.Endpoint
	}
	exporter, err := otlptracegrpc.New(ctx, otlptracegrpc.WithEndpoint(endpoint), otlptracegrpc.WithInsecure())
	if err != nil {
		return nil, nil, fmt.Errorf("%s: endpoint %q: %w", o.TracingConfigFile, endpoint, err)
	}
	return exporter, []sdktrace.TracerProviderOption{sdktrace.WithSampler(samplerOf(cfg))}, nil
}

func samplerOf(cfg *tracingapi.TracingConfiguration) sdktrace.Sampler {
	if cfg.SamplingRatePerMillion == nil {
		return sdktrace.ParentBased(sdktrace.NeverSample())
	}
	return sdktrace.ParentBased(sdktrace.TraceIDRatioBased(float64(*cfg.SamplingRatePerMillion) / 1e6))
}

// loggedSpans reports failures to our log: the SDK knows only a global one.
type loggedSpans struct {
	sdktrace.SpanExporter
	log logr.Logger
}

func (e *loggedSpans) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	if err := e.SpanExporter.ExportSpans(ctx, spans); err != nil {
		e.log.Error(err, "Spans were lost", "count", len(spans))
	}
	return nil
}

var _ sdktrace.SpanExporter = (*loggedSpans)(nil)
