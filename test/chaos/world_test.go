package chaos

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"k8s.io/client-go/rest"

	"github.com/portico-proxy/portico/test/controlplane"
	"github.com/portico-proxy/portico/test/proxy"
	"github.com/portico-proxy/portico/test/relay"
)

const (
	apiServers = 2
	replicas   = 3
)

// world is two API servers with one etcd and several proxies in front of both.
type world struct {
	t       *testing.T
	plane   *controlplane.ControlPlane
	proxies []*proxy.Proxy
	lines   [][]*relay.Relay // of each proxy to each API server
	peers   []*relay.Relay   // to each proxy from the others, if they tell each other
	watches []*relay.Watches // what the first proxy hears of, of each API server
	doors   []door
	direct  door
	etcd    *clientv3.Client
}

// door is one way in.
type door struct {
	url    string
	client *http.Client
}

// patience is how long clients wait for an answer.
const patience = 10 * time.Second

// newWorld starts one whose proxies have a policy, and further flags each.
func newWorld(t *testing.T, policy string, flags [][]string) *world {
	t.Helper()
	w := &world{t: t, plane: controlplane.New(t, controlplane.Options{
		APIServers: apiServers, Log: os.Stderr,
		Flags: map[controlplane.Part][]string{controlplane.APIServer: {"--disable-admission-plugins=ServiceAccount"}},
	})}
	policies := t.TempDir()
	if err := os.WriteFile(policies+"/keep.yaml", []byte(policy), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, own := range flags {
		var lines []*relay.Relay
		var addresses []string
		servers, kubeconfig := w.plane.URLs(), w.plane.KubeconfigPath()
		if len(w.proxies) == 0 {
			servers, kubeconfig = w.listenedTo(servers)
		}
		for _, u := range servers {
			line := relay.New(t, strings.TrimPrefix(u, "https://"))
			lines, addresses = append(lines, line), append(addresses, line.Address)
		}
		w.lines = append(w.lines, lines)
		p := proxy.New(t, proxy.Options{
			Kubeconfig: kubeconfig, Unready: true,
			Flags: append(own, "--server="+strings.Join(addresses, ","), "--policy-dir="+policies),
		})
		w.proxies = append(w.proxies, p)
		w.doors = append(w.doors, newDoor(t, p.Config(w.plane.Token("admin"))))
	}
	w.direct = newDoor(t, w.plane.ConfigFor(w.plane.Token("admin")))
	var err error
	w.etcd, err = clientv3.New(clientv3.Config{Endpoints: []string{w.plane.EtcdURL()}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.etcd.Close() })
	w.calm(t)
	return w
}

// listenedTo puts relays that know what passes before servers, and returns how to
// reach those. TLS ends there, and with it certificates of clients.
func (w *world) listenedTo(servers []string) (addresses []string, kubeconfig string) {
	w.t.Helper()
	pair, err := tls.LoadX509KeyPair(w.plane.ServingPair())
	if err != nil {
		w.t.Fatal(err)
	}
	k := w.plane.Kubeconfig(w.plane.Token("admin"))
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(k.CA)
	for _, u := range servers {
		one := relay.NewWatches(w.t, strings.TrimPrefix(u, "https://"), pair, roots)
		w.watches, addresses = append(w.watches, one), append(addresses, one.Address)
	}
	kubeconfig = filepath.Join(w.t.TempDir(), "kubeconfig")
	if err := k.WriteFile(kubeconfig); err != nil {
		w.t.Fatal(err)
	}
	return addresses, kubeconfig
}

// keep has ConfigMaps in memory.
const keep = `apiVersion: proxy.elf.io/v1alpha1
kind: CachePolicy
metadata: {name: keep}
spec:
  resources:
  - resource: configmaps
`

func newDoor(t *testing.T, cfg *rest.Config) door {
	t.Helper()
	c, err := rest.HTTPClientFor(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdleConnections)
	return door{cfg.Host, c}
}

// calm waits until everything works.
func (w *world) calm(t *testing.T) {
	t.Helper()
	for n := range apiServers {
		if err := w.plane.Ready(t.Context(), controlplane.APIServerN(n)); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "the proxies to be ready", func() bool {
		for _, p := range w.proxies {
			if !p.Ready() {
				return false
			}
		}
		return true
	})
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
