package telemetry

import (
	"context"
	"fmt"
	"os"

	"github.com/go-logr/logr"
	prometheusbridge "go.opentelemetry.io/contrib/bridges/prometheus"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/stdout/stdoutmetric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/resource"
)

// newPush sends what is in the registry to where the environment says, every
// OTEL_METRIC_EXPORT_INTERVAL. It returns nil if nobody asked for that.
func newPush(ctx context.Context, o Options, res *resource.Resource) (*sdkmetric.MeterProvider, error) {
	if !asked("METRICS") {
		return nil, nil
	}
	exporter, err := metricExporter(ctx)
	if err != nil || exporter == nil {
		return nil, err
	}
	bridge := prometheusbridge.NewMetricProducer(prometheusbridge.WithGatherer(o.Registry))
	reader := sdkmetric.NewPeriodicReader(&loggedMetrics{Exporter: exporter, log: o.Log}, sdkmetric.WithProducer(bridge))
	return sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader), sdkmetric.WithResource(res)), nil
}

// metricExporter chooses by the variables autoexport chooses by. Autoexport
// itself makes whole readers, and takes what they read from a global.
func metricExporter(ctx context.Context) (sdkmetric.Exporter, error) {
	name := os.Getenv("OTEL_METRICS_EXPORTER")
	var exporter sdkmetric.Exporter
	var err error
	switch name {
	case "none":
		return nil, nil
	case "console":
		exporter, err = stdoutmetric.New()
	case "", "otlp":
		exporter, err = otlpMetricExporter(ctx)
	case "prometheus":
		return nil, fmt.Errorf("OTEL_METRICS_EXPORTER=prometheus: metrics are served at /metrics already; leave it unset, or say otlp, console or none")
	default:
		return nil, fmt.Errorf("OTEL_METRICS_EXPORTER=%q: want otlp, console or none", name)
	}
	if err != nil {
		return nil, fmt.Errorf("open the exporter that OTEL_METRICS_EXPORTER=%q and OTEL_EXPORTER_OTLP_* name: %w", name, err)
	}
	return exporter, nil
}

func otlpMetricExporter(ctx context.Context) (sdkmetric.Exporter, error) {
	name := "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL"
	if os.Getenv(name) == "" {
		name = "OTEL_EXPORTER_OTLP_PROTOCOL"
	}
	switch protocol := os.Getenv(name); protocol {
	case "grpc":
		return otlpmetricgrpc.New(ctx)
	case "", "http/protobuf":
		return otlpmetrichttp.New(ctx)
	default:
		return nil, fmt.Errorf("%s=%q: want grpc or http/protobuf", name, protocol)
	}
}

// loggedMetrics reports failures to our log: the SDK knows only a global one.
type loggedMetrics struct {
	sdkmetric.Exporter
	log logr.Logger
}

func (e *loggedMetrics) Export(ctx context.Context, m *metricdata.ResourceMetrics) error {
	if err := e.Exporter.Export(ctx, m); err != nil {
		e.log.Error(err, "Metrics were not sent")
	}
	return nil
}

var _ sdkmetric.Exporter = (*loggedMetrics)(nil)
