package view

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/portico-proxy/portico/core/view"
	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
)

// TestEventsTellNothingOfWhatDoesNotExistWhateverItIsCalled has Events about objects
// whose resources are not called as their kinds suggest.
func TestEventsTellNothingOfWhatDoesNotExistWhateverItIsCalled(t *testing.T) {
	const gateways, apps, secrets = "gateway.networking.k8s.io", "apps", "core"
	hiding := map[string]v1alpha1.ViewResource{
		gateways: {Group: gateways, Resource: "gateways"}, apps: {Group: "apps", Resource: "*"}, secrets: {Resource: "secrets"},
	}
	for _, tt := range []struct {
		hidden, about string
		exists        bool
	}{
		{gateways, `{"apiVersion":"gateway.networking.k8s.io/v1","kind":"Gateway","namespace":"n","name":"a"}`, false},
		{gateways, `{"kind":"Gateway","namespace":"n","name":"a"}`, false},
		{gateways, `{"apiVersion":"gateway.networking.k8s.io/v1","kind":"HTTPRoute","namespace":"n","name":"a"}`, true},
		{gateways, `{"kind":"Node","name":"a"}`, true},
		{gateways, `{"namespace":"n","name":"a"}`, false},
		{gateways, `{"namespace":"n"}`, true},
		{apps, `{"kind":"Deployment","namespace":"n","name":"a"}`, false},
		{apps, `{"apiVersion":"apps/v1","kind":"Deployment","namespace":"n","name":"a"}`, false},
		{apps, `{"kind":"Pod","namespace":"n","name":"a"}`, true},
		{apps, `{"apiVersion":"v1","kind":"Pod","namespace":"n","name":"a"}`, true},
		{secrets, `{"kind":"Secret","namespace":"n","name":"a"}`, false},
		{secrets, `{"apiVersion":"v1","kind":"Secret","namespace":"n","name":"a"}`, false},
		{secrets, `{"apiVersion":"a/b/c","kind":"Pod","name":"a"}`, false},
	} {
		for raw, exists := range map[string]bool{
			`{"involvedObject":` + tt.about + `}`:                tt.exists,
			`{"spec":{"claimRef":{"namespace":"n","name":"a"}}}`: true,
		} {
			resource := "events"
			if !strings.Contains(raw, "involved") {
				resource = "persistentvolumes"
			}
			for name, spec := range map[string]v1alpha1.VirtualViewSpec{
				"hidden": {Hidden: []v1alpha1.ViewResource{hiding[tt.hidden]}},
				"ruled":  {Objects: []v1alpha1.ViewRule{{Resources: []v1alpha1.ViewResource{hiding[tt.hidden]}, Names: []string{"other"}}}},
			} {
				l, err := newLens(&v1alpha1.VirtualView{Spec: spec}, "")
				if err != nil {
					t.Fatal(err)
				}
				o := view.Object{Resource: corev1.SchemeGroupVersion.WithResource(resource), Namespace: "n", Name: "e", JSON: []byte(raw)}
				if seen, err := l.See(t.Context(), o); err != nil || (seen != nil) != exists {
					t.Errorf("%s %s: %s: seen %s, %v", name, tt.hidden, raw, seen, err)
				}
			}
		}
	}
}
