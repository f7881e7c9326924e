package cache_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/portico-proxy/portico/core/cache/cachetest"
	"github.com/portico-proxy/portico/test/controlplane"
)

// Benchmarks show memory and upstream side by side, over TLS and HTTP/2, with
// 10 000 pods of about 10 KB. They need half a minute to make the pods:
//
//	go test -run '^$' -bench . -benchtime 5x ./core/cache

const benchPods = 10_000

var podsMade sync.Once

func manyPods(b *testing.B) {
	b.Helper()
	podsMade.Do(func() { makeManyPods(b) })
}

func makeManyPods(b *testing.B) {
	b.Helper()
	d := direct(b)
	d.AddNamespace("bench")
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for i := worker; i < benchPods; i += 8 {
				o := cachetest.Pod(fmt.Sprintf("web-%05d", i), object{"app": "web", "shard": strconv.Itoa(i % 100)})
				o["metadata"].(object)["annotations"] = object{"payload": strings.Repeat(fmt.Sprintf("%08x", i*2654435761), 850)}
				o["spec"].(object)["nodeName"] = fmt.Sprintf("node-%d", i%100)
				d.Write(http.MethodPost, "/api/v1/namespaces/bench/pods", o)
			}
		})
	}
	wg.Wait()
}

// cpu is what processes have used: this one, which is client and proxy, and the
// API server.
func cpu(b *testing.B) (self, server time.Duration) {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	pid, err := plane.Pid(controlplane.APIServer)
	if err != nil {
		b.Fatal(err)
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	f := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+2:]))
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), time.Duration(user+system) * 10 * time.Millisecond
}

// drain reads a list and throws it away.
func drain(b *testing.B, d *cachetest.Door, path, accept string, zip bool) (size int64, first time.Duration) {
	b.Helper()
	encoding := "identity"
	if zip {
		encoding = "gzip"
	}
	start := time.Now()
	res := d.Open(b.Context(), http.MethodGet, path, http.Header{"Accept": {accept}, "Accept-Encoding": {encoding}}, nil)
	defer func() { _ = res.Body.Close() }()
	first = time.Since(start)
	size, err := io.Copy(io.Discard, res.Body)
	if err != nil {
		b.Fatal(err)
	}
	return size, first
}

func BenchmarkList(b *testing.B) {
	manyPods(b)
	p := newProxy(b, nil)
	for name, accept := range map[string]string{"json": cachetest.JSON, "protobuf": cachetest.Protobuf} {
		p.warm("/api/v1/pods", accept)
		for _, zip := range []bool{true, false} {
			for who, d := range map[string]*cachetest.Door{"direct": direct(b), "cache": p.Door} {
				b.Run(fmt.Sprintf("%s/gzip-accepted=%v/%s", name, zip, who), func(b *testing.B) {
					drain(b, d, "/api/v1/pods?resourceVersion=0", accept, zip)
					self, server := cpu(b)
					var first time.Duration
					for b.Loop() {
						n, f := drain(b, d, "/api/v1/pods?resourceVersion=0", accept, zip)
						b.SetBytes(n)
						first += f
					}
					selfEnd, serverEnd := cpu(b)
					n := float64(b.N)
					b.ReportMetric(float64((selfEnd-self).Milliseconds())/n, "self-cpu-ms/op")
					b.ReportMetric(float64((serverEnd-server).Milliseconds())/n, "apiserver-cpu-ms/op")
					b.ReportMetric(float64(first.Microseconds())/1000/n, "first-ms/op")
				})
			}
		}
	}
}

// BenchmarkMemory holds the pods and reports what that takes.
func BenchmarkMemory(b *testing.B) {
	manyPods(b)
	p := newProxy(b, nil)
	p.warm("/api/v1/pods", cachetest.Protobuf)
	size, _ := drain(b, p.Door, "/api/v1/pods?resourceVersion=0", cachetest.Protobuf, false)
	for _, s := range p.cache.Streams() {
		out, _ := json.Marshal(s)
		b.Logf("wire bytes %d: %s", size, out)
	}
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	for b.Loop() {
	}
	b.ReportMetric(float64(m.HeapAlloc)/float64(size), "heap/wire")
}

// BenchmarkGet reads one pod of any version at a time.
func BenchmarkGet(b *testing.B) {
	manyPods(b)
	p := newProxy(b, nil)
	p.warm("/api/v1/pods", cachetest.Protobuf)
	for who, d := range map[string]*cachetest.Door{"direct": direct(b), "cache": p.Door} {
		b.Run(who, func(b *testing.B) {
			_, server := cpu(b)
			for b.Loop() {
				drain(b, d, "/api/v1/namespaces/bench/pods/web-00042?resourceVersion=0", cachetest.Protobuf, false)
			}
			_, end := cpu(b)
			b.ReportMetric(float64((end-server).Microseconds())/float64(b.N), "apiserver-cpu-µs/op")
		})
	}
}

// BenchmarkWatchList loads an informer's state, as client-go's do at their start.
func BenchmarkWatchList(b *testing.B) {
	manyPods(b)
	p := newProxy(b, nil)
	p.warm("/api/v1/pods", cachetest.Protobuf)
	const path = "/api/v1/pods?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
	for who, d := range map[string]*cachetest.Door{"direct": direct(b), "cache": p.Door} {
		b.Run(who, func(b *testing.B) {
			_, server := cpu(b)
			for b.Loop() {
				w := d.Watch(path, cachetest.Protobuf)
				for range benchPods {
					w.Frame()
				}
				if end := w.Frame(); !bytes.Contains(end, []byte("initial-events-end")) {
					b.Fatalf("%.200q", end)
				}
				w.Close()
			}
			_, end := cpu(b)
			b.ReportMetric(float64((end-server).Milliseconds())/float64(b.N), "apiserver-cpu-ms/op")
		})
	}
}
