// Package e2e runs the whole thing against a real API server.
package e2e

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/portico-proxy/portico/test/controlplane"
	"github.com/portico-proxy/portico/test/proxy"
)

func TestClientsListThroughTheProxy(t *testing.T) {
	cp := controlplane.New(t, controlplane.Options{})
	p := proxy.New(t, proxy.Options{Kubeconfig: cp.KubeconfigPath()})
	client := kubernetes.NewForConfigOrDie(p.Config(cp.Token("admin")))
	if _, err := client.CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Error(err)
	}
}
