package cache_test

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/portico-proxy/portico/core/cache"
	"github.com/portico-proxy/portico/core/cache/cachetest"
)

// weighed counts the bytes that a proxy's own requests bring.
type weighed struct {
	http.RoundTripper
	bytes atomic.Int64
}

func (w *weighed) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := w.RoundTripper.RoundTrip(r)
	if err == nil {
		res.Body = &weighedBody{res.Body, &w.bytes}
	}
	return res, err
}

type weighedBody struct {
	io.ReadCloser
	n *atomic.Int64
}

func (b *weighedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.n.Add(int64(n))
	return n, err
}

// BenchmarkInformersComeBack has a hundred watchers come back to a proxy that was
// restarted while things happened: to one that has to load anew, and to one that has been
// there all along, as if it had kept its history. A twentieth of the collection changed
// meanwhile. Watchers come back from the same resourceVersion, or each from its own.
//
//	go test -run '^$' -bench InformersComeBack -benchtime 5x ./core/cache
func BenchmarkInformersComeBack(b *testing.B) {
	for _, objects := range []int{100, 2000} {
		for _, apart := range []bool{false, true} {
			for _, kept := range []bool{false, true} {
				b.Run(fmt.Sprintf("%d objects/apart %t/history %t", objects, apart, kept), func(b *testing.B) { comeBack(b, objects, apart, kept) })
			}
		}
	}
}

func comeBack(b *testing.B, objects int, apart, kept bool) {
	const watchers, size = 100, 4 << 10
	d := direct(b)
	namespace := fmt.Sprintf("back-%d", runs.Add(1))
	d.AddNamespace(namespace)
	path := "/api/v1/namespaces/" + namespace + "/configmaps"
	for i := range objects {
		d.Write(http.MethodPost, path, object{"metadata": object{"name": fmt.Sprintf("c-%04d", i)}, "data": object{"k": strings.Repeat("x", size)}})
	}
	var requests, bytes int64
	var took []time.Duration
	for n := 0; b.Loop(); n++ {
		b.StopTimer()
		since := d.Get(path+"?limit=1", cachetest.JSON).List(b).Metadata.ResourceVersion
		w := &weighed{}
		start := func() *proxy {
			return newProxy(b, func(o *cache.Options) {
				nothingRefused(o)
				w.RoundTripper = o.Upstream.(*counter).RoundTripper
				o.Upstream.(*counter).RoundTripper = w
			})
		}
		var p *proxy
		if kept {
			p = start()
			p.warm(path, cachetest.JSON)
		}
		all := slices.Repeat([]string{since}, watchers)
		for i := range objects / 20 {
			o := d.Patch(fmt.Sprintf("%s/c-%04d", path, i), fmt.Sprintf(`{"data":{"n":"%d"}}`, n))
			for j := range watchers {
				if apart && j*objects/20/watchers > i {
					all[j] = cachetest.ResourceVersion(o)
				}
			}
		}
		last := cachetest.ResourceVersion(d.Patch(path+"/c-0000", fmt.Sprintf(`{"data":{"last":"%d"}}`, n)))
		if !kept {
			p = start()
		} else {
			p.warm(path+"?resourceVersion="+last, cachetest.JSON) // it has come as far
		}
		asked, got := p.upstream.requests.Load(), w.bytes.Load()
		b.StartTimer()
		begun := time.Now()
		var wg sync.WaitGroup
		for _, rv := range all {
			door := cachetest.NewDoor(b, p.config)
			wg.Go(func() {
				watch := door.Watch(path+"?watch=true&allowWatchBookmarks=true&timeoutSeconds=300&resourceVersion="+rv, cachetest.JSON)
				for !strings.Contains(string(watch.Frame()), `"resourceVersion":"`+last+`"`) {
				}
			})
		}
		wg.Wait()
		took = append(took, time.Since(begun))
		requests, bytes = requests+p.upstream.requests.Load()-asked, bytes+w.bytes.Load()-got
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(requests)/float64(b.N), "requests")
	b.ReportMetric(float64(bytes)/float64(b.N)/1e6, "MB")
}
