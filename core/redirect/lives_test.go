package redirect

import (
	"net/netip"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/portico-proxy/portico/crds/balancing/v1beta1"
)

func TestWhoMayStillBeThereLives(t *testing.T) {
	pod := func(ip string, phase corev1.PodPhase) *corev1.Pod {
		return &corev1.Pod{Status: corev1.PodStatus{Phase: phase, PodIP: ip}}
	}
	w := World{
		EndpointSlices: []*discoveryv1.EndpointSlice{{
			AddressType: discoveryv1.AddressTypeIPv4,
			Ports:       []discoveryv1.EndpointPort{{Port: new(int32(53)), Protocol: new(corev1.ProtocolUDP)}},
			Endpoints: []discoveryv1.Endpoint{{
				Addresses: []string{"10.0.0.1"}, Conditions: discoveryv1.EndpointConditions{Ready: new(false), Serving: new(false)},
			}},
		}},
		Pods: []*corev1.Pod{pod("10.0.0.2", corev1.PodRunning), pod("10.0.0.3", corev1.PodFailed)},
		Balancings: []*v1beta1.BalancingPolicy{{Spec: v1beta1.BalancingSpec{Backend: v1beta1.BalancingBackend{
			AddressEndpoint: &v1beta1.AddressEndpoint{Addresses: []string{"10.0.0.4"}},
		}}}},
	}
	all, want := map[Target]bool{}, map[Target]bool{}
	for ip, lives := range map[string]bool{"10.0.0.1": true, "10.0.0.2": true, "10.0.0.3": false, "10.0.0.4": true, "10.0.0.5": false} {
		b := Target{netip.MustParseAddrPort(ip + ":53"), corev1.ProtocolUDP}
		if all[b] = true; lives {
			want[b] = true
		}
	}
	if diff := gocmp.Diff(want, Lives(w, all), gocmp.Comparer(func(a, b Target) bool { return a == b })); diff != "" {
		t.Errorf("who lives differs (-want +got):\n%s", diff)
	}
}

func TestAPolicyThatIsGoneSaysNothing(t *testing.T) {
	p := &v1beta1.BalancingPolicy{ObjectMeta: metav1.ObjectMeta{Name: "p"}}
	d := Decision{Policies: []PolicyResult{{Policy: p, Kind: "BalancingPolicy", Holds: true}}}
	for owner, want := range map[string]bool{"BalancingPolicy p:80": true, "BalancingPolicy pp:80": false, "LocalRedirectPolicy p:80": false, "Service x/y:80": false} {
		if got := d.Holds(World{}, owner); got != want {
			t.Errorf("%s holds: %t, want %t", owner, got, want)
		}
	}
	if !d.Holds(World{ResolveServices: true}, "Service x/y:80") {
		t.Error("Services are resolved, and theirs do not count")
	}
}
