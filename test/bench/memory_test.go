package bench

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
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
	b.Run("session-get", bed.sessionGet)
	b.Run("raw-get", bed.rawGet)
	b.Run("raw-session-get", bed.rawSessionGet)
	b.Run("net-get", bed.netGet)
	b.Run("net-session-get", bed.netSessionGet)
	b.Run("list", bed.memoryList)
	b.Run("resident", bed.memoryResident)
	b.Run("fan-out", bed.fanOut)
	b.Run("delivery", bed.delivery)
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
				begun := firstByte(b, c, q)
				if i == 1 {
					first.addTime(begun.Sub(start))
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

// firstByte reads an answer and returns when it began.
func firstByte(b *testing.B, c *client, q question) time.Time {
	b.Helper()
	res, err := c.open(b.Context(), q)
	if err != nil {
		b.Fatal(err)
	}
	defer res.Body.Close()
	if _, err := io.ReadFull(res.Body, c.buffer[:1]); err != nil {
		b.Fatal(err)
	}
	begun := time.Now()
	if _, err := io.CopyBuffer(onlyWriter{io.Discard}, res.Body, c.buffer); err != nil {
		b.Fatal(err)
	}
	return begun
}

const (
	openRate = 2000 // requests a second
	openTime = 3 * time.Second
	// openClients are enough for nobody to wait for a connection.
	openClients = 64
)

// memoryGet fetches one pod at any version at a steady rate, whatever the
// answers take.
func (t *bed) memoryGet(b *testing.B) { t.getSteadily(b, t.proxied, anyVersion, asClient) }

// rawGet is memoryGet by raw readers.
func (t *bed) rawGet(b *testing.B) { t.getSteadily(b, t.proxied, anyVersion, asRaw) }

// netServer has net/http serve HTTP/2.
const netServer = "--own-http2=false"

// netGet is memoryGet from a proxy that does.
func (t *bed) netGet(b *testing.B) {
	fresh := t.another(b, "--watch-cache", netServer)
	c := fresh.client(b)
	for t.servedBy(b, c, question{path: t.objects.one() + anyVersion, accept: asProtobuf}) != "cache" {
		<-time.After(100 * time.Millisecond)
	}
	t.getSteadily(b, fresh, anyVersion, asClient)
}

// sessions has all reads of pods in session mode.
const sessions = `apiVersion: proxy.elf.io/v1alpha1
kind: CachePolicy
metadata: {name: sessions}
spec:
  resources:
  - resource: pods
  reads: Session
`

// sessionGet fetches one pod at its newest version, which for the proxy is what
// was last written through it.
func (t *bed) sessionGet(b *testing.B) { t.inSession(b, asClient) }

// rawSessionGet is sessionGet by raw readers.
func (t *bed) rawSessionGet(b *testing.B) { t.inSession(b, asRaw) }

// netSessionGet is sessionGet from a proxy whose HTTP/2 is net/http's.
func (t *bed) netSessionGet(b *testing.B) { t.inSession(b, asClient, netServer) }

func (t *bed) inSession(b *testing.B, as connects, flags ...string) {
	b.Helper()
	dir := b.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "sessions.yaml"), []byte(sessions), 0o600); err != nil {
		b.Fatal(err)
	}
	fresh := t.another(b, append(flags, "--watch-cache", "--policy-dir="+dir)...)
	c := fresh.client(b)
	for t.servedBy(b, c, question{path: t.objects.one(), accept: asProtobuf}) != "cache" {
		<-time.After(100 * time.Millisecond)
	}
	t.getSteadily(b, fresh, "", as)
}

// An asker has a connection.
type asker interface {
	read(context.Context, question) (int64, error)
}

type connects func(*testing.B, road) asker

func asClient(b *testing.B, r road) asker { b.Helper(); return r.client(b) }
func asRaw(b *testing.B, r road) asker    { b.Helper(); return r.raw(b) }

func (t *bed) getSteadily(b *testing.B, proxied road, query string, as connects) {
	b.Helper()
	q := question{path: t.objects.one() + query, accept: asProtobuf}
	var took, spent [2]sample
	for b.Loop() {
		for i, r := range []road{t.direct, proxied} {
			idle := idleClients(b, func() asker { return as(b, r) }, q)
			used := r.measure(b, func() { took[i] = append(took[i], steadyGets(b, idle, q)...) })
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

// idleClients are connected.
func idleClients(b *testing.B, connect func() asker, q question) chan asker {
	b.Helper()
	idle := make(chan asker, openClients)
	for range openClients {
		c := connect()
		mustRead(b, c, q)
		idle <- c
	}
	return idle
}

// steadyGets sends requests when they are due, whatever became of those before,
// and returns how long answers took.
func steadyGets(b *testing.B, idle chan asker, q question) sample {
	b.Helper()
	var took sample
	var mu sync.Mutex
	var all sync.WaitGroup
	begin := time.Now()
	for n := range openRate * int(openTime.Seconds()) {
		due := begin.Add(time.Duration(n) * time.Second / openRate)
		<-time.After(time.Until(due))
		c := <-idle
		all.Go(func() {
			start := time.Now() // a timer's own lateness is not the server's
			if _, err := c.read(b.Context(), q); err != nil {
				b.Error(err)
			}
			late := time.Since(start)
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
	var took, sent [2]sample
	var watches, resident sample
	state := 0.0
	for b.Loop() {
		for i, r := range []road{t.direct, t.another(b, "--watch-cache")} {
			standing := t.upstreamCount(b, podWatches)
			start, before := time.Now(), t.direct.server.written(b)
			each, end := loadAll(b, r)
			took[i].addTime(time.Since(start))
			sent[i].add((t.direct.server.written(b) - before) / 1e6)
			if i == 1 {
				_, peak := r.server.resident(b)
				resident.add(peak)
				watches.add(t.upstreamCount(b, podWatches) - standing)
				state = float64(each) / (1 << 20)
			}
			end()
		}
	}
	b.ReportMetric(0, "ns/op")
	t.table.ratio(b, "time", took, "0.3")
	direct, proxied := sent[0].median(), sent[1].median()
	t.table.add(row{what(b, "sent by the API server"), fmt.Sprintf("%.0f MB", direct), fmt.Sprintf("%.0f MB", proxied),
		fmt.Sprintf("-%.2f %%", 100*(1-proxied/direct)), "-99 %"})
	t.table.add(row{what(b, "watches of the API server"), fmt.Sprint(informerCount), fmt.Sprint(watches.median()), "", "1"})
	t.table.add(row{what(b, "resident"), "", fmt.Sprintf("at most %.0f MiB", resident.median()), "", fmt.Sprintf("%.0f MiB", 1.3*state+2*informerCount)})
}

const podWatches = `apiserver_longrunning_requests\{[^}]*resource="pods"[^}]*verb="WATCH"[^}]*\}`

// loadAll returns when all informers have the state, and how many bytes each
// has read. Their watches are open until end is called.
func loadAll(b *testing.B, r road) (each int64, end func()) {
	b.Helper()
	var all, loaded sync.WaitGroup
	hold := make(chan struct{})
	var total atomic.Int64
	for range informerCount {
		c := r.client(b)
		loaded.Add(1)
		all.Go(func() { loadState(b, c, func(n int64) { total.Add(n); loaded.Done() }, hold) })
	}
	loaded.Wait()
	return total.Load() / informerCount, func() { close(hold); all.Wait() }
}

// loadState reads a watch up to the end of its initial events, says of how many
// bytes they were, and keeps the watch until hold is closed.
func loadState(b *testing.B, c *client, loaded func(int64), hold <-chan struct{}) {
	size := int64(0)
	defer func() { loaded(size) }()
	res, err := c.open(b.Context(), question{path: podsPath + initialList, accept: asProtobuf + ";stream=watch"})
	if err != nil {
		b.Error(err)
		return
	}
	b.Cleanup(func() { res.Body.Close() })
	for tail := []byte(nil); !bytes.Contains(tail, []byte("initial-events-end")); {
		tail = append([]byte(nil), tail[max(0, len(tail)-32):]...)
		n, err := res.Body.Read(c.buffer)
		size += int64(n)
		if err != nil {
			b.Errorf("the watch broke off after %d bytes: %v", size, err)
			return
		}
		tail = append(tail, c.buffer[:n]...)
	}
	go func() {
		<-hold
		res.Body.Close()
	}()
}
