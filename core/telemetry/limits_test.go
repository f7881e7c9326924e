package telemetry

import (
	"fmt"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
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

func TestWhatIsNotLoggedIsCounted(t *testing.T) {
	registry := prometheus.NewRegistry()
	tel, err := New(t.Context(), Options{Registry: registry})
	if err != nil {
		t.Fatal(err)
	}
	dropped, err := tel.ObserveDecisionLog()
	if err != nil {
		t.Fatal(err)
	}
	dropped(UnloggedQueue)
	want := `
# HELP portico_decision_log_dropped_total Decisions of policies that were to be logged and were not, by reason (rate, queue, size, write).
# TYPE portico_decision_log_dropped_total counter
portico_decision_log_dropped_total{reason="queue"} 1
portico_decision_log_dropped_total{reason="rate"} 0
portico_decision_log_dropped_total{reason="size"} 0
portico_decision_log_dropped_total{reason="write"} 0
`
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want), metricUnlogged); err != nil {
		t.Error(err)
	}
	if err := tel.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
}
