package noderestriction

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
)

const (
	// patience is how long a request waits until a node and its pods are known, and
	// refreshEvery how often at most the pods of a node are asked for because
	// something is asked for that none needs.
	patience     = 3 * time.Second
	refreshEvery = time.Second
)

// A node is one that callers belong to. Its labels are followed for as long as it
// is asked about, and its pods if a policy means it.
type node struct {
	name   string
	client kubernetes.Interface
	news   func() // what callers of the node may do may have changed
	run    func(func(ctx context.Context))
	end    context.CancelFunc

	known chan struct{} // closed once its labels are, be it that there is no such node
	// labels are nil while there is no such node.
	labels atomic.Pointer[labels.Set]
	pods   *graph
	loaded chan struct{} // closed once its pods are known
	used   atomic.Int64  // when a request asked last, Unix nanoseconds

	onceKnown, onceLoaded, onceFollowed sync.Once

	mu      sync.Mutex // guards following
	failure error      // why it cannot be followed, the last time

	refreshing chan struct{} // held while pods are read anew, by having taken its one element
	tried      time.Time     // when that began the last time; of who holds it
	refreshed  time.Time     // when that began which succeeded last; of who holds it
}

func newNode(name string, client kubernetes.Interface, news func()) *node {
	n := &node{name: name, client: client, news: news, pods: newGraph(), known: make(chan struct{}), loaded: make(chan struct{}), refreshing: make(chan struct{}, 1)}
	n.refreshing <- struct{}{}
	return n
}

// followSelf keeps the labels true.
func (n *node) followSelf(ctx context.Context) {
	one := fields.OneTermEqualSelector(metav1.ObjectNameField, n.name).String()
	nodes := n.client.CoreV1().Nodes()
	n.reflect(ctx, &corev1.Node{}, nodeStore{n}, &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.FieldSelector = one
			return note(n, "nodes", func() (*corev1.NodeList, error) { return nodes.List(ctx, o) })
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.FieldSelector = one
			return note(n, "nodes", func() (watch.Interface, error) { return nodes.Watch(ctx, o) })
		},
	})
}

// own selects the node's pods.
func (n *node) own() string { return fields.OneTermEqualSelector(nodeNameField, n.name).String() }

// followPods keeps the pods true.
func (n *node) followPods(ctx context.Context) {
	pods := n.client.CoreV1().Pods(metav1.NamespaceAll)
	n.reflect(ctx, &corev1.Pod{}, podStore{n}, &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.FieldSelector = n.own()
			return note(n, "pods", func() (*corev1.PodList, error) { return pods.List(ctx, o) })
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.FieldSelector = n.own()
			return note(n, "pods", func() (watch.Interface, error) { return pods.Watch(ctx, o) })
		},
	})
}

// reflect keeps a store true until ctx ends. What goes wrong is told to whoever
// waits, and not to the log each time.
func (n *node) reflect(ctx context.Context, kind any, store cache.ReflectorStore, from *cache.ListWatch) {
	cache.NewReflectorWithOptions(from, kind, store, cache.ReflectorOptions{}).RunWithContext(klog.NewContext(ctx, logr.Discard()))
}

// note remembers why something could not be read.
func note[T any](n *node, resource string, read func() (T, error)) (T, error) {
	got, err := read()
	if err != nil {
		n.mu.Lock()
		n.failure = fmt.Errorf("the proxy cannot read its %s: %w", resource, err)
		n.mu.Unlock()
	}
	return got, err
}

// await waits until done is closed.
func (n *node) await(ctx context.Context, done <-chan struct{}) error {
	select {
	case <-done:
		return nil
	default:
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.failure != nil {
		return unavailable(fmt.Sprintf("node %s is not known: %v", n.name, n.failure))
	}
	return unavailable(fmt.Sprintf("node %s is not known yet", n.name))
}

// refresh reads the node's pods anew, as they are now or later: the caller may
// know of one that the watch has not told of yet. Many callers share it.
func (n *node) refresh(ctx context.Context) error {
	asked := time.Now()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	select {
	case <-n.refreshing:
	case <-ctx.Done():
		return unavailable("too much is asked for that no pod of this node needs")
	}
	defer func() { n.refreshing <- struct{}{} }()
	if n.refreshed.After(asked) {
		return nil
	}
	select {
	case <-time.After(time.Until(n.tried.Add(refreshEvery))):
	case <-ctx.Done():
		return unavailable("too much is asked for that no pod of this node needs")
	}
	n.tried = time.Now()
	list, err := n.client.CoreV1().Pods(metav1.NamespaceAll).List(ctx, metav1.ListOptions{FieldSelector: n.own()})
	if err != nil {
		return unavailable("the pods of this node cannot be read")
	}
	n.refreshed = n.tried
	changed := false
	for i := range list.Items {
		changed = n.pods.putBeside(&list.Items[i]) || changed
	}
	if changed {
		n.news()
	}
	return nil
}

// isHere reports whether a pod that the node is not known to have is its own, and
// whether there is such a pod at all.
func (n *node) isHere(ctx context.Context, namespace, name string) (here, exists bool, err error) {
	p, err := n.client.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return false, false, nil
	case err != nil:
		return false, false, unavailable("the pods of this node cannot be read")
	case p.Spec.NodeName != n.name:
		return false, true, nil
	}
	if n.pods.putBeside(p) {
		n.news()
	}
	return true, true, nil
}

// nodeStore is told of the Node.
type nodeStore struct{ *node }

func (s nodeStore) set(l *labels.Set) error {
	was := s.labels.Swap(l)
	s.onceKnown.Do(func() { close(s.known) })
	if was == nil || l == nil || !maps.Equal(*was, *l) {
		s.news()
	}
	return nil
}

func (s nodeStore) Add(o any) error {
	l := labels.Set(maps.Clone(o.(*corev1.Node).Labels))
	return s.set(&l)
}

func (s nodeStore) Update(o any) error { return s.Add(o) }
func (s nodeStore) Delete(any) error   { return s.set(nil) }
func (s nodeStore) Resync() error      { return nil }

func (s nodeStore) Replace(all []any, _ string) error {
	if len(all) == 0 {
		return s.set(nil)
	}
	return s.Add(all[0])
}

// podStore is told of the node's pods.
type podStore struct{ *node }

func (s podStore) Add(o any) error {
	if s.pods.put(o.(*corev1.Pod)) {
		s.news()
	}
	return nil
}

func (s podStore) Update(o any) error { return s.Add(o) }

func (s podStore) Delete(o any) error {
	s.pods.remove(o.(*corev1.Pod))
	s.news()
	return nil
}

func (s podStore) Replace(all []any, version string) error {
	pods := make([]*corev1.Pod, len(all))
	for i := range all {
		pods[i] = all[i].(*corev1.Pod)
	}
	s.pods.replace(pods, versionOf(version))
	s.onceLoaded.Do(func() { close(s.loaded) })
	s.news()
	return nil
}

func (s podStore) Resync() error { return nil }

// unavailable is a refusal that clients try again after a second.
func unavailable(message string) error {
	err := apierrors.NewServiceUnavailable(message)
	err.ErrStatus.Details = &metav1.StatusDetails{RetryAfterSeconds: 1}
	return err
}
