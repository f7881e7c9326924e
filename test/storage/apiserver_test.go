package storage

import (
	"context"
	"errors"
	"net/http/httptest"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/emicklei/go-restful/v3"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apimachinery/pkg/util/sets"
	kwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/apis/example"
	"k8s.io/apiserver/pkg/endpoints"
	"k8s.io/apiserver/pkg/endpoints/filters"
	"k8s.io/apiserver/pkg/endpoints/request"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/cacher"
	"k8s.io/apiserver/pkg/storage/etcd3"
	"k8s.io/apiserver/pkg/storage/value/encrypt/identity"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"

	"go.etcd.io/etcd/client/v3/kubernetes"
)

// prefix is where the suite keeps its objects.
const prefix = "/pods"

// apiServer serves the suite's objects as pods, by the code that kube-apiserver
// serves them by: handlers, registry, watch cache, etcd.
type apiServer struct {
	t          *testing.T
	namespaced bool
	etcd       *kubernetes.Client
	raw        storage.Interface // etcd alone
	server     *httptest.Server
	life       atomic.Pointer[life]
}

// life is what an API server loses with its process.
type life struct {
	registry *genericregistry.Store
	cached   *cacher.CacheDelegator
	end      func()
}

func newAPIServer(t *testing.T, namespaced bool) *apiServer {
	t.Helper()
	a := &apiServer{t: t, namespaced: namespaced, etcd: newEtcd(t)}
	compactor := etcd3.NewCompactor(a.etcd.Client, 0, clock.RealClock{}, nil)
	t.Cleanup(compactor.Stop)
	store, err := etcd3.New(a.etcd, compactor, storageCodec, newPod, newPodList, "/registry", prefix+"/", schema.GroupResource{Resource: "pods"},
		identity.NewEncryptCheckTransformer(), etcd3.NewDefaultLeaseManagerConfig(), etcd3.NewDefaultDecoder(storageCodec, storage.APIObjectVersioner{}), storage.APIObjectVersioner{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	a.raw = reusable{store}
	a.live()
	t.Cleanup(func() { a.life.Load().end() })
	a.serve()
	return a
}

// reusable is a storage that several watch caches can be put on, one after another.
type reusable struct{ storage.Interface }

func (reusable) EnableResourceSizeEstimation(storage.KeysFunc) error { return nil }

func newPod() runtime.Object     { return &example.Pod{} }
func newPodList() runtime.Object { return &example.PodList{} }

// live begins a life.
func (a *apiServer) live() {
	indexers := cache.Indexers{
		"f:spec.nodeName":      func(o any) ([]string, error) { return []string{o.(*example.Pod).Spec.NodeName}, nil },
		"f:metadata.namespace": func(o any) ([]string, error) { return []string{o.(*example.Pod).Namespace}, nil },
	}
	c, err := cacher.NewCacherFromConfig(cacher.Config{
		Storage: a.raw, Versioner: storage.APIObjectVersioner{}, Codec: storageCodec, Clock: eagerClock{},
		GroupResource: schema.GroupResource{Resource: "pods"}, EventsHistoryWindow: cacher.DefaultEventFreshDuration,
		ResourcePrefix: prefix + "/", KeyFunc: a.keyOf, NewFunc: newPod, NewListFunc: newPodList, GetAttrsFunc: attributes,
		IndexerFuncs: storage.IndexerFuncs{"spec.nodeName": func(o runtime.Object) string { return o.(*example.Pod).Spec.NodeName }}, Indexers: &indexers,
	})
	if err != nil {
		a.t.Fatal(err)
	}
	if err := c.Wait(a.t.Context()); err != nil {
		a.t.Fatal(err)
	}
	l := &life{cached: cacher.NewCacheDelegator(c, a.raw)}
	l.end = func() { l.cached.Stop(); c.Stop() }
	l.registry = &genericregistry.Store{
		NewFunc: newPod, NewListFunc: newPodList, DefaultQualifiedResource: schema.GroupResource{Resource: "pods"},
		PredicateFunc: predicate, KeyRootFunc: a.root, KeyFunc: a.key, Storage: genericregistry.DryRunnableStorage{Storage: l.cached, Codec: storageCodec},
	}
	a.life.Store(l)
}

// restart makes the API server forget what it had in memory.
func (a *apiServer) restart() {
	a.life.Load().end()
	a.live()
}

// eagerClock lets a watch cache see at once what etcd has compacted, and not
// after the quarter of a minute that it usually takes.
type eagerClock struct{ clock.RealClock }

// compactionPoll is k8s.io/apiserver/pkg/storage/cacher's compactorPollPeriod.
// No other timer there has this length.
const compactionPoll = 15 * time.Second

func (c eagerClock) NewTimer(d time.Duration) clock.Timer {
	if d != compactionPoll {
		return c.RealClock.NewTimer(d)
	}
	return eagerTimer{c.RealClock.NewTimer(0)}
}

type eagerTimer struct{ clock.Timer }

func (t eagerTimer) Reset(time.Duration) bool { return t.Timer.Reset(20 * time.Millisecond) }

// keyOf, root and key are the keys that a registry gives its objects.
func (a *apiServer) keyOf(o runtime.Object) (string, error) {
	if a.namespaced {
		return storage.NamespaceKeyFunc(prefix+"/", o)
	}
	return storage.NoNamespaceKeyFunc(prefix+"/", o)
}

func (a *apiServer) root(ctx context.Context) string {
	if a.namespaced {
		return genericregistry.NamespaceKeyRootFunc(ctx, prefix)
	}
	return prefix
}

func (a *apiServer) key(ctx context.Context, name string) (string, error) {
	if a.namespaced {
		return genericregistry.NamespaceKeyFunc(ctx, prefix, name)
	}
	return genericregistry.NoNamespaceKeyFunc(ctx, prefix, name)
}

func predicate(l labels.Selector, f fields.Selector) storage.SelectionPredicate {
	return storage.SelectionPredicate{Label: l, Field: f, GetAttrs: attributes, IndexFields: []string{"spec.nodeName", "metadata.namespace"}}
}

// attributes are what objects can be selected by.
func attributes(o runtime.Object) (labels.Set, fields.Set, error) {
	pod, ok := o.(*example.Pod)
	if !ok {
		return nil, nil, errors.New("not a pod")
	}
	return pod.Labels, fields.Set{
		"metadata.name": pod.Name, "metadata.namespace": pod.Namespace,
		"spec.nodeName": pod.Spec.NodeName, "spec.restartPolicy": string(pod.Spec.RestartPolicy), "status.phase": string(pod.Status.Phase),
	}, nil
}

// serve puts the registry behind HTTP, with discovery.
func (a *apiServer) serve() {
	container := restful.NewContainer()
	container.Router(restful.CurlyRouter{})
	group := endpoints.APIGroupVersion{
		Storage: map[string]rest.Storage{"pods": pods{a}}, Root: "/api", GroupVersion: groupVersion,
		Serializer: codecs, ParameterCodec: runtime.NewParameterCodec(scheme),
		Typer: scheme, Convertor: scheme, ConvertabilityChecker: scheme, Defaulter: scheme,
		Creater:         scheme, //nolint:misspell // it is called so
		UnsafeConvertor: runtime.UnsafeObjectConvertor(scheme), Namer: runtime.Namer(meta.NewAccessor()),
		TypeConverter: managedfields.NewDeducedTypeConverter(), EquivalentResourceRegistry: runtime.NewEquivalentResourceRegistry(),
		MinRequestTimeout: 1800 * time.Second,
	}
	if _, _, err := group.InstallREST(container); err != nil {
		a.t.Fatal(err)
	}
	resolver := &request.RequestInfoFactory{APIPrefixes: sets.NewString("api", "apis"), GrouplessAPIPrefixes: sets.NewString("api")}
	a.server = httptest.NewUnstartedServer(filters.WithRequestReceivedTimestamp(filters.WithRequestInfo(container, resolver)))
	a.server.EnableHTTP2 = true
	a.server.StartTLS()
	a.t.Cleanup(func() {
		a.server.CloseClientConnections()
		a.server.Close()
	})
}

// compact makes etcd forget everything before rv and waits until the API server
// has noticed.
func (a *apiServer) compact(ctx context.Context, t *testing.T, rv string) {
	t.Helper()
	n, err := storage.APIObjectVersioner{}.ParseResourceVersion(rv)
	if err != nil {
		t.Fatal(err)
	}
	version, _, done, err := etcd3.Compact(ctx, a.etcd.Client, 0, int64(n))
	if err == nil && done != int64(n) { // it had been compacted before: now we know how often
		_, _, _, err = etcd3.Compact(ctx, a.etcd.Client, version, int64(n))
	}
	if err != nil {
		t.Fatal(err)
	}
	before := storage.ListOptions{
		ResourceVersion: strconv.FormatUint(n-1, 10), ResourceVersionMatch: metav1.ResourceVersionMatchExact,
		Predicate: storage.Everything, Recursive: true,
	}
	until(t, func() error {
		if a.raw.CompactRevision() != int64(n) {
			return errors.New("the compaction has not been noticed")
		}
		if err := a.life.Load().cached.GetList(ctx, prefix+"/", before, &example.PodList{}); !apierrors.IsResourceExpired(err) {
			return errors.New("the compaction has had no effect")
		}
		return nil
	})
}

// pods is the part of the registry that reads.
type pods struct{ *apiServer }

func (p pods) New() runtime.Object         { return newPod() }
func (p pods) NewList() runtime.Object     { return newPodList() }
func (p pods) Destroy()                    {}
func (p pods) NamespaceScoped() bool       { return p.namespaced }
func (p pods) GetSingularName() string     { return "pod" }
func (p pods) now() *genericregistry.Store { return p.life.Load().registry }

func (p pods) Get(ctx context.Context, name string, o *metav1.GetOptions) (runtime.Object, error) {
	return p.now().Get(ctx, name, o)
}

func (p pods) List(ctx context.Context, o *internalversion.ListOptions) (runtime.Object, error) {
	return p.now().List(ctx, o)
}

func (p pods) Watch(ctx context.Context, o *internalversion.ListOptions) (kwatch.Interface, error) {
	return p.now().Watch(ctx, o)
}

func (p pods) ConvertToTable(ctx context.Context, o, options runtime.Object) (*metav1.Table, error) {
	return rest.NewDefaultTableConvertor(schema.GroupResource{Resource: "pods"}).ConvertToTable(ctx, o, options)
}

var (
	_ rest.Getter               = pods{}
	_ rest.Lister               = pods{}
	_ rest.Watcher              = pods{}
	_ rest.Scoper               = pods{}
	_ rest.SingularNameProvider = pods{}
)
