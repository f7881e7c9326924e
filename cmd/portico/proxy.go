package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/pprof"
	"net/url"
	"slices"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/portico-proxy/portico/core/body"
	"github.com/portico-proxy/portico/core/cache"
	"github.com/portico-proxy/portico/core/config"
	"github.com/portico-proxy/portico/core/controller"
	"github.com/portico-proxy/portico/core/pipeline"
	"github.com/portico-proxy/portico/core/replicas"
	"github.com/portico-proxy/portico/core/resources"
	"github.com/portico-proxy/portico/core/server"
	"github.com/portico-proxy/portico/core/telemetry"
	"github.com/portico-proxy/portico/core/upstream"
	"github.com/portico-proxy/portico/core/watches"
	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
	"github.com/portico-proxy/portico/filters"
	"github.com/portico-proxy/portico/filters/authn"
	"github.com/portico-proxy/portico/filters/authz"
)

func newProxyCommand() *cobra.Command {
	o := defaultProxyOptions()
	cmd := &cobra.Command{
		Use:   "proxy",
		Short: "Run the proxy",
		Long: `Run the proxy in front of the API server that --kubeconfig names, or of the one
of the cluster it runs in.

Callers' bearer tokens go upstream as they are: the proxy lends nobody its own
rights. Callers with a client certificate need --client-ca-file and
--impersonate-x509.`,
		Example: `  # in a cluster
  portico proxy --node-name=$NODE_NAME

  # anywhere
  portico proxy --kubeconfig=admin.conf --bind-address=127.0.0.1 --cert-dir=/tmp/portico`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.complete(cmd)
			if err := o.applyLogging(); err != nil {
				return err
			}
			p, err := newProxy(cmd.Context(), *o)
			if err != nil {
				return err
			}
			return p.run(cmd.Context())
		},
	}
	o.addFlags(cmd)
	return cmd
}

// proxy is the rooms of `portico proxy`, wired.
type proxy struct {
	upstream  *upstream.Upstream
	server    *server.Server
	telemetry *telemetry.Telemetry
	manager   manager.Manager
	gate      *authz.Gate
	cache     *cache.Cache       // nil if nothing is answered from memory
	beside    []manager.Runnable // the server, until its last request
	ready     map[string]healthz.Checker
	debug     map[string]http.Handler // on the metrics' port
	proxies   atomic.Int64            // how many there are; 0 is not known
	// metricsAddress is where the manager serves metrics.
	metricsAddress string
	log            logr.Logger
}

// newProxy opens what can fail, so that run only serves.
func newProxy(ctx context.Context, o proxyOptions) (*proxy, error) {
	cfg, err := o.restConfig()
	if err != nil {
		return nil, err
	}
	p := &proxy{
		log: klog.Background().WithName("portico"), metricsAddress: o.metricsAddress,
		debug: map[string]http.Handler{}, ready: map[string]healthz.Checker{},
	}
	if err := limitMemory(p.log); err != nil {
		p.log.Error(err, "memory is not limited")
	}
	if o.profiling {
		addProfiles(p.debug)
	}
	p.telemetry, err = telemetry.New(ctx, telemetry.Options{
		TracingConfigFile: o.tracingConfigFile,
		NodeName:          o.nodeName,
		Version:           version(),
		Registry:          metrics.Registry,
		Log:               p.log.WithName("telemetry"),
	})
	if err != nil {
		return nil, err
	}
	p.upstream, err = upstream.New(upstream.Options{
		Config: cfg, Addresses: o.servers, Name: o.nodeName, Telemetry: p.telemetry, Log: p.log.WithName("upstream"),
	})
	if err != nil {
		return nil, err
	}
	clientCA, err := o.clientCA()
	if err != nil {
		return nil, err
	}
	deps, err := p.deps(cfg, o, clientCA)
	if err != nil {
		return nil, err
	}
	delayed, err := p.telemetry.ObserveDelays()
	if err != nil {
		return nil, err
	}
	chain := &pipeline.Switch{}
	p.server, err = server.New(server.Options{
		BindAddress: o.bindAddress, Port: o.securePort,
		CertFile: o.certFile, KeyFile: o.keyFile, CertDir: o.certDir,
		ClientCA: clientCA, Handler: chain, EndWatches: p.endWatches,
		DrainDelay: o.drainDelay, DrainTimeout: o.drainTimeout, MaxStreams: o.maxStreams, MaxConnections: o.maxConnections,
		Quick: p.quick(), OwnHTTP2: o.ownHTTP2, Delayed: delayed,
		Log: p.log.WithName("server"),
	})
	if err != nil {
		return nil, err
	}
	p.ready["policies"], p.ready["serving"], p.ready["upstream"] = chain.Ready, p.server.Ready, p.upstream.Ready
	follow, err := p.policies(cfg, o, chain, deps)
	if err != nil {
		return nil, err
	}
	return p, p.manage(cfg, o, follow...)
}

// quick knows reads that memory will answer, most probably. A watch goes on.
func (p *proxy) quick() func(*http.Request) (*http.Request, bool) {
	if p.cache == nil {
		return nil
	}
	return func(r *http.Request) (*http.Request, bool) {
		if r.Method != http.MethodGet {
			return r, false
		}
		r = pipeline.WithRequestInfo(r)
		if info, ok := request.RequestInfoFrom(r.Context()); !ok || info.Verb == "watch" {
			return r, false
		}
		return p.cache.Ask(r)
	}
}

// deps are the parts that outlive any configuration.
func (p *proxy) deps(cfg *rest.Config, o proxyOptions, ca dynamiccertificates.CAContentProvider) (filters.Deps, error) {
	own := &http.Client{Transport: p.upstream.Own()}
	client, err := kubernetes.NewForConfigAndClient(cfg, own)
	if err != nil {
		return filters.Deps{}, fmt.Errorf("prepare the proxy's own client: %w", err)
	}
	d := filters.Deps{
		Telemetry:       p.telemetry,
		Log:             p.log,
		ImpersonateX509: o.impersonateX509,
		Upstream:        p.upstream,
		Callers:         &authn.Before{},
	}
	if ca != nil {
		d.ClientCA = ca.VerifyOptions
	}
	if d.Tokens, err = authn.Reviewer(client.AuthenticationV1()); err != nil {
		return filters.Deps{}, err
	}
	d.Gate = authz.NewGate(client.AuthorizationV1())
	rooms := body.NewRooms()
	d.Rooms = rooms
	d.Nodes = p.nodes(client, o, rooms)
	from, err := o.sources(client)
	if err != nil {
		return filters.Deps{}, err
	}
	if d.Modules, err = p.modules(cfg, own, from, o, rooms); err != nil {
		return filters.Deps{}, err
	}
	d.Watches = watches.New(p.log.WithName("watches"))
	p.beside = append(p.beside, d.Watches)
	if d.Views, err = p.views(cfg, own, rooms, d.Watches); err != nil {
		return filters.Deps{}, err
	}
	p.gate = d.Gate
	peers, err := p.join(client, o)
	if err != nil {
		return filters.Deps{}, err
	}
	if o.watchCache {
		if d.Memory, err = p.remember(cfg, own, o, peers); err != nil {
			return filters.Deps{}, err
		}
	}
	err = p.limit(from, o, &d)
	return d, err
}

// remember prepares what answers from memory, and what keeps it honest.
func (p *proxy) remember(cfg *rest.Config, own *http.Client, o proxyOptions, peers *replicas.Replicas) (*cache.Cache, error) {
	c, err := cache.New(cache.Options{
		Upstream: own.Transport, Base: p.upstream.Base(), MemoryBudget: o.cacheBudget(p.log), Replicas: peers, Log: p.log.WithName("cache"),
	})
	if err != nil {
		return nil, err
	}
	rbac, err := metadata.NewForConfigAndClient(cfg, own)
	if err != nil {
		return nil, fmt.Errorf("prepare the proxy's own client: %w", err)
	}
	if err := p.telemetry.ObserveCache(c.Figures); err != nil {
		return nil, err
	}
	p.cache = c
	p.debug[streamsPath] = describe(c.Streams)
	p.beside = append(p.beside, c, &authz.Follower{Gate: p.gate, Client: rbac, Log: p.log.WithName("authz")})
	return c, nil
}

// serve runs the server, and beside it, for as long as it has requests, what it
// answers them with. The manager would end all of them at once. If any of that
// fails, the server drains and ends: another process may fare better.
func (p *proxy) serve(ctx context.Context) error {
	rest, end := context.WithCancel(context.WithoutCancel(ctx))
	serving, stop := context.WithCancel(ctx)
	defer stop()
	failures := make(chan error, len(p.beside))
	for _, r := range p.beside {
		go func() {
			err := r.Start(rest)
			if err != nil && rest.Err() == nil {
				// The error is returned only once the last request is done.
				p.log.Error(err, "A part of the proxy has failed, so that it ends")
				stop()
			}
			failures <- err
		}()
	}
	err := p.server.Start(serving)
	end()
	for range p.beside {
		err = errors.Join(err, <-failures)
	}
	return err
}

// endWatches ends those that upstream feeds and those that memory does.
func (p *proxy) endWatches() {
	p.upstream.EndWatches()
	p.gate.EndWatches()
}

// followed are the policies of the API.
var followed = []schema.GroupVersionResource{
	v1alpha1.GroupVersion.WithResource("cachepolicies"),
	v1alpha1.GroupVersion.WithResource("wasmfilters"),
	v1alpha1.GroupVersion.WithResource("regopolicies"),
	v1alpha1.GroupVersion.WithResource("filterbindings"),
	v1alpha1.GroupVersion.WithResource("nodepolicies"),
	v1alpha1.GroupVersion.WithResource("virtualviews"),
}

// policies compiles a chain for each state of the policy directory and of the
// API's policies. A bad directory is an error before anything has been started.
func (p *proxy) policies(cfg *rest.Config, o proxyOptions, chain *pipeline.Switch, deps filters.Deps) ([]manager.Runnable, error) {
	loader := config.Loader{Dir: o.policyDir, Scheme: runtime.NewScheme()}
	if err := v1alpha1.AddToScheme(loader.Scheme); err != nil {
		return nil, fmt.Errorf("register policies: %w", err)
	}
	if _, err := loader.Load(); err != nil {
		return nil, err
	}
	served := resources.New(resources.Options{Upstream: p.upstream.Own(), Base: p.upstream.Base(), Selected: deps.Policies.Selected, Log: p.log.WithName("policies")})
	sources := config.NewSources(o.watchPolicies, func(s *config.Snapshot) (config.Findings, error) {
		served.Judge(s.Objects)
		return p.apply(s, chain, deps), nil
	})
	p.beside = append(p.beside,
		manager.RunnableFunc(func(ctx context.Context) error { return deps.Modules.Start(ctx, sources.Again) }),
		manager.RunnableFunc(func(ctx context.Context) error { return deps.Views.Start(ctx, sources.Again) }),
		manager.RunnableFunc(func(ctx context.Context) error { return deps.Policies.Start(ctx, sources.Again) }),
		manager.RunnableFunc(func(ctx context.Context) error { return served.Start(ctx, sources.Tell) }))
	follow := []manager.Runnable{manager.RunnableFunc(func(ctx context.Context) error { return loader.Follow(ctx, p.log, sources.Files) })}
	if !o.watchPolicies {
		return follow, nil
	}
	client, err := dynamic.NewForConfigAndClient(cfg, &http.Client{Transport: p.upstream.Own()})
	if err != nil {
		return nil, fmt.Errorf("prepare the proxy's own client: %w", err)
	}
	return append(follow, &controller.Controller{Options: controller.Options{
		Client: client, Resources: followed, Scheme: loader.Scheme, Started: p.upstream.Started,
		Apply: sources.API, News: sources.News(), By: o.name(), Log: p.log.WithName("policies"),
		Found: func(policy runtime.Object) []metav1.Condition {
			return slices.Concat(sources.Found(policy), served.Found(policy))
		},
		Proxies: v1alpha1.GroupVersion.WithResource("proxies"), Version: version(),
		Counted: func(proxies int) { p.proxies.Store(int64(proxies)) },
	}}), nil
}

// apply puts a snapshot in force. Nothing is answered before it is known what
// may not pass: a chain without the API's policies would let it.
func (p *proxy) apply(s *config.Snapshot, chain *pipeline.Switch, deps filters.Deps) config.Findings {
	if s.Partial {
		return nil
	}
	h, found := filters.Chain(s, deps)
	if p.cache != nil {
		p.cache.SetPolicies(cache.PoliciesFrom(s.Objects))
	}
	chain.Store(h)
	p.log.Info("policies in force", "objects", len(s.Objects), "digest", s.Digest[:12])
	return found
}

// manage puts the parts under one controller-runtime manager, which serves
// metrics and health on ports of their own.
func (p *proxy) manage(cfg *rest.Config, o proxyOptions, runnables ...manager.Runnable) error {
	if err := checkFree(o.metricsAddress); err != nil {
		return fmt.Errorf("serve metrics (--metrics-bind-address): %w", err)
	}
	forever := time.Duration(-1) // the server bounds its own draining
	var err error
	p.manager, err = ctrl.NewManager(cfg, ctrl.Options{
		Logger:                  p.log,
		Metrics:                 metricsserver.Options{BindAddress: o.metricsAddress, HandlerOpts: []func(*promhttp.HandlerOpts){withExemplars}, ExtraHandlers: p.debug},
		HealthProbeBindAddress:  o.healthAddress,
		GracefulShutdownTimeout: &forever,
	})
	if err != nil {
		return fmt.Errorf("prepare metrics and health servers: %w", err)
	}
	for name, check := range p.ready {
		if err := p.manager.AddReadyzCheck(name, check); err != nil {
			return fmt.Errorf("add readiness check %s: %w", name, err)
		}
	}
	if err := p.manager.AddHealthzCheck("ping", healthz.Ping); err != nil {
		return fmt.Errorf("add health check: %w", err)
	}
	for _, r := range append(runnables, manager.RunnableFunc(p.serve)) {
		if err := p.manager.Add(r); err != nil {
			return fmt.Errorf("add to manager: %w", err)
		}
	}
	return nil
}

// checkFree finds out that an address is taken before anything has been started:
// the manager would only then. "0" stands for none.
func checkFree(address string) error {
	if address == "0" {
		return nil
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	return l.Close()
}

// addProfiles serves what `go tool pprof` asks for.
func addProfiles(debug map[string]http.Handler) {
	debug["/debug/pprof/"] = http.HandlerFunc(pprof.Index)
	debug["/debug/pprof/profile"] = http.HandlerFunc(pprof.Profile)
	debug["/debug/pprof/symbol"] = http.HandlerFunc(pprof.Symbol)
	debug["/debug/pprof/trace"] = http.HandlerFunc(pprof.Trace)
}

// withExemplars serves OpenMetrics to those who ask, as exemplars need it.
func withExemplars(o *promhttp.HandlerOpts) { o.EnableOpenMetrics = true }

// unready is what /readyz would complain of.
func (p *proxy) unready(ctx context.Context) (reasons []string) {
	probe := (&http.Request{Method: http.MethodGet, URL: &url.URL{Path: "/readyz"}}).WithContext(ctx)
	for _, name := range slices.Sorted(maps.Keys(p.ready)) {
		if err := p.ready[name](probe); err != nil {
			reasons = append(reasons, name+": "+err.Error())
		}
	}
	return reasons
}

// run serves until ctx ends and all requests are done.
func (p *proxy) run(ctx context.Context) error {
	err := p.manager.Start(ctx)
	p.upstream.Close()
	flush, cancel := context.WithTimeout(context.Background(), flushTimeout)
	defer cancel()
	return errors.Join(err, p.telemetry.Shutdown(flush))
}

// flushTimeout bounds how long the last spans may take to leave.
const flushTimeout = 3 * time.Second
