package telemetry

import (
	"fmt"
	"os"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/apis/apiserver/install"
	tracingapi "k8s.io/component-base/tracing/api/v1"
)

// readTracingConfiguration reads what kube-apiserver reads, in all its versions,
// but refuses fields it does not know.
func readTracingConfiguration(file string) (*tracingapi.TracingConfiguration, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read tracing configuration: %w", err) // names the file
	}
	scheme := runtime.NewScheme()
	install.Install(scheme)
	codecs := serializer.NewCodecFactory(scheme, serializer.EnableStrict)
	obj, kind, err := codecs.UniversalDecoder().Decode(data, nil, nil)
	if err != nil {
		return nil, fmt.Errorf("read tracing configuration %s: %w", file, err)
	}
	cfg, ok := obj.(*apiserver.TracingConfiguration)
	if !ok {
		return nil, fmt.Errorf("read tracing configuration %s: kind is %s, want TracingConfiguration", file, kind.Kind)
	}
	if errs := tracingapi.ValidateTracingConfiguration(&cfg.TracingConfiguration, nil, nil); len(errs) > 0 {
		return nil, fmt.Errorf("read tracing configuration %s: %w", file, errs.ToAggregate())
	}
	return &cfg.TracingConfiguration, nil
}
