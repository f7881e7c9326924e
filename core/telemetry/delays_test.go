package telemetry

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestDelaysAreCounted(t *testing.T) {
	registry := prometheus.NewRegistry()
	tel, err := New(t.Context(), Options{Registry: registry})
	if err != nil {
		t.Fatal(err)
	}
	delayed, err := tel.ObserveDelays()
	if err != nil {
		t.Fatal(err)
	}
	delayed(DelayedAddress, time.Second)
	delayed(DelayedAddress, time.Second/2)
	want := `
# HELP portico_connection_delay_seconds_total By how much connections were read from later, in seconds.
# TYPE portico_connection_delay_seconds_total counter
portico_connection_delay_seconds_total{by="address"} 1.5
portico_connection_delay_seconds_total{by="connection"} 0
# HELP portico_connection_delays_total How often connections were read from later, for what they have cost for nothing (connection), or others of their address (address).
# TYPE portico_connection_delays_total counter
portico_connection_delays_total{by="address"} 2
portico_connection_delays_total{by="connection"} 0
`
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want), metricDelays, metricDelaySeconds); err != nil {
		t.Error(err)
	}
	if err := tel.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
}
