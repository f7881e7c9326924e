package telemetry

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// ReplicaFigures are what is told of replicas, read at one moment. What is lost and
// what failed only grows.
type ReplicaFigures struct {
	Peers, Held  float64
	InTouch      bool
	Lost, Failed float64
}

// ObserveReplicas makes metrics tell what read returns, until [Telemetry.Shutdown].
func (t *Telemetry) ObserveReplicas(read func() ReplicaFigures) error {
	gauge := func(name, help string, value func(ReplicaFigures) float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return value(read()) })
	}
	counter := func(name, help string, value func(ReplicaFigures) float64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, func() float64 { return value(read()) })
	}
	for _, c := range []prometheus.Collector{
		gauge(metricReplicasPeers, "Replicas that a lease is needed of.", func(f ReplicaFigures) float64 { return f.Peers }),
		gauge(metricReplicasHeld, "Leases of replicas that are held.", func(f ReplicaFigures) float64 { return f.Held }),
		gauge(metricReplicasInTouch, "Whether sessions are answered from memory: all leases are held.", func(f ReplicaFigures) float64 {
			if f.InTouch {
				return 1
			}
			return 0
		}),
		counter(metricReplicasLost, "How often touch with replicas was, or may have been, lost.", func(f ReplicaFigures) float64 { return f.Lost }),
		counter(metricReplicasFailed, "How often a replica could not be told what was to be acknowledged.", func(f ReplicaFigures) float64 { return f.Failed }),
	} {
		if err := t.registry.Register(c); err != nil {
			return fmt.Errorf("register metrics of replicas: %w", err)
		}
		before := t.undo
		t.undo = func() { before(); t.registry.Unregister(c) }
	}
	return nil
}
