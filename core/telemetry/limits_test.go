package telemetry

import (
	"fmt"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

func TestLimitsAreCountedApartUpToABound(t *testing.T) {
	registry := prometheus.NewRegistry()
	tel, err := New(t.Context(), Options{Registry: registry})
	if err != nil {
		t.Fatal(err)
	}
	limits, err := tel.ObserveLimits(func() int { return 7 })
	if err != nil {
		t.Fatal(err)
	}
	for n := range 2 * maxLimits {
		limits.Decided("p", fmt.Sprint("l", n), "rejected")
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == metricLimits && len(f.GetMetric()) != maxLimits+1 {
			t.Errorf("%d series, want %d", len(f.GetMetric()), maxLimits+1)
		}
		if f.GetName() == metricLimitKeys && f.GetMetric()[0].GetGauge().GetValue() != 7 {
			t.Errorf("got %v", f)
		}
	}
	if err := tel.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if families, _ := registry.Gather(); len(families) != 0 {
		t.Errorf("%d families are left", len(families))
	}
}
