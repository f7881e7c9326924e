package nodes

import (
	"context"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"

	"github.com/portico-proxy/portico/test/controlplane"
	"github.com/portico-proxy/portico/test/proxy"
)

// watched opens watches of Secrets, which are not in memory, and of pods.
func watched(t *testing.T, p *proxy.Proxy, cred controlplane.Credential) map[string]watch.Interface {
	t.Helper()
	c, err := kubernetes.NewForConfig(p.Config(cred))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]watch.Interface{}
	for resource, follow := range map[string]func(context.Context, metav1.ListOptions) (watch.Interface, error){
		"secrets": c.CoreV1().Secrets("").Watch, "pods": c.CoreV1().Pods("").Watch,
	} {
		w, err := follow(t.Context(), metav1.ListOptions{ResourceVersion: newest(t)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(w.Stop)
		all[resource] = w
	}
	return all
}

// expire fails unless all end with 410.
func expire(t *testing.T, who string, all map[string]watch.Interface) {
	t.Helper()
	for resource, w := range all {
		var last watch.Event
		for event := range w.ResultChan() {
			last = event
		}
		if last.Type != watch.Error || !apierrors.IsResourceExpired(apierrors.FromObject(last.Object)) {
			t.Errorf("%s's watch of %s ended with %+v", who, resource, last)
		}
	}
}

// TestWatchesFromBeforeThePolicyEnd has nodes watch before there is a policy, one that it
// means and one that it means later.
func TestWatchesFromBeforeThePolicyEnd(t *testing.T) {
	p := start(t)
	pods, kubelet, others := watched(t, p, tokenOf(t, "web")), watched(t, p, kubeletOf(t, edge)), watched(t, p, tokenOf(t, "vault"))
	apply(t, byLabel)
	expire(t, "a pod", pods)
	expire(t, "a kubelet", kubelet)
	must(t, "", "annotate", "--overwrite", "--namespace="+home, "secret/stray", "pod/web", "seen=by-others")
	for resource, w := range others {
		if event, on := <-w.ResultChan(); !on || event.Type != watch.Modified {
			t.Errorf("of another node: %s ended with %+v", resource, event)
		}
	}
	must(t, "", "label", "--overwrite", "node", vault, "trust=low")
	t.Cleanup(func() { must(t, "", "label", "node", vault, "trust-") })
	expire(t, "another node's pod", others)
}
