package bench

import (
	"bufio"
	"testing"
	"time"
)

// watchWrites is how many events a round sees.
const watchWrites = 200

// watch has two watchers, one on each road, see the same write. What is
// compared is the time from the write's beginning.
func (t *bed) watch(b *testing.B) {
	var seen [2]<-chan time.Time
	for i, r := range []road{t.direct, t.proxied} {
		seen[i] = watchOne(b, r.client(b), question{path: t.objects.watchOne(), accept: asJSON})
	}
	var took [2]sample
	for b.Loop() {
		for range watchWrites {
			start := time.Now()
			t.objects.touch(b)
			for i := range seen {
				took[i].addTime((<-seen[i]).Sub(start))
			}
		}
	}
	t.table.latency(b, took)
}

// watchOne returns when events have come since it returned, until the benchmark
// is over.
func watchOne(b *testing.B, c *client, q question) <-chan time.Time {
	b.Helper()
	res, err := c.open(b.Context(), q)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { res.Body.Close() })
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(nil, 1<<20)
	lines.Scan() // the object as it is
	seen := make(chan time.Time, 16)
	go func() {
		defer close(seen)
		for lines.Scan() {
			seen <- time.Now()
		}
	}()
	return seen
}
