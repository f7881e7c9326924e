package cache_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/portico-proxy/portico/core/cache/cachetest"
)

// BenchmarkNewestListBehindAProxy lists what a node's proxy has from an area's, each
// time after the API server has moved on: with progress that is proven on demand, and
// as it is done in front of an API server.
//
//	go test -run '^$' -bench NewestList -benchtime 100x ./core/cache
func BenchmarkNewestListBehindAProxy(b *testing.B) {
	for _, c := range []struct {
		name  string
		bytes int
		busy  bool // what changes is what is listed
	}{{"small and quiet", 1, false}, {"small and busy", 1, true}, {"large and busy", 300 << 10, true}, {"large and quiet", 300 << 10, false}} {
		for _, demand := range []bool{true, false} {
			b.Run(fmt.Sprintf("%s/on demand %t", c.name, demand), func(b *testing.B) { benchNewest(b, c.bytes, c.busy, demand) })
		}
	}
}

func benchNewest(b *testing.B, size int, busy, demand bool) {
	d := direct(b)
	area, node := newTiers(b, nothingRefused)
	node.upstream.deaf.Store(!demand)
	names := []string{fmt.Sprintf("tier-%d", runs.Add(1)), fmt.Sprintf("tier-%d", runs.Add(1))}
	for _, n := range names {
		d.AddNamespace(n)
		d.Write(http.MethodPost, "/api/v1/namespaces/"+n+"/configmaps", object{"metadata": object{"name": "busy"}})
	}
	path, changed := "/api/v1/namespaces/"+names[0]+"/configmaps", "/api/v1/namespaces/"+names[1]+"/configmaps/busy"
	if busy {
		changed = path + "/busy"
	}
	d.Write(http.MethodPost, path, object{"metadata": object{"name": "filler"}, "data": object{"k": strings.Repeat("x", size)}})
	node.warm(path, cachetest.JSON)
	atServer := func() int64 { return area.upstream.requests.Load() + area.passed.Load() }
	atArea := func() int64 { return node.upstream.requests.Load() + node.passed.Load() }
	server, areas := atServer(), atArea()
	var took []time.Duration
	for n := 0; b.Loop(); n++ {
		d.Patch(changed, fmt.Sprintf(`{"data":{"n":"%d"}}`, n))
		begun := time.Now()
		node.Get(path, cachetest.JSON)
		took = append(took, time.Since(begun))
	}
	server, areas = atServer()-server, atArea()-areas
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
	b.ReportMetric(float64(server)/float64(b.N), "server-requests/op")
	b.ReportMetric(float64(areas)/float64(b.N), "area-requests/op")
}
