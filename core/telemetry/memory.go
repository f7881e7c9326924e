package telemetry

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// CacheFigures are what is told of answers from memory, read at one moment.
// Everything but Memory and the state of collections only grows.
type CacheFigures struct {
	Memory, MemoryLimit int64            // bytes; no limit is 0
	Passed              map[string]int64 // reads handed on, by reason
	Ended               map[string]int64 // streams, by reason
	Collections         []CollectionFigures
}

// CollectionFigures are those of one resource in one format.
type CollectionFigures struct {
	Group, Version, Resource, Format string

	// What is in memory now. Without a stream there is nothing.
	Streams             int
	Objects, History    int
	Bytes, HistoryBytes int64
	ResourceVersion     uint64
	Age                 time.Duration // since upstream last proved it current
	Watchers            int64

	Events, Resets int64
	Slow           int64            // watchers that were too slow for the history
	Answers        map[string]int64 // by how they were made
	Proofs         map[string]int64
	Upstream       map[string]int64 // requests, by purpose
}

// A cacheCollector reads figures whenever metrics are gathered: nobody pays for
// them otherwise.
type cacheCollector struct {
	read    func() CacheFigures
	metrics []cacheMetric
	memory  *prometheus.Desc
	limit   *prometheus.Desc
	passed  *prometheus.Desc
	ended   *prometheus.Desc
}

// cacheMetric is one metric of every collection: either one value, or one for
// each of a set of names.
type cacheMetric struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(*CollectionFigures) (_ float64, ok bool)
	named func(*CollectionFigures) map[string]int64
}

var collectionLabels = []string{labelGroup, labelVersion, labelResource, labelFormat}

// ObserveCache makes metrics tell what read returns, until [Telemetry.Shutdown].
func (t *Telemetry) ObserveCache(read func() CacheFigures) error {
	c := newCacheCollector(read)
	if err := t.registry.Register(c); err != nil {
		return fmt.Errorf("register metrics of the cache: %w", err)
	}
	before := t.undo
	t.undo = func() { before(); t.registry.Unregister(c) }
	return nil
}

func newCacheCollector(read func() CacheFigures) *cacheCollector {
	global := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	return &cacheCollector{
		read: read, metrics: append(stateMetrics(), countedMetrics()...),
		memory: global(metricCacheMemory, "Bytes that all collections take together, their history included."),
		limit:  global(metricCacheMemoryLimit, "Bytes that all collections may take together; 0 means no bound."),
		passed: global(metricCachePassed, "Reads that were not answered from memory, by reason.", labelReason),
		ended:  global(metricCacheEnded, "Streams that ended, by reason.", labelReason),
	}
}

// stateMetrics tell of what is in memory now.
func stateMetrics() []cacheMetric {
	gauge := func(name, help string, value func(*CollectionFigures) float64) cacheMetric {
		return cacheMetric{
			desc: prometheus.NewDesc(name, help, collectionLabels, nil), kind: prometheus.GaugeValue,
			value: func(f *CollectionFigures) (float64, bool) { return value(f), f.Streams > 0 },
		}
	}
	return []cacheMetric{
		gauge(metricCacheStreams, "Streams that have something to answer from.", func(f *CollectionFigures) float64 { return float64(f.Streams) }),
		gauge(metricCacheObjects, "Objects in memory.", func(f *CollectionFigures) float64 { return float64(f.Objects) }),
		gauge(metricCacheBytes, "Bytes that objects take.", func(f *CollectionFigures) float64 { return float64(f.Bytes) }),
		gauge(metricCacheHistory, "Events that can be replayed to watchers.", func(f *CollectionFigures) float64 { return float64(f.History) }),
		gauge(metricCacheHistoryBytes, "Bytes that only these events take.", func(f *CollectionFigures) float64 { return float64(f.HistoryBytes) }),
		gauge(metricCacheWatchers, "Watches that are answered from memory now.", func(f *CollectionFigures) float64 { return float64(f.Watchers) }),
		gauge(metricCacheStaleness, "Time since the API server last proved that the collection is current in seconds. It does so about once a minute.",
			func(f *CollectionFigures) float64 { return f.Age.Seconds() }),
		gauge(metricCacheVersion, "The resourceVersion that the collection has reached.", func(f *CollectionFigures) float64 { return float64(f.ResourceVersion) }),
	}
}

// countedMetrics tell of what has been done.
func countedMetrics() []cacheMetric {
	counter := func(name, help string, value func(*CollectionFigures) int64) cacheMetric {
		return cacheMetric{
			desc: prometheus.NewDesc(name, help, collectionLabels, nil), kind: prometheus.CounterValue,
			value: func(f *CollectionFigures) (float64, bool) { return float64(value(f)), true },
		}
	}
	named := func(name, label, help string, values func(*CollectionFigures) map[string]int64) cacheMetric {
		labels := append(append([]string{}, collectionLabels...), label)
		return cacheMetric{desc: prometheus.NewDesc(name, help, labels, nil), kind: prometheus.CounterValue, named: values}
	}
	return []cacheMetric{
		counter(metricCacheEvents, "Changes that arrived from the API server.", func(f *CollectionFigures) int64 { return f.Events }),
		counter(metricCacheInits, "How often a collection was begun anew from a list.", func(f *CollectionFigures) int64 { return f.Resets }),
		counter(metricTerminated, "Watches that ended because their clients read too slowly.", func(f *CollectionFigures) int64 { return f.Slow }),
		named(metricCacheAnswers, labelServedBy, "Requests that did not go upstream each for itself, by how they were answered.", func(f *CollectionFigures) map[string]int64 { return f.Answers }),
		named(metricCacheProofs, labelProof, "Reads of the newest state, by how memory was known to have it.", func(f *CollectionFigures) map[string]int64 { return f.Proofs }),
		named(metricCacheUpstream, labelPurpose, "Requests that keeping the collection has cost the API server, by purpose.", func(f *CollectionFigures) map[string]int64 { return f.Upstream }),
	}
}

func (c *cacheCollector) Describe(to chan<- *prometheus.Desc) {
	for _, m := range c.metrics {
		to <- m.desc
	}
	for _, d := range []*prometheus.Desc{c.memory, c.limit, c.passed, c.ended} {
		to <- d
	}
}

func (c *cacheCollector) Collect(to chan<- prometheus.Metric) {
	f := c.read()
	to <- prometheus.MustNewConstMetric(c.memory, prometheus.GaugeValue, float64(f.Memory))
	to <- prometheus.MustNewConstMetric(c.limit, prometheus.GaugeValue, float64(f.MemoryLimit))
	collectNamed(to, cacheMetric{desc: c.passed, kind: prometheus.CounterValue}, f.Passed)
	collectNamed(to, cacheMetric{desc: c.ended, kind: prometheus.CounterValue}, f.Ended)
	for i := range f.Collections {
		for _, m := range c.metrics {
			m.collect(to, &f.Collections[i])
		}
	}
}

func (m cacheMetric) collect(to chan<- prometheus.Metric, f *CollectionFigures) {
	labels := []string{f.Group, f.Version, f.Resource, f.Format}
	if m.named != nil {
		collectNamed(to, m, m.named(f), labels...)
		return
	}
	if v, ok := m.value(f); ok {
		to <- prometheus.MustNewConstMetric(m.desc, m.kind, v, labels...)
	}
}

// collectNamed sends one value for each name, which is the last label.
func collectNamed(to chan<- prometheus.Metric, m cacheMetric, values map[string]int64, labels ...string) {
	for name, n := range values {
		all := append(append([]string{}, labels...), name)
		to <- prometheus.MustNewConstMetric(m.desc, m.kind, float64(n), all...)
	}
}

var _ prometheus.Collector = (*cacheCollector)(nil)
