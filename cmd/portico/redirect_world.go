package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/portico-proxy/portico/core/config"
	"github.com/portico-proxy/portico/core/redirect"
	"github.com/portico-proxy/portico/crds/balancing/v1beta1"
)

func redirectScheme() (*runtime.Scheme, error) {
	s := runtime.NewScheme()
	return s, errors.Join(clientgoscheme.AddToScheme(s), v1beta1.AddToScheme(s))
}

// A watcher knows the cluster as far as one node needs to.
type watcher struct {
	cfg     *rest.Config
	scheme  *runtime.Scheme
	node    string
	changed func()
	ctx     context.Context //nolint:containedctx // what it starts lives as long as it

	// main has what decides about the proxy next door, so that it must not come
	// by that proxy; services have the rest, which is the most. Both are nil
	// without a cluster, and before the start.
	main, services cache.Cache
	road           *road
	mapper         meta.RESTMapper
	resolves       bool
	endsSockets    bool // whoever ends sockets to the dead must know who lives
	// fromFiles says that policies are not the cluster's.
	fromFiles bool
	once      bool // an API server that cannot be reached is not waited for
	log       logr.Logger

	mu sync.Mutex // guards following
	// files are the policies of --policy-dir.
	files *config.Snapshot
	// moved are the Services whose EndpointSlices have changed.
	moved map[types.NamespacedName]bool
	// elsewhere are pods that policies select on other nodes, and nodes, by what
	// selects them. They are watched only if a policy needs them.
	elsewhere map[string]*elsewhere
}

// elsewhere is one more watch.
type elsewhere struct {
	cache  cache.Cache
	stop   context.CancelFunc
	synced chan struct{}
}

func newWatcher(ctx context.Context, cfg *rest.Config, o *redirectOptions, changed func()) (*watcher, error) {
	scheme, err := redirectScheme()
	if err != nil {
		return nil, err
	}
	w := &watcher{
		cfg: cfg, scheme: scheme, node: o.nodeName, changed: changed, ctx: ctx,
		road: newRoad(o.exemptMark), resolves: o.resolveServices, endsSockets: len(o.endStale) > 0, fromFiles: o.policyDir != "", files: &config.Snapshot{},
		moved: map[types.NamespacedName]bool{}, elsewhere: map[string]*elsewhere{},
		once: o.dryRun, log: klog.FromContext(ctx).WithName("redirect"),
	}
	if cfg == nil {
		return w, nil
	}
	if w.mapper, err = newMapper(cfg); err != nil {
		return nil, err
	}
	return w, nil
}

// open prepares what watches, which asks the API server which kinds have
// namespaces.
func (w *watcher) open() error {
	var err error
	options := cache.Options{
		Scheme:           w.scheme,
		Mapper:           w.mapper,
		DefaultTransform: cache.TransformStripManagedFields(),
		// Nothing that is read here is written to.
		DefaultUnsafeDisableDeepCopy: new(true),
		ByObject: map[client.Object]cache.ByObject{
			&corev1.Pod{}:  {Field: fields.OneTermEqualSelector("spec.nodeName", w.node)},
			&corev1.Node{}: {Field: fields.OneTermEqualSelector("metadata.name", w.node)},
		},
	}
	if w.main, err = cache.New(w.cfg, options); err != nil {
		return fmt.Errorf("watch cluster: %w", err)
	}
	options.ByObject = nil
	if w.services, err = cache.New(w.road.config(w.cfg), options); err != nil {
		return fmt.Errorf("watch cluster: %w", err)
	}
	return nil
}

func newMapper(cfg *rest.Config) (meta.RESTMapper, error) {
	httpClient, err := rest.HTTPClientFor(cfg)
	if err != nil {
		return nil, err
	}
	mapper, err := apiutil.NewDynamicRESTMapper(cfg, httpClient)
	if err != nil {
		return nil, fmt.Errorf("ask for the cluster's resources: %w", err)
	}
	return mapper, nil
}

// observe asks for the kinds that matter. EndpointSlices, the most numerous, only
// matter to Services.
func (w *watcher) observe(ctx context.Context) error {
	asks := []func() error{w.open}
	if w.resolves {
		asks = append(asks, w.watchEndpoints)
	}
	asks = append(asks, func() error { return w.watch(w.services, &corev1.Service{}) })
	kinds := []client.Object{&corev1.Pod{}, &corev1.Node{}}
	if !w.fromFiles {
		asks = append(asks, w.knowsPolicies)
		kinds = append(kinds, &v1beta1.LocalRedirectPolicy{}, &v1beta1.BalancingPolicy{})
	}
	for _, kind := range kinds {
		asks = append(asks, func() error { return w.watch(w.main, kind) })
	}
	for _, ask := range asks {
		if err := w.insist(ctx, ask); err != nil {
			return err
		}
	}
	return nil
}

// insist asks until the API server answers: it may be starting, and an agent that
// ended would be started again less and less often. Who tries out what would be
// done is not kept waiting.
func (w *watcher) insist(ctx context.Context, ask func() error) error {
	const longest = 5 * time.Second
	waiting := false
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, longest) {
		err := ask()
		if err == nil && waiting {
			w.log.Info("The API server answers")
		}
		if err == nil || w.once || meta.IsNoMatchError(err) || errors.Is(err, errNoPolicies) {
			return err
		}
		if !waiting {
			w.log.Error(err, "Waiting for the API server")
		}
		waiting = true
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

var errNoPolicies = errors.New("the cluster knows no LocalRedirectPolicy: apply the custom resources (crds/manifests/balancing.elf.io_*.yaml), or give --policy-dir")

// knowsPolicies gives a word to whoever forgot the custom resources, instead of
// waiting for them.
func (w *watcher) knowsPolicies() error {
	_, err := w.mapper.RESTMapping(v1beta1.GroupVersion.WithKind("LocalRedirectPolicy").GroupKind(), v1beta1.GroupVersion.Version)
	if meta.IsNoMatchError(err) {
		return errNoPolicies
	}
	return err
}

func (w *watcher) watch(c cache.Cache, kind client.Object) error {
	return w.handle(c, kind, func(any) { w.changed() })
}

// handle calls changed with an object as it was, as it is, or both.
func (w *watcher) handle(c cache.Cache, kind client.Object, changed func(any)) error {
	informer, err := c.GetInformer(w.ctx, kind, cache.BlockUntilSynced(false))
	if err != nil {
		return fmt.Errorf("watch %T: %w", kind, err)
	}
	_, err = informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc: changed, UpdateFunc: func(before, now any) { changed(before); changed(now) }, DeleteFunc: changed,
	})
	if err != nil {
		return fmt.Errorf("watch %T: %w", kind, err)
	}
	return nil
}

// start begins to watch, and returns when everything has been seen once.
func (w *watcher) start(ctx context.Context) error {
	if w.cfg == nil {
		return nil
	}
	if err := w.observe(ctx); err != nil {
		return err
	}
	failed := make(chan error, 2)
	for _, c := range []cache.Cache{w.main, w.services} {
		go func() { failed <- c.Start(w.ctx) }()
	}
	synced := make(chan bool, 1)
	go func() { synced <- w.main.WaitForCacheSync(w.ctx) && w.services.WaitForCacheSync(w.ctx) }()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case err := <-failed:
		return errors.Join(err, w.ctx.Err())
	case ok := <-synced:
		if !ok {
			return errors.Join(errors.New("watch cluster: stopped before everything was seen"), w.ctx.Err())
		}
		return nil
	}
}

// apply takes the policies of files.
func (w *watcher) apply(s *config.Snapshot) error {
	for _, o := range s.Objects {
		switch o.(type) {
		case *v1beta1.LocalRedirectPolicy, *v1beta1.BalancingPolicy:
		default:
			return fmt.Errorf("policies of connections are LocalRedirectPolicy and BalancingPolicy, not %T", o)
		}
	}
	w.mu.Lock()
	w.files = s
	w.mu.Unlock()
	w.changed()
	return nil
}

// world is everything that is known at the moment. With wait, it lets what
// policies need from elsewhere come in first.
func (w *watcher) world(wait bool) (redirect.World, error) {
	world := redirect.World{Node: redirect.Node{Name: w.node, Addresses: ownAddresses()}}
	w.mu.Lock()
	for _, o := range w.files.Objects {
		switch p := o.(type) {
		case *v1beta1.LocalRedirectPolicy:
			world.LocalRedirects = append(world.LocalRedirects, p)
		case *v1beta1.BalancingPolicy:
			world.Balancings = append(world.Balancings, p)
		}
	}
	w.mu.Unlock()
	if w.main == nil {
		return world, nil
	}
	if err := w.read(&world); err != nil {
		return world, fmt.Errorf("read what is watched: %w", err)
	}
	if err := w.readElsewhere(&world, wait); err != nil {
		return world, fmt.Errorf("read what is watched elsewhere: %w", err)
	}
	return world, nil
}

func (w *watcher) read(world *redirect.World) error {
	var services corev1.ServiceList
	var slices discoveryv1.EndpointSliceList
	var pods corev1.PodList
	var nodes corev1.NodeList
	var local v1beta1.LocalRedirectPolicyList
	var balancing v1beta1.BalancingPolicyList
	errs := []error{w.services.List(w.ctx, &services), w.main.List(w.ctx, &pods), w.main.List(w.ctx, &nodes)}
	// What is asked for is watched from then on.
	if w.resolves || w.endsSockets {
		errs = append(errs, w.services.List(w.ctx, &slices))
	}
	if !w.fromFiles {
		errs = append(errs, w.main.List(w.ctx, &local), w.main.List(w.ctx, &balancing))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	world.Services, world.EndpointSlices = pointers(services.Items), pointers(slices.Items)
	world.Pods, world.Nodes = pointers(pods.Items), pointers(nodes.Items)
	world.LocalRedirects = append(world.LocalRedirects, pointers(local.Items)...)
	world.Balancings = append(world.Balancings, pointers(balancing.Items)...)
	for _, n := range world.Nodes {
		if n.Name == w.node {
			world.Node.Object = n
		}
	}
	return nil
}

func pointers[T any](items []T) []*T {
	out := make([]*T, len(items))
	for i := range items {
		out[i] = &items[i]
	}
	return out
}

// readElsewhere adds the pods that BalancingPolicies select, and nodes.
func (w *watcher) readElsewhere(world *redirect.World, wait bool) error {
	needed := map[string]bool{}
	here := map[string]bool{}
	for _, p := range world.Pods {
		here[string(p.UID)] = true
	}
	for _, b := range world.Balancings {
		e := b.Spec.Backend.ServiceEndpoint
		if e == nil {
			continue
		}
		selector, err := metav1.LabelSelectorAsSelector(&e.EndpointSelector)
		if err != nil || selector.Empty() {
			continue // the decision says what is wrong
		}
		key := e.Namespace + "/" + selector.String()
		needed[key] = true
		var pods corev1.PodList
		if err := w.list(key, &corev1.Pod{}, selector, e.Namespace, &pods, wait); err != nil {
			return err
		}
		for _, p := range pointers(pods.Items) {
			if !here[string(p.UID)] {
				here[string(p.UID)] = true
				world.Pods = append(world.Pods, p)
			}
		}
		if e.RedirectMode == v1beta1.HostPort || e.RedirectMode == v1beta1.NodeProxy {
			needed["nodes"] = true
			var nodes corev1.NodeList
			if err := w.list("nodes", &corev1.Node{}, labels.Everything(), "", &nodes, wait); err != nil {
				return err
			}
			world.Nodes = pointers(nodes.Items)
		}
	}
	for key, e := range w.elsewhere {
		if !needed[key] {
			e.stop()
			delete(w.elsewhere, key)
		}
	}
	return nil
}

// list reads one more watch, which it begins if need be. Until that has seen
// everything, it has seen nothing.
func (w *watcher) list(key string, kind client.Object, by labels.Selector, namespace string, into client.ObjectList, wait bool) error {
	e := w.elsewhere[key]
	if e == nil {
		var err error
		if e, err = w.begin(kind, by, namespace); err != nil {
			return err
		}
		w.elsewhere[key] = e
	}
	if wait {
		select {
		case <-e.synced:
		case <-w.ctx.Done():
			return w.ctx.Err()
		}
	}
	select {
	case <-e.synced:
		return e.cache.List(w.ctx, into)
	default:
		return nil
	}
}

func (w *watcher) begin(kind client.Object, by labels.Selector, namespace string) (*elsewhere, error) {
	o := cache.Options{
		Scheme: w.scheme, Mapper: w.mapper, DefaultTransform: cache.TransformStripManagedFields(), DefaultUnsafeDisableDeepCopy: new(true),
		DefaultLabelSelector: by,
	}
	if namespace != "" {
		o.DefaultNamespaces = map[string]cache.Config{namespace: {}}
	}
	c, err := cache.New(w.cfg, o)
	if err != nil {
		return nil, err
	}
	if err := w.watch(c, kind); err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(w.ctx)
	e := &elsewhere{cache: c, stop: stop, synced: make(chan struct{})}
	go func() { _ = c.Start(ctx) }() // it ends only with ctx
	go func() {
		if c.WaitForCacheSync(ctx) {
			close(e.synced)
			w.changed()
		}
	}()
	return e, nil
}

// ownAddresses are those at which this machine offers NodePorts.
func ownAddresses() []netip.Addr {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var out []netip.Addr
	for _, a := range all {
		if p, err := netip.ParsePrefix(a.String()); err == nil && !p.Addr().IsLinkLocalUnicast() {
			out = append(out, p.Addr().Unmap())
		}
	}
	return out
}
