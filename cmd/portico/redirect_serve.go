package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"

	"github.com/portico-proxy/portico/bpf"
	"github.com/portico-proxy/portico/core/redirect"
)

// serveOperators serves health and metrics until ctx ends.
func serveOperators(ctx context.Context, o *redirectOptions, a *agent) error {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), newAgentMetrics(a), a.syncs)
	metrics := http.NewServeMux()
	metrics.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	health := http.NewServeMux()
	health.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	health.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !a.ready.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprintln(w, "not steering yet")
			return
		}
		fmt.Fprintln(w, "ok")
	})
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return serveAt(ctx, o.metricsAddress, metrics) })
	g.Go(func() error { return serveAt(ctx, o.healthAddress, health) })
	return g.Wait()
}

func serveAt(ctx context.Context, address string, h http.Handler) error {
	if address == "0" {
		return nil
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("serve operators: %w", err)
	}
	s := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second}
	defer context.AfterFunc(ctx, func() { s.Close() })()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve operators: %w", err)
	}
	return nil
}

// agentMetrics are few, whatever the size of the cluster: of single destinations
// only those appear that somebody on this node has named.
type agentMetrics struct {
	agent                                *agent
	frontends, limit, backends, verdicts *prometheus.Desc
}

func newAgentMetrics(a *agent) *agentMetrics {
	return &agentMetrics{
		agent:     a,
		frontends: prometheus.NewDesc("portico_redirect_frontends", "Destinations in the kernel's table.", nil, nil),
		limit:     prometheus.NewDesc("portico_redirect_frontends_limit", "Destinations that the kernel's table has room for.", nil, nil),
		backends:  prometheus.NewDesc("portico_redirect_policy_backends", "Backends that a policy has on this node.", []string{"kind", "policy"}, nil),
		verdicts: prometheus.NewDesc("portico_redirect_verdicts_total",
			"How often a destination was named since it is in the table, and what became of it: policy and service led to a backend, refused and passed did not; lapsed (the policy's lease had run out) and exempt (it is not for the client) say why it was not the policy.",
			[]string{"frontend", "verdict"}, nil),
	}
}

// newSyncs measures from the decision to the kernel: of everything, or of the
// Services whose endpoints have changed.
func newSyncs() *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "portico_redirect_sync_duration_seconds", Help: "How long it takes to decide and to write what has changed into the kernel's table.",
		Buckets: prometheus.ExponentialBuckets(0.00025, 4, 8),
	}, []string{"of"})
}

// Describe tells the registry what there is.
func (m *agentMetrics) Describe(c chan<- *prometheus.Desc) {
	c <- m.frontends
	c <- m.limit
	c <- m.backends
	c <- m.verdicts
}

// Collect takes the figures from the last decision and from the kernel.
func (m *agentMetrics) Collect(c chan<- prometheus.Metric) {
	d := m.agent.decision.Load()
	if d == nil {
		d = &redirect.Decision{}
	}
	c <- prometheus.MustNewConstMetric(m.frontends, prometheus.GaugeValue, float64(len(d.Table)))
	c <- prometheus.MustNewConstMetric(m.limit, prometheus.GaugeValue, float64(m.agent.options.maxFrontends))
	for _, p := range d.Policies {
		c <- prometheus.MustNewConstMetric(m.backends, prometheus.GaugeValue, float64(p.Backends), p.Kind, p.Policy.GetName())
	}
	for frontend, counts := range m.agent.counts() {
		m.collectVerdicts(c, frontend.String(), counts)
	}
}

func (m *agentMetrics) collectVerdicts(c chan<- prometheus.Metric, frontend string, n bpf.Counts) {
	for verdict, count := range map[string]uint64{
		"policy": n.Policy, "service": n.Service, "refused": n.Refused, "passed": n.Passed, "lapsed": n.Lapsed, "exempt": n.Exempt,
	} {
		if count > 0 {
			c <- prometheus.MustNewConstMetric(m.verdicts, prometheus.CounterValue, float64(count), frontend, verdict)
		}
	}
}

var _ prometheus.Collector = (*agentMetrics)(nil)
