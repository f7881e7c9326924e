package views

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	crcache "sigs.k8s.io/controller-runtime/pkg/cache"
)

// follower is a tenant who follows Deployments, which memory answers, by a client-go
// informer, and ConfigMaps, which the API server does, by a controller-runtime cache.
type follower struct {
	*tenant
	name        string
	deployments informers.SharedInformerFactory
	configMaps  crcache.Cache
}

func follow(t *testing.T, a *tenant, name string) *follower {
	t.Helper()
	cfg := rest.CopyConfig(a.cfg)
	cfg.ContentType, cfg.AcceptContentTypes = "application/vnd.kubernetes.protobuf", "application/vnd.kubernetes.protobuf,application/json"
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	f := &follower{tenant: a, name: name, deployments: informers.NewSharedInformerFactory(client, 0)}
	f.deployments.Apps().V1().Deployments().Informer()
	if f.configMaps, err = crcache.New(cfg, crcache.Options{Scheme: scheme.Scheme}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	f.deployments.StartWithContext(ctx)
	go func() { ended <- f.configMaps.Start(ctx) }()
	t.Cleanup(func() {
		cancel()
		f.deployments.Shutdown()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	if _, err := f.configMaps.GetInformer(ctx, &corev1.ConfigMap{}); err != nil {
		t.Fatal(err)
	}
	f.deployments.WaitForCacheSync(ctx.Done())
	return f
}

// has is what the tenant has assembled, with resourceVersions.
func (f *follower) has(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	deployments, err := f.deployments.Apps().V1().Deployments().Lister().List(labels.Everything())
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range deployments {
		all["deployment "+d.Namespace+"/"+d.Name] = d.ResourceVersion
	}
	var configMaps corev1.ConfigMapList
	if err := f.configMaps.List(t.Context(), &configMaps); err != nil {
		t.Fatal(err)
	}
	for _, c := range configMaps.Items {
		all["configmap "+c.Namespace+"/"+c.Name] = c.ResourceVersion
	}
	return all
}

// due is what there is in namespaces, seen past the proxy.
func due(t *testing.T, c kubernetes.Interface, namespaces ...string) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, ns := range namespaces {
		deployments, err := c.AppsV1().Deployments(ns).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range deployments.Items {
			all["deployment "+d.Namespace+"/"+d.Name] = d.ResourceVersion
		}
		configMaps, err := c.CoreV1().ConfigMaps(ns).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range configMaps.Items {
			all["configmap "+m.Namespace+"/"+m.Name] = m.ResourceVersion
		}
	}
	return all
}

// churn writes the n-th change into each of some namespaces: objects are made,
// changed and deleted, each with a marker of whose they are.
func churn(t *testing.T, c kubernetes.Interface, n int, namespaces ...string) {
	t.Helper()
	for _, ns := range namespaces {
		marker := "OF-" + strings.ToUpper(ns[:4])
		name := fmt.Sprintf("object-%d", n%7)
		configMap := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"n": fmt.Sprint(marker, n)}}
		deployment := &appsv1.Deployment{
			ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{"n": fmt.Sprint(marker, n)}},
			Spec: appsv1.DeploymentSpec{
				Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}},
				Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"a": "b"}}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}},
			},
		}
		_, err := c.CoreV1().ConfigMaps(ns).Create(t.Context(), configMap, metav1.CreateOptions{})
		_, alsoErr := c.AppsV1().Deployments(ns).Create(t.Context(), deployment, metav1.CreateOptions{})
		switch {
		case apierrors.IsAlreadyExists(err) && n%3 == 0:
			err = c.CoreV1().ConfigMaps(ns).Delete(t.Context(), name, metav1.DeleteOptions{})
			alsoErr = c.AppsV1().Deployments(ns).Delete(t.Context(), name, metav1.DeleteOptions{})
		case apierrors.IsAlreadyExists(err):
			_, err = c.CoreV1().ConfigMaps(ns).Update(t.Context(), configMap, metav1.UpdateOptions{})
			_, alsoErr = c.AppsV1().Deployments(ns).Update(t.Context(), deployment, metav1.UpdateOptions{})
		}
		if err != nil || alsoErr != nil {
			t.Fatalf("%v, %v", err, alsoErr)
		}
	}
}

func TestTwoTenantsSeeTheirOwnWorlds(t *testing.T) {
	apply(t, namespace("hugo-1", "of: hugo")+namespace("hugo-2", "of: hugo")+namespace("hugo-3", "")+namespace("ines-1", "of: ines")+namespace("ines-2", "of: ines"))
	direct, err := kubernetes.NewForConfig(world.Config())
	if err != nil {
		t.Fatal(err)
	}
	all := []string{"hugo-1", "hugo-2", "hugo-3", "ines-1", "ines-2"}
	churn(t, direct, 1, all...)
	p := newProxy(t)
	for _, name := range []string{"hugo", "ines"} {
		show(t, "of-"+name, "  subjects: {users: ["+name+"]}\n  namespaces: {selector: {matchLabels: {of: "+name+"}}}\n")
	}
	hugo, ines := follow(t, newTenant(t, p, "hugo"), "hugo"), follow(t, newTenant(t, p, "ines"), "ines")
	for n := 2; n < 60; n++ {
		churn(t, direct, n, all...)
		switch n {
		case 20:
			admin(t, "", "label", "namespace", "hugo-2", "of-")
		case 30:
			admin(t, "", "label", "namespace", "hugo-3", "of=hugo")
		case 40:
			admin(t, "", "label", "namespace", "ines-2", "of-")
		case 50:
			admin(t, "", "label", "namespace", "ines-2", "of=ines")
		}
	}
	for f, namespaces := range map[*follower][]string{hugo: {"hugo-1", "hugo-3"}, ines: {"ines-1", "ines-2"}} {
		want := due(t, direct, namespaces...)
		until(t, f.name+" has all that there is for him", func() bool { return maps.Equal(f.has(t), want) })
		out := must(t, p.Kubeconfig(world.Token(f.name)), "", "get", "namespaces,configmaps,deployments", "--all-namespaces", "-o", "name")
		if !strings.Contains(out, "configmap/object-") || strings.Contains(out, "namespace/default") {
			t.Errorf("%s sees\n%s", f.name, out)
		}
	}
	hugo.neverSaw(t, "OF-INES", "ines-")
	ines.neverSaw(t, "OF-HUGO", "hugo-")
}
