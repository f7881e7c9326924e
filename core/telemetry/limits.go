package telemetry

import (
	"fmt"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// maxLimits bounds how many limits are counted apart: a policy may make their
// names of what callers send.
const maxLimits = 1000

// otherLimit is what the rest is counted as.
const otherLimit = "other"

// Limits are what is counted of requests that are kept to limits.
type Limits struct {
	decisions *prometheus.CounterVec

	mu    sync.RWMutex // guards following
	known map[[2]string]bool
}

// ObserveLimits makes metrics tell what is reported to the result, and how many
// keys are remembered, until [Telemetry.Shutdown].
func (t *Telemetry) ObserveLimits(keys func() int) (*Limits, error) {
	l := &Limits{
		decisions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: metricLimits, Help: "Requests that limits of policies were asked about, by what became of them (admitted, delayed, rejected, served_cached, warned, audited).",
		}, []string{labelPolicy, labelLimit, labelOutcome}),
		known: map[[2]string]bool{},
	}
	remembered := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: metricLimitKeys, Help: "Keys of limits that are remembered.",
	}, func() float64 { return float64(keys()) })
	for _, c := range []prometheus.Collector{l.decisions, remembered} {
		if err := t.registry.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics of limits: %w", err)
		}
		before := t.undo
		t.undo = func() { before(); t.registry.Unregister(c) }
	}
	return l, nil
}

// ObserveDecisionLog makes metrics tell what was not logged, as the result is told,
// until [Telemetry.Shutdown].
func (t *Telemetry) ObserveDecisionLog() (dropped func(reason string), err error) {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: metricUnlogged, Help: "Decisions of policies that were to be logged and were not, by reason (rate, queue, size, write).",
	}, []string{labelReason})
	if err := t.registry.Register(c); err != nil {
		return nil, fmt.Errorf("register metrics of the decision log: %w", err)
	}
	before := t.undo
	t.undo = func() { before(); t.registry.Unregister(c) }
	for _, reason := range []string{UnloggedRate, UnloggedQueue, UnloggedSize, UnloggedWrite} {
		c.WithLabelValues(reason) // so that it is there before there is one
	}
	return func(reason string) { c.WithLabelValues(reason).Inc() }, nil
}

// Decided counts what became of one request because of one limit.
func (l *Limits) Decided(policy, limit, outcome string) {
	l.decisions.WithLabelValues(policy, l.name(policy, limit), outcome).Inc()
}

func (l *Limits) name(policy, limit string) string {
	key := [2]string{policy, limit}
	l.mu.RLock()
	known, full := l.known[key], len(l.known) >= maxLimits
	l.mu.RUnlock()
	switch {
	case known:
		return limit
	case full:
		return otherLimit
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.known[key] = true
	return limit
}
