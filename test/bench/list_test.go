package bench

import (
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"
)

// list reads all pods, which are many, at once.
func (t *bed) list(b *testing.B) {
	t.objects.rest(b)
	for name, accept := range formats() {
		for _, encoding := range []string{"", "gzip"} {
			q := question{path: t.objects.all(), accept: accept, encoding: encoding}
			if encoding == "" {
				encoding = "identity"
			}
			b.Run(name+"-"+encoding, func(b *testing.B) { t.listCost(b, q) })
		}
	}
}

func (t *bed) listCost(b *testing.B, q question) {
	direct, proxied := t.direct.client(b), t.proxied.client(b)
	size := mustRead(b, proxied, q)
	var c costs
	for b.Loop() {
		size = sameSize(b, size, func() (n int64) {
			took := direct.measure(b, func() { n = mustRead(b, direct, q) })
			c.direct.addTime(took.server)
			return n
		})
		size = sameSize(b, size, func() (n int64) {
			took := proxied.measure(b, func() { n = mustRead(b, proxied, q) })
			c.proxy.addTime(took.server)
			c.behind.addTime(took.behind)
			return n
		})
	}
	b.ReportMetric(float64(size)/1e6, "MB")
	t.table.cost(b, c, "0.3")
}

// sameSize calls read and checks that it reads what was read before.
func sameSize(b *testing.B, before int64, read func() int64) int64 {
	b.Helper()
	got := read()
	if got != before {
		b.Fatalf("%d bytes, and before %d", got, before)
	}
	return got
}

func mustRead(b *testing.B, c asker, q question) int64 {
	b.Helper()
	n, err := c.read(b.Context(), q)
	if err != nil {
		b.Fatal(err)
	}
	return n
}

const (
	slowReaders = 20
	// slowBytes is what a slow reader takes in each slowTick: 5 MB/s.
	slowBytes = 250 << 10
	slowTick  = 50 * time.Millisecond
	slowTime  = 4 * time.Second
)

// listMemory has many slow clients list at once, through a proxy of its own.
// Flat means that two megabytes for each of them are enough, of a hundred that
// it asks for.
func (t *bed) listMemory(b *testing.B) {
	t.objects.rest(b)
	slow := t.another(b, "--watch-cache=false")
	q := question{path: t.objects.all(), accept: asProtobuf}
	mustRead(b, slow.client(b), q) // what it keeps for one list it may keep
	server := slow.server
	before, _ := server.resident(b)
	server.forgetPeak(b)
	for b.Loop() {
		readSlowly(b, slow, q)
	}
	after, peak := server.resident(b)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(before, "before-MiB")
	b.ReportMetric(peak, "peak-MiB")
	b.ReportMetric(after, "after-MiB")
	t.table.add(row{what(b, "resident"), "", fmt.Sprintf("%.0f, at most %.0f, then %.0f MiB", before, peak, after),
		fmt.Sprintf("%+.0f MiB", peak-before), fmt.Sprintf("+%d MiB", 2*slowReaders)})
}

// readSlowly reads as many answers as there are readers, for a while, and then
// gives up.
func readSlowly(b *testing.B, r road, q question) {
	b.Helper()
	var all sync.WaitGroup
	for range slowReaders {
		c := r.client(b)
		all.Go(func() {
			res, err := c.open(b.Context(), q)
			if err != nil {
				b.Error(err)
				return
			}
			defer res.Body.Close()
			if err := sip(res, c.buffer); err != nil {
				b.Error(err)
			}
		})
	}
	all.Wait()
}

func sip(res *http.Response, buffer []byte) error {
	tick := time.NewTicker(slowTick)
	defer tick.Stop()
	for range slowTime / slowTick {
		<-tick.C
		n, err := io.CopyBuffer(onlyWriter{io.Discard}, io.LimitReader(res.Body, slowBytes), buffer)
		if err != nil || n < slowBytes {
			return fmt.Errorf("the list broke off: %w", err)
		}
	}
	return nil
}
