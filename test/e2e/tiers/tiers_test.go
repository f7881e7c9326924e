// Package tiers has proxies of nodes behind proxies of an area, and takes either
// away.
package tiers

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	listers "k8s.io/client-go/listers/core/v1"

	"github.com/portico-proxy/portico/test/controlplane"
	"github.com/portico-proxy/portico/test/proxy"
)

const (
	areas   = 2
	nodes   = 4
	perNode = 5 // informers
)

// world is an API server, area proxies in front of it, and node proxies in front of
// those.
type world struct {
	t      *testing.T
	plane  *controlplane.ControlPlane
	direct kubernetes.Interface
	areas  []*proxy.Proxy
	nodes  []*proxy.Proxy
	copies []listers.ServiceLister
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, plane: controlplane.New(t, controlplane.Options{Log: os.Stderr})}
	w.direct = kubernetes.NewForConfigOrDie(w.plane.Config())
	var addresses []string
	var ca []byte
	for range areas {
		p := proxy.New(t, proxy.Options{Kubeconfig: w.plane.KubeconfigPath()})
		w.areas = append(w.areas, p)
		addresses, ca = append(addresses, strings.TrimPrefix(p.URL, "https://")), append(ca, p.CA...)
	}
	kubeconfig := filepath.Join(t.TempDir(), "area.kubeconfig")
	k := controlplane.Kubeconfig{Server: w.areas[0].URL, CA: ca, Credential: w.plane.Token("admin")}
	if err := k.WriteFile(kubeconfig); err != nil {
		t.Fatal(err)
	}
	for range nodes {
		w.nodes = append(w.nodes, proxy.New(t, proxy.Options{Kubeconfig: kubeconfig, Flags: []string{"--server=" + strings.Join(addresses, ",")}}))
	}
	return w
}

// inform starts informers of Services at every node.
func (w *world) inform() {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	for _, p := range w.nodes {
		for range perNode {
			cfg := p.Config(w.plane.Token("admin"))
			cfg.UserAgent = "informer"
			cfg.ContentType, cfg.AcceptContentTypes = "application/vnd.kubernetes.protobuf", "application/vnd.kubernetes.protobuf,application/json"
			f := informers.NewSharedInformerFactory(kubernetes.NewForConfigOrDie(cfg), 0)
			w.copies = append(w.copies, f.Core().V1().Services().Lister())
			f.Start(ctx.Done())
			w.t.Cleanup(f.Shutdown)
		}
	}
	w.t.Cleanup(cancel)
}

// add makes a Service and waits until every informer has it.
func (w *world) add(name string) {
	w.t.Helper()
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}}
	if _, err := w.direct.CoreV1().Services("default").Create(w.t.Context(), s, metav1.CreateOptions{}); err != nil {
		w.t.Fatal(err)
	}
	for i, c := range w.copies {
		until(w.t, fmt.Sprintf("informer %d to have %s", i, name), func() bool {
			_, err := c.Services("default").Get(name)
			return err == nil
		})
	}
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

// TestEitherTierCanBeTakenAway kills an area's proxy, a node's and the API server,
// one after another, and informers at all nodes go on.
func TestEitherTierCanBeTakenAway(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute; -short was given")
	}
	w := newWorld(t)
	own := w.watches()
	w.inform()
	w.add("first")
	few := func(when string) {
		t.Helper()
		until(t, fmt.Sprintf("at most %d watches %s", areas, when), func() bool { return w.watches()-own <= areas })
	}
	few("at first")
	for n, p := range w.areas {
		p.Kill()
		w.add(fmt.Sprintf("without-area-%d", n))
		p.Start()
	}
	few("after the areas were gone")
	w.nodes[0].Kill()
	w.nodes[0].Start()
	w.add("after-node")
	if err := w.plane.Kill(controlplane.APIServer); err != nil {
		t.Fatal(err)
	}
	if err := w.plane.Restart(t.Context(), controlplane.APIServer); err != nil {
		t.Fatal(err)
	}
	w.add("after-server")
	few("in the end")
}

// TestTokensPassBothTiers asks as somebody whom only the API server knows.
func TestTokensPassBothTiers(t *testing.T) {
	w := newWorld(t)
	for token, want := range map[string]int{w.plane.Token("admin").Token: http.StatusOK, "nobody's": http.StatusUnauthorized} {
		cred := controlplane.Credential{Token: token}
		client, err := kubernetes.NewForConfig(w.nodes[0].Config(cred))
		if err != nil {
			t.Fatal(err)
		}
		code := 0
		res := client.CoreV1().RESTClient().Get().Namespace("default").Resource("services").Do(t.Context()).StatusCode(&code)
		if code != want {
			t.Errorf("got %d (%v), want %d", code, res.Error(), want)
		}
	}
}
