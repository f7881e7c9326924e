package bench

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"
)

// BenchmarkMemory asks one API server directly, and through a proxy that
// answers from memory.
func BenchmarkMemory(b *testing.B) {
	bed := newBed(b, "--watch-cache")
	bed.objects.rest(b)
	bed.warm(b)
	b.Run("get", bed.memoryGet)
	b.Run("list", bed.memoryList)
	b.Run("resident", bed.memoryResident)
	b.Run("fan-out", bed.fanOut)
	b.Run("newest-list", bed.newestList)
	b.Run("recorded", bed.recorded)
	b.Run("informers", bed.informers)
	bed.table.print(os.Stdout)
}

const (
	podsPath    = "/api/v1/pods"
	anyVersion  = "?resourceVersion=0"
	initialList = "?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
)

// warm has the proxy load what is asked for: the first to ask are sent on.
func (t *bed) warm(b *testing.B) {
	b.Helper()
	for _, accept := range formats() {
		c := t.proxied.client(b)
		for t.servedBy(b, c, question{path: podsPath + anyVersion, accept: accept}) != "cache" {
			<-time.After(100 * time.Millisecond)
		}
	}
}

func (t *bed) servedBy(b *testing.B, c *client, q question) string {
	b.Helper()
	res, err := c.open(b.Context(), q)
	if err != nil {
		b.Fatal(err)
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		b.Fatal(err)
	}
	return res.Header.Get("Portico-Served-By")
}

// memoryList reads all pods at any version, as a default client asks and with
// gzip refused.
func (t *bed) memoryList(b *testing.B) {
	for name, accept := range formats() {
		goals := []string{"0.25", "0.2"}
		if accept == asJSON {
			goals = []string{"0.15", "0.12"}
		}
		for _, gzip := range []bool{false, true} {
			q := question{path: podsPath + anyVersion, accept: accept, mayZip: gzip}
			b.Run(fmt.Sprintf("%s-gzip=%v", name, gzip), func(b *testing.B) { t.listBoth(b, q, goals) })
		}
	}
}

func (t *bed) listBoth(b *testing.B, q question, goals []string) {
	clients := [2]*client{t.direct.client(b), t.proxied.client(b)}
	var took, spent [2]sample
	var first sample
	for _, c := range clients {
		mustRead(b, c, q)
	}
	for b.Loop() {
		for i, c := range clients {
			start := time.Now()
			used := c.measure(b, func() {
				res, err := c.open(b.Context(), q)
				if err != nil {
					b.Fatal(err)
				}
				defer res.Body.Close()
				if _, err := io.ReadFull(res.Body, c.buffer[:1]); err != nil {
					b.Fatal(err)
				}
				if i == 1 {
					first.addTime(time.Since(start))
				}
				if _, err := io.CopyBuffer(onlyWriter{io.Discard}, res.Body, c.buffer); err != nil {
					b.Fatal(err)
				}
			})
			took[i].addTime(time.Since(start))
			spent[i].addTime(used.server)
		}
	}
	b.ReportMetric(0, "ns/op")
	t.table.ratio(b, "time", took, goals[0])
	t.table.ratio(b, "CPU", spent, goals[1])
	t.table.add(row{what(b, "first byte"), "", ms(first.median()), "", "5 ms"})
}

const (
	openRate = 2000 // requests a second
	openTime = 3 * time.Second
	// openClients are enough for nobody to wait for a connection.
	openClients = 64
)

// memoryGet fetches one pod at any version at a steady rate, whatever the
// answers take.
func (t *bed) memoryGet(b *testing.B) {
	q := question{path: t.objects.one() + anyVersion, accept: asProtobuf}
	var took, spent [2]sample
	for b.Loop() {
		for i, r := range []road{t.direct, t.proxied} {
			used := r.measure(b, func() { took[i] = append(took[i], steadyGets(b, r, q)...) })
			spent[i].add(used.server.Seconds() * 1e3 / (openRate * openTime.Seconds()))
		}
	}
	b.ReportMetric(0, "ns/op")
	for i, p := range []float64{0.5, 0.99} {
		t.table.add(row{what(b, fmt.Sprintf("p%.0f", p*100)), ms(took[0].at(p)), ms(took[1].at(p)),
			fmt.Sprintf("%+.2f ms", took[1].at(p)-took[0].at(p)), []string{"0.3 ms", "2 ms"}[i]})
	}
	t.table.ratio(b, "CPU", spent, "0.3")
}

// steadyGets returns how long after they were due answers came.
func steadyGets(b *testing.B, r road, q question) sample {
	b.Helper()
	idle := make(chan *client, openClients)
	for range openClients {
		c := r.client(b)
		mustRead(b, c, q)
		idle <- c
	}
	var took sample
	var mu sync.Mutex
	var all sync.WaitGroup
	begin := time.Now()
	for n := range openRate * int(openTime.Seconds()) {
		due := begin.Add(time.Duration(n) * time.Second / openRate)
		<-time.After(time.Until(due))
		c := <-idle
		all.Go(func() {
			if _, err := c.read(b.Context(), q); err != nil {
				b.Error(err)
			}
			late := time.Since(due)
			idle <- c
			mu.Lock()
			took.addTime(late)
			mu.Unlock()
		})
	}
	all.Wait()
	return took
}

// memoryResident is what a proxy takes that holds all pods in one format.
func (t *bed) memoryResident(b *testing.B) {
	fresh := t.another(b, "--watch-cache")
	c := fresh.client(b)
	q := question{path: podsPath + anyVersion, accept: asProtobuf}
	for t.servedBy(b, c, q) != "cache" {
		<-time.After(100 * time.Millisecond)
	}
	size := float64(mustRead(b, c, q)) / (1 << 20)
	for b.Loop() {
		mustRead(b, c, q)
	}
	now, peak := fresh.server.resident(b)
	b.ReportMetric(0, "ns/op")
	t.table.add(row{what(b, "resident"), fmt.Sprintf("%.0f MiB on the wire", size), fmt.Sprintf("%.0f, at most %.0f MiB", now, peak),
		fmt.Sprintf("%.2f x", now/size), fmt.Sprintf("%.0f MiB", 1.3*size+60)})
}

// upstreamCount is the sum of kube-apiserver's series that match.
func (t *bed) upstreamCount(b *testing.B, series string) float64 {
	b.Helper()
	client, err := kubernetes.NewForConfig(t.cp.Config())
	if err != nil {
		b.Fatal(err)
	}
	text, err := client.RESTClient().Get().AbsPath("/metrics").DoRaw(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	sum := 0.0
	for _, m := range regexp.MustCompile(`(?m)^`+series+` (\S+)$`).FindAllSubmatch(text, -1) {
		v, err := strconv.ParseFloat(string(m[1]), 64)
		if err != nil {
			b.Fatal(err)
		}
		sum += v
	}
	return sum
}

const informerCount = 100

// informers have many clients load all pods at once, as informers start.
func (t *bed) informers(b *testing.B) {
	var took [2]sample
	for b.Loop() {
		for i := range took {
			r := t.direct
			if i == 1 {
				r = t.another(b, "--watch-cache")
			}
			start := time.Now()
			t.synced(b, r, i == 1)
			took[i].addTime(time.Since(start))
		}
	}
	b.ReportMetric(0, "ns/op")
	t.table.ratio(b, "time", took, "0.3")
}

// synced has informers load and says what that took of a proxy.
func (t *bed) synced(b *testing.B, r road, proxied bool) {
	b.Helper()
	watches := `apiserver_longrunning_requests\{[^}]*resource="pods"[^}]*verb="WATCH"[^}]*\}`
	before := t.upstreamCount(b, watches)
	read := r.server.read(b)
	r.server.forgetPeak(b)
	var all sync.WaitGroup
	hold := make(chan struct{})
	var bytesRead sync.Map
	var loaded sync.WaitGroup
	for n := range informerCount {
		c := r.client(b)
		loaded.Add(1)
		all.Go(func() {
			size := loadState(b, c, loaded.Done, hold)
			bytesRead.Store(n, size)
		})
	}
	loaded.Wait()
	if proxied {
		watching := t.upstreamCount(b, watches) - before
		got := r.server.read(b) - read
		_, peak := r.server.resident(b)
		close(hold)
		all.Wait()
		total := 0.0
		bytesRead.Range(func(_, n any) bool { total += float64(n.(int64)); return true })
		wire := total / informerCount / (1 << 20)
		t.table.add(row{what(b, "upstream watches"), strconv.Itoa(informerCount), fmt.Sprint(watching), "", "1"})
		t.table.add(row{what(b, "upstream bytes"), fmt.Sprintf("%.0f MB", total/1e6), fmt.Sprintf("%.0f MB", got/1e6), fmt.Sprintf("-%.2f %%", 100*(1-got/total)), "-99 %"})
		t.table.add(row{what(b, "resident"), "", fmt.Sprintf("at most %.0f MiB", peak), "", fmt.Sprintf("%.0f MiB", 1.3*wire+2*informerCount)})
		return
	}
	close(hold)
	all.Wait()
}

// loadState reads a watch up to the end of its initial events, then keeps it
// until hold is closed.
func loadState(b *testing.B, c *client, loaded func(), hold <-chan struct{}) (size int64) {
	done := sync.OnceFunc(loaded)
	defer done()
	res, err := c.open(b.Context(), question{path: podsPath + initialList, accept: asProtobuf + ";stream=watch"})
	if err != nil {
		b.Error(err)
		return 0
	}
	defer res.Body.Close()
	for tail := []byte(nil); ; {
		n, err := res.Body.Read(c.buffer)
		size += int64(n)
		if err != nil {
			b.Errorf("the watch broke off after %d bytes: %v", size, err)
			return size
		}
		tail = append(tail, c.buffer[:n]...)
		if bytes.Contains(tail, []byte("initial-events-end")) {
			done()
			<-hold
			return size
		}
		tail = append([]byte(nil), tail[max(0, len(tail)-32):]...)
	}
}
