package controlplane

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

func TestStartServes(t *testing.T) {
	cp := New(t, Options{})
	client := kubernetes.NewForConfigOrDie(cp.Config())
	ns, err := client.CoreV1().Namespaces().Get(t.Context(), "kube-system", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Log(ns.Name)
}
