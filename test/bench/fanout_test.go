package bench

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/portico-proxy/portico/test/controlplane"
	"github.com/portico-proxy/portico/test/proxy"
)

const (
	servicesPath = "/api/v1/services"
	watcherCount = 100
	fanOutRate   = 100 // events a second
	fanOutTime   = 5 * time.Second
)

// busyService makes the object that changes. Services are small and few.
func (t *bed) busyService(b *testing.B) {
	b.Helper()
	services := t.objects.client.CoreV1().Services(namespace)
	if _, err := services.Get(b.Context(), watched, metav1.GetOptions{}); err == nil {
		return
	}
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: watched, Annotations: map[string]string{"text": strings.Repeat("text ", 60)}},
		Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}, Selector: map[string]string{"app": "web"}},
	}
	if _, err := services.Create(b.Context(), s, metav1.CreateOptions{}); err != nil {
		b.Fatal(err)
	}
}

func (t *bed) touchService(ctx context.Context, n int) error {
	patch := fmt.Appendf(nil, `{"metadata":{"annotations":{"count":"%d"}}}`, n)
	_, err := t.objects.client.CoreV1().Services(namespace).Patch(ctx, watched, types.MergePatchType, patch, metav1.PatchOptions{})
	return err
}

// fanOut has many watchers of the proxy see what one watcher sees directly, and
// measures by how much later they do.
func (t *bed) fanOut(b *testing.B) {
	t.busyService(b)
	t.awaitMemory(b, servicesPath)
	events := fanOutRate * int(fanOutTime.Seconds())
	var late sample
	for b.Loop() {
		seen := make([][]time.Time, watcherCount+1)
		var watching, done sync.WaitGroup
		for i := range seen {
			r := t.proxied
			if i == 0 {
				r = t.direct
			}
			c := r.client(b)
			watching.Add(1)
			done.Go(func() { seen[i] = arrivals(b, c, watching.Done, events) })
		}
		watching.Wait()
		t.writeSteadily(b, events)
		done.Wait()
		for _, times := range seen[1:] {
			for n := range min(len(times), len(seen[0])) {
				late.addTime(times[n].Sub(seen[0][n]))
			}
		}
	}
	b.ReportMetric(0, "ns/op")
	t.table.add(row{what(b, "p50"), "", "", fmt.Sprintf("%+.2f ms", late.at(0.5)), "+1 ms"})
	t.table.add(row{what(b, "p99"), "", "", fmt.Sprintf("%+.2f ms", late.at(0.99)), "+5 ms"})
}

// delivery is what it costs to send one event to one of many watchers: what a
// server with them spends more than one that takes the same writes and has none.
func (t *bed) delivery(b *testing.B) {
	t.busyService(b)
	t.awaitMemory(b, servicesPath)
	events := fanOutRate * int(fanOutTime.Seconds())
	var spent [2]sample
	for b.Loop() {
		alone := t.delivering(b, t.proxied, 1, events)
		for i, r := range []road{t.direct, t.proxied} {
			more := t.delivering(b, r, watcherCount, events) - alone
			if i == 1 {
				more += alone // the proxy takes no writes
			}
			spent[i].add(more.Seconds() * 1e6 / float64(events*watcherCount))
		}
	}
	b.ReportMetric(0, "ns/op")
	t.table.add(row{what(b, "CPU"), fmt.Sprintf("%.1f µs", spent[0].median()), fmt.Sprintf("%.1f µs", spent[1].median()),
		fmt.Sprintf("%.2f x", spent[1].median()/spent[0].median()), ""})
}

// delivering is the processor time of r's server while watchers of it see events;
// with one watcher, that of the API server behind it.
func (t *bed) delivering(b *testing.B, r road, watchers, events int) time.Duration {
	b.Helper()
	var watching, done sync.WaitGroup
	for range watchers {
		c := r.client(b)
		watching.Add(1)
		done.Go(func() { arrivals(b, c, watching.Done, events) })
	}
	watching.Wait()
	used := r.measure(b, func() {
		t.writeSteadily(b, events)
		done.Wait()
	})
	if watchers == 1 {
		return used.behind
	}
	return used.server
}

func (t *bed) writeSteadily(b *testing.B, events int) {
	b.Helper()
	begin := time.Now()
	for n := range events {
		<-time.After(time.Until(begin.Add(time.Duration(n) * time.Second / fanOutRate)))
		t.objects.writes++
		if err := t.touchService(b.Context(), t.objects.writes); err != nil {
			b.Fatal(err)
		}
	}
}

// awaitMemory asks until the proxy answers from memory.
func (t *bed) awaitMemory(b *testing.B, path string) {
	b.Helper()
	c := t.proxied.client(b)
	for t.servedBy(b, c, question{path: path + anyVersion, accept: asProtobuf}) != "cache" {
		<-time.After(100 * time.Millisecond)
	}
}

// arrivals is when each of the events came that a watch from now on sees, in
// the order of their resourceVersions, none twice and none left out.
func arrivals(b *testing.B, c *client, watching func(), events int) (seen []time.Time) {
	watch := sync.OnceFunc(watching)
	defer watch()
	res, err := c.open(b.Context(), question{path: servicesPath + "?watch=true&fieldSelector=metadata.name%3D" + watched, accept: asProtobuf + ";stream=watch"})
	if err != nil {
		b.Error(err)
		return nil
	}
	defer res.Body.Close()
	if _, err := nextFrame(res.Body, c.buffer); err != nil {
		b.Error(err) // the object as it is
		return nil
	}
	watch()
	for range events {
		if _, err := nextFrame(res.Body, c.buffer); err != nil {
			b.Errorf("after %d events: %v", len(seen), err)
			return seen
		}
		seen = append(seen, time.Now())
	}
	return seen
}

// nextFrame reads one event of a watch in protobuf.
func nextFrame(from io.Reader, buffer []byte) ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(from, size[:]); err != nil {
		return nil, err
	}
	frame := buffer[:binary.BigEndian.Uint32(size[:])]
	_, err := io.ReadFull(from, frame)
	return frame, err
}

const (
	newestLists = 200
	storm       = 200
)

// newestList lists a collection that changes all the time, at its newest.
func (t *bed) newestList(b *testing.B) {
	t.busyService(b)
	t.awaitMemory(b, servicesPath)
	q := question{path: servicesPath, accept: asProtobuf}
	clients := [2]*client{t.direct.client(b), t.proxied.client(b)}
	ctx, stop := context.WithCancel(b.Context())
	var writing sync.WaitGroup
	writing.Go(func() {
		for n := 0; t.touchService(ctx, n) == nil; n++ {
			<-time.After(time.Second / fanOutRate)
		}
	})
	var took [2]sample
	for b.Loop() {
		for range newestLists / 10 {
			for i, c := range clients {
				took[i] = append(took[i], timeGets(b, c, q, 10)...)
			}
		}
	}
	stop()
	writing.Wait()
	t.table.latency(b, took, "", "+10 ms")
	t.table.add(row{what(b, "upstream lists for a storm"), fmt.Sprint(storm), fmt.Sprint(t.stormOfLists(b, q)), "", "3"})
}

// stormOfLists has many clients list at once and returns how many lists reach
// the API server.
func (t *bed) stormOfLists(b *testing.B, q question) float64 {
	b.Helper()
	lists := `apiserver_request_total\{[^}]*resource="services"[^}]*verb="LIST"[^}]*\}`
	var clients []*client
	for range storm {
		c := t.proxied.client(b)
		mustRead(b, c, question{path: servicesPath + anyVersion, accept: asProtobuf}) // connect
		clients = append(clients, c)
	}
	before := t.upstreamCount(b, lists)
	var all sync.WaitGroup
	start := make(chan struct{})
	for _, c := range clients {
		all.Go(func() {
			<-start
			if _, err := c.read(b.Context(), q); err != nil {
				b.Error(err)
			}
		})
	}
	close(start)
	all.Wait()
	return t.upstreamCount(b, lists) - before
}

// recordedEvents is how many events are recorded and played back.
const recordedEvents = 3000

// recorded plays a watch of the API server's back as fast as the proxy takes
// it, and counts what its watchers get.
func (t *bed) recorded(b *testing.B) {
	t.busyService(b)
	tape := t.record(b)
	var rate sample
	for b.Loop() {
		rate.add(t.playBack(b, tape))
	}
	b.ReportMetric(0, "ns/op")
	t.table.add(row{what(b, "deliveries a second"), "", fmt.Sprintf("%.0f", rate.median()), "", "100000"})
}

// A tape is what a watch said: the state, and what happened then.
type tape struct{ state, events []byte }

func (t *bed) record(b *testing.B) tape {
	b.Helper()
	c := t.direct.client(b)
	res, err := c.open(b.Context(), question{path: servicesPath + initialList, accept: asProtobuf + ";stream=watch"})
	if err != nil {
		b.Fatal(err)
	}
	defer res.Body.Close()
	var rec tape
	for !bytes.Contains(rec.state, []byte("initial-events-end")) {
		rec.state = appendFrame(b, rec.state, res.Body, c.buffer)
	}
	for n := range recordedEvents {
		if err := t.touchService(b.Context(), n); err != nil {
			b.Fatal(err)
		}
		rec.events = appendFrame(b, rec.events, res.Body, c.buffer)
	}
	return rec
}

func appendFrame(b *testing.B, to []byte, from io.Reader, buffer []byte) []byte {
	b.Helper()
	frame, err := nextFrame(from, buffer)
	if err != nil {
		b.Fatal(err)
	}
	return append(binary.BigEndian.AppendUint32(to, uint32(len(frame))), frame...)
}

// playBack returns how many events a second reach all watchers together.
func (t *bed) playBack(b *testing.B, rec tape) float64 {
	b.Helper()
	player := &player{tape: rec, play: make(chan struct{}), end: b.Context()}
	url, ca := player.serve(b, t.cp.Config())
	path := b.TempDir() + "/player.kubeconfig"
	admin := t.cp.Token("admin")
	if err := (controlplane.Kubeconfig{Server: url, CA: ca, Credential: admin}).WriteFile(path); err != nil {
		b.Fatal(err)
	}
	p := proxy.New(b, proxy.Options{Kubeconfig: path, Flags: []string{"--watch-cache"}})
	r := newRoad(b, "played", p.Config(admin))
	var watching, done sync.WaitGroup
	var total atomic.Int64
	for range watcherCount {
		c := r.client(b)
		watching.Add(1)
		done.Go(func() { total.Add(int64(len(arrivals(b, c, watching.Done, recordedEvents)))) })
	}
	watching.Wait()
	start := time.Now()
	close(player.play)
	done.Wait()
	return float64(total.Load()) / time.Since(start).Seconds()
}

// A player is an API server that watches of Services hear a tape from.
type player struct {
	tape
	play chan struct{} // closed when the events may come
	end  context.Context
	real http.Handler
}

// serve returns the player's address and what vouches for it.
func (p *player) serve(b *testing.B, config *rest.Config) (address string, ca []byte) {
	b.Helper()
	target, err := url.Parse(config.Host)
	if err != nil {
		b.Fatal(err)
	}
	c, err := config.TransportConfig()
	if err != nil {
		b.Fatal(err)
	}
	// Callers bring their own credentials.
	through := newRoad(b, "real", &rest.Config{Host: config.Host, TLSClientConfig: rest.TLSClientConfig{CAData: c.TLS.CAData, CAFile: c.TLS.CAFile}})
	p.real = &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }, Transport: through.client(b).transport, FlushInterval: -1}
	srv := httptest.NewUnstartedServer(p)
	srv.EnableHTTP2 = true
	srv.StartTLS()
	b.Cleanup(srv.Close)
	return srv.URL, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
}

func (p *player) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != servicesPath || r.URL.Query().Get("watch") == "" {
		p.real.ServeHTTP(w, r)
		return
	}
	w.Header().Set("Content-Type", asProtobuf+";stream=watch")
	_, _ = w.Write(p.state)
	_ = http.NewResponseController(w).Flush()
	select {
	case <-p.play:
	case <-r.Context().Done():
	}
	_, _ = w.Write(p.events)
	_ = http.NewResponseController(w).Flush()
	<-r.Context().Done()
}
