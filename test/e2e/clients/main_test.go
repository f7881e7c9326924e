// Package clients runs what programs talk to an API server with through the
// proxy: informers, controller-runtime, the control plane's own controllers.
package clients

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/go-logr/logr"
	"go.uber.org/goleak"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/portico-proxy/portico/test/controlplane"
	"github.com/portico-proxy/portico/test/proxy"
)

// world is one control plane for all tests of the package.
var world *controlplane.ControlPlane

func TestMain(m *testing.M) {
	if os.Getenv(informerEnv) != "" {
		os.Exit(informerMain())
	}
	ctrl.SetLogger(logr.Discard())
	goleak.VerifyTestMain(suite{m})
}

// suite runs all tests between the start and the end of the world.
type suite struct{ tests *testing.M }

func (s suite) Run() int {
	var err error
	world, err = controlplane.Start(context.Background(), controlplane.Options{Log: os.Stderr})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer world.Stop()
	code := s.tests.Run()
	if code != 0 {
		fmt.Fprintln(os.Stderr, world.LogTails(30))
	}
	return code
}

func newProxy(t *testing.T, flags ...string) *proxy.Proxy {
	t.Helper()
	return proxy.New(t, proxy.Options{Kubeconfig: world.KubeconfigPath(), Flags: flags})
}

// keepAll lets into memory what is not kept unless a policy names it.
const keepAll = `apiVersion: proxy.elf.io/v1alpha1
kind: CachePolicy
metadata: {name: all}
spec:
  resources:
  - resource: configmaps
  - resource: secrets
  - resource: events
  - {group: events.k8s.io, resource: events}
  - {group: coordination.k8s.io, resource: leases}
`

// ways are flags of proxies: of one that passes everything on, and of one that
// answers from memory whatever it can.
func ways(t *testing.T) map[string][]string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "all.yaml"), []byte(keepAll), 0o600); err != nil {
		t.Fatal(err)
	}
	return map[string][]string{"road": {"--watch-cache=false"}, "memory": {"--watch-cache", "--policy-dir=" + dir}}
}

// expectMemory fails the test unless p has answered from memory if it was to, so
// that the test says something about memory.
func expectMemory(t *testing.T, p *proxy.Proxy, way string) {
	t.Helper()
	n := p.Gauge("portico_watch_cache_answers_total")
	if (n > 0) != (way == "memory") {
		t.Errorf("%s: %v answers from memory", way, n)
	}
}

// straight is a client configuration for the API server itself.
func straight() *rest.Config { return world.ConfigFor(world.Token("admin")) }

// through is a client configuration for the same caller through a proxy.
func through(p *proxy.Proxy) *rest.Config { return p.Config(world.Token("admin")) }

// httpClient leaves no connection behind.
func httpClient(t *testing.T, config *rest.Config) *http.Client {
	t.Helper()
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.CloseIdleConnections)
	return client
}

func clientset(t *testing.T, config *rest.Config) *kubernetes.Clientset {
	t.Helper()
	client, err := kubernetes.NewForConfigAndClient(config, httpClient(t, config))
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// namespaces counts them, so that tests may run more than once.
var namespaces atomic.Int32

// addNamespace makes a namespace for a test and returns its name.
func addNamespace(t *testing.T) string {
	t.Helper()
	name := fmt.Sprintf("shop-%d", namespaces.Add(1))
	if err := world.AddNamespace(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	return name
}
