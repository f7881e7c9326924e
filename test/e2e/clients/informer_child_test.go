package clients

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	corev1 "k8s.io/api/core/v1"
)

// informerEnv holds, in JSON, the informerJob of a process that this test
// binary then is: client-go reads its feature gates once per process.
const informerEnv = "CLIENTS_TEST_INFORMER"

// An informerJob says which ConfigMaps to follow. It is over when there is one
// of the name last.
type informerJob struct {
	Host, Token string
	CA          []byte
	Namespace   string
	Last        string
}

// An informerReport is what a process has at its end.
type informerReport struct {
	// Stores are the resourceVersions by name, by kind of informer.
	Stores map[string]map[string]string
	// Streamed tells whether a list was asked for and granted as a watch.
	Streamed bool
}

func informerMain() int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	var job informerJob
	if err := json.Unmarshal([]byte(os.Getenv(informerEnv)), &job); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	report, err := job.run(ctx)
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(report)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// synced is printed to stdout once all informers are.
const synced = "synced"

func (j informerJob) run(ctx context.Context) (*informerReport, error) {
	var streamed atomic.Bool
	config := &rest.Config{
		Host: j.Host, BearerToken: j.Token, QPS: -1, TLSClientConfig: rest.TLSClientConfig{CAData: j.CA},
		WrapTransport: func(rt http.RoundTripper) http.RoundTripper { return &recorder{next: rt, streamed: &streamed} },
	}
	all, err := j.informers(config)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for _, informer := range all {
		go informer.RunWithContext(ctx)
	}
	for _, informer := range all {
		if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
			return nil, ctx.Err()
		}
	}
	fmt.Println(synced)
	report := &informerReport{Stores: map[string]map[string]string{}}
	for name, informer := range all {
		if err := j.awaitLast(ctx, informer); err != nil {
			return nil, err
		}
		if report.Stores[name], err = versions(informer.GetStore().List()); err != nil {
			return nil, err
		}
	}
	report.Streamed = streamed.Load()
	return report, nil
}

// informers are one of each kind that client-go has. The typed one speaks
// protobuf, the others JSON.
func (j informerJob) informers(config *rest.Config) (map[string]cache.SharedIndexInformer, error) {
	binary := rest.CopyConfig(config)
	binary.ContentType, binary.AcceptContentTypes = runtime.ContentTypeProtobuf, runtime.ContentTypeProtobuf+","+runtime.ContentTypeJSON
	typed, err := kubernetes.NewForConfig(binary)
	if err != nil {
		return nil, err
	}
	untyped, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	partial, err := metadata.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	resource := corev1.SchemeGroupVersion.WithResource("configmaps")
	labelled := func(o *metav1.ListOptions) { o.LabelSelector = "half" }
	return map[string]cache.SharedIndexInformer{
		"typed": informers.NewSharedInformerFactoryWithOptions(typed, 0, informers.WithNamespace(j.Namespace)).Core().V1().ConfigMaps().Informer(),
		"half": informers.NewSharedInformerFactoryWithOptions(typed, 0, informers.WithNamespace(j.Namespace),
			informers.WithTweakListOptions(labelled)).Core().V1().ConfigMaps().Informer(),
		"dynamic":  dynamicinformer.NewFilteredDynamicSharedInformerFactory(untyped, 0, j.Namespace, nil).ForResource(resource).Informer(),
		"metadata": metadatainformer.NewFilteredSharedInformerFactory(partial, 0, j.Namespace, nil).ForResource(resource).Informer(),
	}, nil
}

// awaitLast returns when an informer knows of the last object, and so of all
// that happened before.
func (j informerJob) awaitLast(ctx context.Context, informer cache.SharedIndexInformer) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, exists, err := informer.GetStore().GetByKey(j.Namespace + "/" + j.Last); exists || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// versions returns the resourceVersions of objects by name.
func versions(objects []any) (map[string]string, error) {
	byName := map[string]string{}
	for _, object := range objects {
		o, err := meta.Accessor(object)
		if err != nil {
			return nil, err
		}
		byName[o.GetName()] = o.GetResourceVersion()
	}
	return byName, nil
}

// recorder notes whether lists are watches.
type recorder struct {
	next     http.RoundTripper
	streamed *atomic.Bool
}

func (r *recorder) RoundTrip(req *http.Request) (*http.Response, error) {
	res, err := r.next.RoundTrip(req)
	if err == nil && res.StatusCode == http.StatusOK && req.URL.Query().Get("sendInitialEvents") == "true" {
		r.streamed.Store(true)
	}
	return res, err
}
