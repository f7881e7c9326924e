package replicas

import (
	"context"
	"net/http"
	"testing"

	"github.com/go-logr/logr"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/portico-proxy/portico/test/authority"
	"github.com/portico-proxy/portico/test/controlplane"
)

// TestServiceSaysWhoIsThere follows the EndpointSlices of a Service. Its addresses
// are nobody's.
func TestServiceSaysWhoIsThere(t *testing.T) {
	plane := controlplane.New(t, controlplane.Options{})
	client := kubernetes.NewForConfigOrDie(plane.Config())
	a := authority.New(t)
	d := &Discovery{Client: client, Namespace: "default", Service: "portico"}
	cert, key := a.Pair(d.ServerName())
	r, err := New(Options{
		Address: "192.0.2.1:6444", Listen: freeAddress(t), Log: logr.Discard(), Lease: ours,
		Identity: Identity{CertFile: cert, KeyFile: key, CAFile: a.File, ServerName: d.ServerName()},
	})
	if err != nil {
		t.Fatal(err)
	}
	d.Replicas = r
	r.Keep(&book{})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- r.Start(ctx) }()
	go func() { ended <- d.Start(ctx) }()
	defer func() {
		cancel()
		for range 2 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	}()
	// Before anybody is there, one is in touch with all there are.
	until(t, "a proxy to be alone", func() bool { _, ok := r.Touch(); return ok })

	slices := client.DiscoveryV1().EndpointSlices("default")
	no := false
	s := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: "portico-a", Labels: map[string]string{discoveryv1.LabelServiceName: "portico"}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints: []discoveryv1.Endpoint{
			{Addresses: []string{"192.0.2.1"}},
			{Addresses: []string{"192.0.2.2"}, Conditions: discoveryv1.EndpointConditions{Ready: &no}},
		},
	}
	if _, err := slices.Create(t.Context(), s, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	others := s.DeepCopy()
	others.Name, others.AddressType = "portico-6", discoveryv1.AddressTypeIPv6
	others.Endpoints = []discoveryv1.Endpoint{{Addresses: []string{"2001:db8::1"}}}
	if _, err := slices.Create(t.Context(), others, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	until(t, "a replica to be missed", func() bool { _, ok := r.Touch(); return !ok && r.Figures().Peers == 1 })
	if err := slices.Delete(t.Context(), s.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	until(t, "a replica to be listed no more", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		p := r.peers["192.0.2.2:6444"]
		return p == nil || !p.listed
	})
	if err := r.Ready(&http.Request{}); err != nil {
		t.Error(err)
	}
}
