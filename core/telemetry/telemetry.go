// Package telemetry holds the tracer and the meters, and every name that the
// proxy's spans, attributes, metrics and log lines have.
package telemetry

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.41.0"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// Registry is where metrics are registered and, if they are pushed, gathered
// from; controller-runtime's metrics.Registry is one.
type Registry interface {
	prometheus.Registerer
	prometheus.Gatherer
}

// Options says what to report and where to.
type Options struct {
	// TracingConfigFile is the path of a TracingConfiguration as kube-apiserver's
	// --tracing-config-file takes it. With a file, the file alone decides about
	// traces; without one the OTEL_* variables do; without either there are none.
	TracingConfigFile string
	// Version and NodeName describe this process. Empty ones are left out.
	Version  string
	NodeName string
	// Registry receives the metrics until Shutdown. A registry serves one
	// Telemetry at a time.
	Registry Registry
	// Log receives what cannot be exported.
	Log logr.Logger
}

// Telemetry is one process's tracer and meters. It sets none of
// OpenTelemetry's globals and does not read them.
type Telemetry struct {
	// Tracer makes all spans. When tracing is off they do not record.
	Tracer  trace.Tracer
	Metrics *Metrics

	traces   *sdktrace.TracerProvider // nil when tracing is off
	pushed   *sdkmetric.MeterProvider // nil when metrics are not pushed
	undo     func()                   // unregisters the metrics
	registry Registry
	down     atomic.Bool
}

// New prepares export as o and the environment ask for it. It does not wait for
// a collector to be there. The caller calls Shutdown.
func New(ctx context.Context, o Options) (*Telemetry, error) {
	res, err := describe(ctx, o)
	if err != nil {
		return nil, err
	}
	metrics, err := NewMetrics(o.Registry)
	if err != nil {
		return nil, err
	}
	t := &Telemetry{
		Tracer:   noop.NewTracerProvider().Tracer(scope),
		Metrics:  metrics,
		undo:     func() { unregister(o.Registry, metrics.collectors()) },
		registry: o.Registry,
	}
	if err := t.export(ctx, o, res); err != nil {
		return nil, errors.Join(err, t.Shutdown(ctx))
	}
	return t, nil
}

func (t *Telemetry) export(ctx context.Context, o Options, res *resource.Resource) (err error) {
	if t.traces, err = newTraces(ctx, o, res); err != nil {
		return err
	}
	if t.traces != nil {
		t.Tracer = t.traces.Tracer(scope, trace.WithInstrumentationVersion(o.Version))
	}
	t.pushed, err = newPush(ctx, o, res)
	return err
}

// describe says who reports. The environment has the last word.
func describe(ctx context.Context, o Options) (*resource.Resource, error) {
	attrs := []attribute.KeyValue{semconv.ServiceName(serviceName)}
	if o.Version != "" {
		attrs = append(attrs, semconv.ServiceVersion(o.Version))
	}
	if o.NodeName != "" {
		attrs = append(attrs, semconv.K8SNodeName(o.NodeName))
	}
	res, err := resource.New(ctx, resource.WithTelemetrySDK(), resource.WithAttributes(attrs...), resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("read OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	return res, nil
}

// Tracing reports whether spans may be recorded at all.
func (t *Telemetry) Tracing() bool { return t.traces != nil }

// Shutdown sends what is still to be sent, for as long as ctx allows, and takes
// the metrics out of the registry. Calls after the first do nothing.
func (t *Telemetry) Shutdown(ctx context.Context) error {
	if t.down.Swap(true) {
		return nil
	}
	var errs []error
	if t.traces != nil {
		errs = append(errs, t.traces.Shutdown(ctx))
	}
	if t.pushed != nil {
		errs = append(errs, t.pushed.Shutdown(ctx))
	}
	t.undo()
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("flush telemetry: %w", err)
	}
	return nil
}
