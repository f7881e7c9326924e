package tiers

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	listers "k8s.io/client-go/listers/core/v1"

	"github.com/portico-proxy/portico/test/controlplane"
	"github.com/portico-proxy/portico/test/proxy"
)

// size is how much there is of everything.
type size struct {
	areas, nodes int
	perNode      int // informers; one of them is client-go's
	services     int
	changes      int // that are measured
	every        time.Duration
}

// sizeOf is what PORTICO_TIERS asks for, which is a number of nodes, or a few.
func sizeOf(t *testing.T) size {
	t.Helper()
	text := os.Getenv("PORTICO_TIERS")
	if text == "" {
		return size{areas: 2, nodes: 4, perNode: 5, services: 10, changes: 50, every: 20 * time.Millisecond}
	}
	nodes, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("PORTICO_TIERS: %v", err)
	}
	return size{areas: 2, nodes: nodes, perNode: 10, services: 50, changes: 300, every: 200 * time.Millisecond}
}

// world is an API server, area proxies in front of it, and node proxies in front of
// those.
type world struct {
	size
	t       *testing.T
	plane   *controlplane.ControlPlane
	direct  kubernetes.Interface
	areas   []*proxy.Proxy
	nodes   []*proxy.Proxy
	copies  []listers.ServiceLister
	readers []*reader
}

func newWorld(t *testing.T, s size) *world {
	t.Helper()
	w := &world{size: s, t: t, plane: controlplane.New(t, controlplane.Options{Log: os.Stderr})}
	cfg := w.plane.Config()
	cfg.QPS = -1
	w.direct = kubernetes.NewForConfigOrDie(cfg)
	for range s.areas {
		w.areas = append(w.areas, proxy.New(t, proxy.Options{Kubeconfig: w.plane.KubeconfigPath()}))
	}
	return w
}

// addNodes starts the nodes' proxies, behind those of areas.
func (w *world) addNodes() {
	w.t.Helper()
	var addresses []string
	var ca []byte
	for _, p := range w.areas {
		addresses, ca = append(addresses, strings.TrimPrefix(p.URL, "https://")), append(ca, p.CA...)
	}
	kubeconfig := filepath.Join(w.t.TempDir(), "area.kubeconfig")
	k := controlplane.Kubeconfig{Server: w.areas[0].URL, CA: ca, Credential: w.plane.Token("admin")}
	if err := k.WriteFile(kubeconfig); err != nil {
		w.t.Fatal(err)
	}
	w.nodes = w.nodesBehind(kubeconfig, "--server="+strings.Join(addresses, ","))
}

// nodesBehind starts nodes' proxies.
func (w *world) nodesBehind(kubeconfig string, flags ...string) (all []*proxy.Proxy) {
	w.t.Helper()
	for n := range w.size.nodes {
		all = append(all, proxy.New(w.t, proxy.Options{Kubeconfig: kubeconfig, Flags: append(flags, fmt.Sprintf("--node-name=node-%d", n))}))
	}
	return all
}

// inform starts informers at every node until stop: one of client-go's, and readers.
func (w *world) inform(nodes []*proxy.Proxy) (copies []listers.ServiceLister, readers []*reader, stop func()) {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	stops := []func(){cancel}
	for _, p := range nodes {
		cfg := p.Config(w.plane.Token("admin"))
		cfg.UserAgent = "informer"
		// As readers do: each format is a collection, and so a watch, of its own.
		cfg.ContentType = "application/json"
		f := informers.NewSharedInformerFactory(kubernetes.NewForConfigOrDie(cfg), 0)
		copies = append(copies, f.Core().V1().Services().Lister())
		f.Start(ctx.Done())
		stops = append(stops, f.Shutdown)
	}
	readers, end := w.read(nodes, w.perNode-1)
	stops = append(stops, end)
	stop = sync.OnceFunc(func() {
		for _, end := range stops {
			end()
		}
	})
	w.t.Cleanup(stop)
	return copies, readers, stop
}

// read starts readers at each of some proxies.
func (w *world) read(at []*proxy.Proxy, each int) (all []*reader, stop func()) {
	w.t.Helper()
	var stops []func()
	for _, p := range at {
		for range each {
			r, end := read(w.t, p.Config(w.plane.Token("admin")))
			all, stops = append(all, r), append(stops, end)
		}
	}
	return all, func() {
		for _, end := range stops {
			end()
		}
	}
}

func name(n int) string { return fmt.Sprintf("service-%d", n) }

// add makes a Service.
func (w *world) add(name string) {
	w.t.Helper()
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}}
	if _, err := w.direct.CoreV1().Services("default").Create(w.t.Context(), s, metav1.CreateOptions{}); err != nil {
		w.t.Fatal(err)
	}
}

// touch changes a Service and notes when.
func (w *world) touch(ctx context.Context, name string) error {
	patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:"%d"}}}`, sent, time.Now().UnixNano())
	_, err := w.direct.CoreV1().Services("default").Patch(ctx, name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	return err
}

// deliver has changes delivered to readers and returns how long each took.
func (w *world) deliver(to []*reader) []time.Duration {
	w.t.Helper()
	for _, r := range to {
		r.measure()
	}
	tick := time.NewTicker(w.every)
	defer tick.Stop()
	for n := range w.changes {
		<-tick.C
		if err := w.touch(w.t.Context(), name(n%w.services)); err != nil {
			w.t.Fatal(err)
		}
	}
	w.equal("after the changes", to)
	return measured(to)
}

// disturb changes Services until the function that is returned is called.
func (w *world) disturb() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := 0; ctx.Err() == nil; n++ {
			_ = w.touch(ctx, name(n%w.services)) // the API server may be away
			pause(ctx)
		}
	})
	stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	w.t.Cleanup(stop)
	return stop
}

// stored are the resourceVersions of what there is.
func (w *world) stored() map[string]string {
	w.t.Helper()
	got, err := w.direct.CoreV1().Services("").List(w.t.Context(), metav1.ListOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	all := map[string]string{}
	for _, s := range got.Items {
		all[s.Namespace+"/"+s.Name] = s.ResourceVersion
	}
	return all
}

// equal waits until readers have what is stored.
func (w *world) equal(when string, readers []*reader) {
	w.t.Helper()
	all := w.stored()
	for i, r := range readers {
		until(w.t, fmt.Sprintf("reader %d to have all %s", i, when), func() bool { return r.has(all) })
	}
}

// heard waits until everybody knows of a new Service.
func (w *world) heard(name string) {
	w.t.Helper()
	w.add(name)
	for i, c := range w.copies {
		until(w.t, fmt.Sprintf("informer %d to have %s", i, name), func() bool {
			_, err := c.Services("default").Get(name)
			return err == nil
		})
	}
	for i, r := range w.readers {
		until(w.t, fmt.Sprintf("reader %d to have %s", i, name), func() bool {
			r.mu.Lock()
			defer r.mu.Unlock()
			return r.have["default/"+name] != ""
		})
	}
}

// allEqual waits until everybody has what is stored.
func (w *world) allEqual() {
	w.t.Helper()
	w.equal("in the end", w.readers)
	want := w.stored()
	for i, c := range w.copies {
		until(w.t, fmt.Sprintf("informer %d to have all in the end", i), func() bool {
			got := map[string]string{}
			all, err := c.List(labels.Everything())
			for _, s := range all {
				got[s.Namespace+"/"+s.Name] = s.ResourceVersion
			}
			return err == nil && maps.Equal(got, want)
		})
	}
}

// watches are those of Services that the API server has open, but for its own.
func (w *world) watches() int {
	w.t.Helper()
	raw, err := w.direct.CoreV1().RESTClient().Get().AbsPath("/metrics").DoRaw(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	n := 0
	for line := range strings.SplitSeq(string(raw), "\n") {
		if strings.HasPrefix(line, "apiserver_longrunning_requests{") && strings.Contains(line, `resource="services"`) && strings.Contains(line, `verb="WATCH"`) {
			var value int
			_, _ = fmt.Sscan(line[strings.LastIndex(line, " ")+1:], &value)
			n += value
		}
	}
	return n
}

// resident is what processes have in memory on average, in MiB.
func resident(all []*proxy.Proxy) int {
	pages := 0
	for _, p := range all {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.Pid()))
		var total, own int
		if _, scanned := fmt.Sscan(string(text), &total, &own); err != nil || scanned != nil {
			return 0
		}
		pages += own
	}
	return pages * os.Getpagesize() / len(all) >> 20
}

func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	tick, deadline := time.NewTicker(50*time.Millisecond), time.After(2*time.Minute)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited in vain for %s", what)
		}
	}
}
