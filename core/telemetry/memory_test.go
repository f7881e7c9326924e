package telemetry_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/portico-proxy/portico/core/telemetry"
	"github.com/portico-proxy/portico/core/telemetry/telemetrytest"
)

// observeCache tells of one collection that is in memory and of one that was.
func observeCache(t *testing.T, tel *telemetry.Telemetry) {
	t.Helper()
	pods := telemetry.CollectionFigures{
		Version: "v1", Resource: "pods", Format: "json", Streams: 1, Objects: 3, Bytes: 300, History: 2, HistoryBytes: 20,
		ResourceVersion: 77, Age: 1500 * time.Millisecond, Watchers: 4, Events: 5, Resets: 1, Slow: 6,
		Answers: map[string]int64{telemetry.ServedByCache: 8}, Proofs: map[string]int64{telemetry.ProofNatural: 9}, Upstream: map[string]int64{telemetry.ForProbe: 10},
	}
	gone := telemetry.CollectionFigures{Group: "apps", Version: "v1", Resource: "deployments", Format: "protobuf", Events: 1}
	figures := telemetry.CacheFigures{
		Memory: 320, MemoryLimit: 1000, Passed: map[string]int64{telemetry.PassedPolicy: 11}, Ended: map[string]int64{telemetry.EndedIdle: 12},
		Collections: []telemetry.CollectionFigures{pods, gone},
	}
	if err := tel.ObserveCache(func() telemetry.CacheFigures { return figures }); err != nil {
		t.Fatal(err)
	}
}

func TestMemoryIsToldOf(t *testing.T) {
	environment(t, nil)
	registry := prometheus.NewPedanticRegistry()
	tel := start(t, telemetry.Options{Registry: registry})
	observeCache(t, tel)
	pods := "format=json resource=pods version=v1"
	for name, want := range map[string]map[string]float64{
		"portico_watch_cache_streams":                {pods: 1},
		"portico_watch_cache_objects":                {pods: 3},
		"portico_watch_cache_size_bytes":             {pods: 300},
		"portico_watch_cache_history_events":         {pods: 2},
		"portico_watch_cache_history_bytes":          {pods: 20},
		"portico_watch_cache_watchers":               {pods: 4},
		"portico_watch_cache_staleness_seconds":      {pods: 1.5},
		"portico_watch_cache_resource_version":       {pods: 77},
		"portico_watch_cache_events_received_total":  {pods: 5, "format=protobuf group=apps resource=deployments version=v1": 1},
		"portico_watch_cache_initializations_total":  {pods: 1},
		"portico_terminated_watchers_total":          {pods: 6},
		"portico_watch_cache_answers_total":          {"format=json resource=pods served_by=cache version=v1": 8},
		"portico_watch_cache_consistent_read_total":  {"format=json proof=natural resource=pods version=v1": 9},
		"portico_watch_cache_upstream_request_total": {"format=json purpose=probe resource=pods version=v1": 10},
		"portico_watch_cache_passed_total":           {"reason=policy": 11},
		"portico_watch_cache_streams_ended_total":    {"reason=idle": 12},
		"portico_watch_cache_memory_bytes":           {"": 320},
		"portico_watch_cache_memory_limit_bytes":     {"": 1000},
	} {
		if diff := cmp.Diff(want, telemetrytest.Series(t, registry, name)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	if err := tel.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := telemetrytest.Series(t, registry, "portico_watch_cache_memory_bytes"); len(left) > 0 {
		t.Errorf("left in the registry: %v", left)
	}
}
