package clients

import (
	"context"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// TestManagersHandOver runs two managers of controller-runtime through the
// proxy. The one that leads does the work; when it ends, the other does.
func TestManagersHandOver(t *testing.T) {
	for name, flags := range ways(t) {
		t.Run(name, func(t *testing.T) {
			ns := addNamespace(t)
			api := clientset(t, world.Config())
			p := newProxy(t, flags...)
			config := through(p)
			first := startManager(t, config, ns, "first")
			<-first.elected
			second := startManager(t, config, ns, "second")

			order(t, api, ns, "before")
			awaitServed(t, api, ns, "before", "first")
			first.end(t)
			<-second.elected
			order(t, api, ns, "after")
			awaitServed(t, api, ns, "after", "second")
			second.end(t)
			expectMemory(t, p, name)
		})
	}
}

// runningManager is a manager with one controller.
type runningManager struct {
	elected <-chan struct{}
	stop    context.CancelFunc
	ended   chan error
}

func startManager(t *testing.T, cfg *rest.Config, ns, name string) *runningManager {
	t.Helper()
	lease, renew, retry := 15*time.Second, 10*time.Second, 100*time.Millisecond
	m, err := ctrl.NewManager(cfg, ctrl.Options{
		Logger:                        logr.Discard(),
		Cache:                         cache.Options{DefaultNamespaces: map[string]cache.Config{ns: {}}},
		Metrics:                       metricsserver.Options{BindAddress: "0"},
		Controller:                    config.Controller{SkipNameValidation: new(true)},
		LeaderElection:                true,
		LeaderElectionID:              "waiters",
		LeaderElectionNamespace:       ns,
		LeaderElectionReleaseOnCancel: true,
		LeaseDuration:                 &lease, RenewDeadline: &renew, RetryPeriod: &retry,
	})
	if err != nil {
		t.Fatal(err)
	}
	err = builder.ControllerManagedBy(m).Named("waiter").For(&corev1.ConfigMap{}).Owns(&corev1.Secret{}).
		Complete(&waiter{Client: m.GetClient(), name: name})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	r := &runningManager{elected: m.Elected(), stop: stop, ended: make(chan error, 1)}
	go func() { r.ended <- m.Start(ctx) }()
	t.Cleanup(stop)
	return r
}

func (r *runningManager) end(t *testing.T) {
	t.Helper()
	r.stop()
	if err := <-r.ended; err != nil {
		t.Errorf("the manager ended with %v", err)
	}
}

// waiter serves orders: for each ConfigMap labelled order it makes a Secret, and
// then says so in the ConfigMap.
type waiter struct {
	client.Client
	name string
}

func (w *waiter) Reconcile(ctx context.Context, r reconcile.Request) (reconcile.Result, error) {
	order := &corev1.ConfigMap{}
	if err := w.Get(ctx, r.NamespacedName, order); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if order.Labels["order"] == "" || order.Data["served-by"] != "" {
		return reconcile.Result{}, nil
	}
	meal := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: order.Name, Namespace: order.Namespace}}
	_, err := controllerutil.CreateOrUpdate(ctx, w.Client, meal, func() error {
		meal.StringData = map[string]string{"by": w.name}
		return controllerutil.SetControllerReference(order, meal, w.Scheme())
	})
	if err != nil {
		return reconcile.Result{}, err
	}
	order.Data = map[string]string{"served-by": w.name}
	return reconcile.Result{}, w.Update(ctx, order)
}

func order(t *testing.T, api kubernetes.Interface, ns, name string) {
	t.Helper()
	object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"order": "1"}}}
	if _, err := api.CoreV1().ConfigMaps(ns).Create(t.Context(), object, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func awaitServed(t *testing.T, api kubernetes.Interface, ns, name, by string) {
	t.Helper()
	eventually(t, name+" to be served", func(ctx context.Context) bool {
		order, err := api.CoreV1().ConfigMaps(ns).Get(ctx, name, metav1.GetOptions{})
		return err == nil && order.Data["served-by"] != ""
	})
	order, err := api.CoreV1().ConfigMaps(ns).Get(t.Context(), name, metav1.GetOptions{})
	if err != nil || order.Data["served-by"] != by {
		t.Errorf("%s was served by %q, %v, want %q", name, order.Data["served-by"], err, by)
	}
	if _, err := api.CoreV1().Secrets(ns).Get(t.Context(), name, metav1.GetOptions{}); err != nil {
		t.Errorf("what %s ordered: %v", name, err)
	}
}

var _ reconcile.Reconciler = (*waiter)(nil)
