// Package clients runs what programs talk to an API server with through the
// proxy: informers, controller-runtime, the control plane's own controllers.
package clients

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"testing"

	"go.uber.org/goleak"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/portico-proxy/portico/test/controlplane"
	"github.com/portico-proxy/portico/test/proxy"
)

// cp is the control plane that all tests of this package share.
var cp *controlplane.ControlPlane

// The control plane's own controllers, by the names that RBAC knows.
const (
	controllerManager = "system:kube-controller-manager"
	scheduler         = "system:kube-scheduler"
)

func TestMain(m *testing.M) {
	if os.Getenv(informerEnv) != "" {
		os.Exit(informerMain())
	}
	goleak.VerifyTestMain(suite{m})
}

// suite runs all tests on one control plane.
type suite struct{ tests *testing.M }

func (s suite) Run() int {
	var err error
	cp, err = controlplane.Start(context.Background(), controlplane.Options{
		Kwok:  true,
		Users: []controlplane.User{{Name: controllerManager}, {Name: scheduler}},
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer cp.Stop()
	return s.tests.Run()
}

func newProxy(t *testing.T, flags ...string) *proxy.Proxy {
	t.Helper()
	return proxy.New(t, proxy.Options{Kubeconfig: cp.KubeconfigPath(), Flags: flags})
}

// direct is a client configuration for the straight way.
func direct() *rest.Config { return cp.ConfigFor(cp.Token("admin")) }

// through is a client configuration for the same caller through a proxy.
func through(p *proxy.Proxy) *rest.Config { return p.Config(cp.Token("admin")) }

// httpClient has connections of its own and leaves none behind.
func httpClient(t *testing.T, config *rest.Config) *http.Client {
	t.Helper()
	// Configurations with the same answers would share a connection pool.
	config = rest.CopyConfig(config)
	config.Proxy = http.ProxyFromEnvironment
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

// addNamespace makes a namespace for a test and returns its name.
func addNamespace(t *testing.T, name string) string {
	t.Helper()
	if err := cp.AddNamespace(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	return name
}
