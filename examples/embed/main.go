// Command embed adds the proxy to a program that has a controller-runtime
// manager of its own.
package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"k8s.io/client-go/kubernetes"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/portico-proxy/portico/core/config"
	"github.com/portico-proxy/portico/core/server"
	"github.com/portico-proxy/portico/core/telemetry"
	"github.com/portico-proxy/portico/core/upstream"
	"github.com/portico-proxy/portico/filters"
	"github.com/portico-proxy/portico/filters/authn"
	"github.com/portico-proxy/portico/filters/authz"
)

func main() {
	ctrl.SetLogger(zap.New())
	mgr, err := ctrl.NewManager(ctrl.GetConfigOrDie(), ctrl.Options{})
	if err == nil {
		// Your controllers go beside it.
		err = addProxy(mgr)
	}
	if err == nil {
		err = mgr.Start(ctrl.SetupSignalHandler())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "embed:", err)
		os.Exit(1)
	}
}

// addProxy makes mgr serve the API server that its own configuration names, on
// a free port of loopback.
func addProxy(mgr manager.Manager) error {
	log := mgr.GetLogger()
	observed, err := telemetry.New(context.Background(), telemetry.Options{Registry: metrics.Registry, Log: log})
	if err != nil {
		return err
	}
	api, err := upstream.New(upstream.Options{Config: mgr.GetConfig(), Telemetry: observed, Log: log})
	if err != nil {
		return err
	}
	own, err := kubernetes.NewForConfigAndClient(mgr.GetConfig(), &http.Client{Transport: api.Own()})
	if err != nil {
		return err
	}
	deps := filters.Deps{Telemetry: observed, Log: log, Upstream: api}
	if deps.Tokens, err = authn.Reviewer(own.AuthenticationV1()); err != nil {
		return err
	}
	deps.Gate = authz.NewGate(own.AuthorizationV1())
	chain, _ := filters.Chain(&config.Snapshot{}, deps) // no policies, so nothing to say of them
	proxy, err := server.New(server.Options{
		BindAddress: net.IPv4(127, 0, 0, 1), CertDir: os.Getenv("CERT_DIR"), Handler: chain,
		EndWatches: api.EndWatches, DrainTimeout: 10 * time.Second, Log: log,
	})
	if err != nil {
		return err
	}
	fmt.Printf("proxy at https://%s, certificate %s\n", proxy.Addr(), proxy.CertFile())
	return mgr.Add(proxy)
}
