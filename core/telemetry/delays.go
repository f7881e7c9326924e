package telemetry

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Why a connection is read from later than it could be.
const (
	DelayedConnection = "connection" // for what it has cost for nothing
	DelayedAddress    = "address"    // it is new, and others of its address have
)

// ObserveDelays makes metrics tell which connections are delayed and for how long,
// as the result is told, until [Telemetry.Shutdown].
func (t *Telemetry) ObserveDelays() (delayed func(by string, waited time.Duration), err error) {
	times := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: metricDelays, Help: "How often connections were read from later, for what they have cost for nothing (connection), or others of their address (address).",
	}, []string{labelBy})
	seconds := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: metricDelaySeconds, Help: "By how much connections were read from later, in seconds.",
	}, []string{labelBy})
	for _, c := range []*prometheus.CounterVec{times, seconds} {
		if err := t.registry.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics of connections: %w", err)
		}
		before := t.undo
		t.undo = func() { before(); t.registry.Unregister(c) }
		for _, by := range []string{DelayedConnection, DelayedAddress} {
			c.WithLabelValues(by) // so that it is there before there is one
		}
	}
	return func(by string, waited time.Duration) {
		times.WithLabelValues(by).Inc()
		seconds.WithLabelValues(by).Add(waited.Seconds())
	}, nil
}
