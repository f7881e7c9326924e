package redirect

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// tenThousand is a world of 10000 Services with 10 endpoints each.
func tenThousand() World {
	w := World{Node: Node{Name: "n1"}, ResolveServices: true}
	for i := range 10000 {
		name := fmt.Sprint("s", i)
		ip := fmt.Sprintf("10.96.%d.%d", i/250, i%250+1)
		w.Services = append(w.Services, &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name},
			Spec: corev1.ServiceSpec{ClusterIP: ip, ClusterIPs: []string{ip}, Ports: []corev1.ServicePort{
				{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP},
			}},
		})
		slice := &discoveryv1.EndpointSlice{
			ObjectMeta:  metav1.ObjectMeta{Namespace: "shop", Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: name}},
			AddressType: discoveryv1.AddressTypeIPv4,
			Ports:       []discoveryv1.EndpointPort{{Name: new("http"), Port: new(int32(8080)), Protocol: new(corev1.ProtocolTCP)}},
		}
		for e := range 10 {
			slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{Addresses: []string{fmt.Sprintf("10.%d.%d.%d", 128+e, i/250, i%250+1)}})
		}
		w.EndpointSlices = append(w.EndpointSlices, slice)
	}
	return w
}

func BenchmarkDecide(b *testing.B) {
	w := tenThousand()
	for b.Loop() {
		if d := Decide(w); len(d.Table) != 10000 {
			b.Fatalf("the table has %d frontends", len(d.Table))
		}
	}
}

// BenchmarkOneEndpoint measures what one endpoint's change costs where
// [BenchmarkDecide] has decided before.
func BenchmarkOneEndpoint(b *testing.B) {
	w := tenThousand()
	var d Decider
	d.Decide(w)
	for i := 0; b.Loop(); i++ {
		changed := w.EndpointSlices[i%len(w.EndpointSlices)].DeepCopy()
		changed.Endpoints[0].Addresses[0] = "10.200.0.1"
		if t := d.Endpoints(ServiceOf(changed), []*discoveryv1.EndpointSlice{changed}); len(t) > 1 {
			b.Fatalf("%d destinations have changed", len(t))
		}
	}
}
