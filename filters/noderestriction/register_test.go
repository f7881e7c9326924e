package noderestriction

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/portico-proxy/portico/core/pipeline"
	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
)

// TestKubeletsDoNotChooseTheirPolicies has a kubelet make its Node, of which policies
// mean those of a zone.
func TestKubeletsDoNotChooseTheirPolicies(t *testing.T) {
	of := func(zone string, names ...string) func(*v1alpha1.NodePolicySpec) {
		return func(s *v1alpha1.NodePolicySpec) {
			s.Nodes = v1alpha1.MeantNodes{Names: names, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"topology.kubernetes.io/zone": zone}}}
			s.OwnNode.LabelPrefixes = []string{"own.example/"}
		}
	}
	for name, tt := range map[string]struct {
		policy func(*v1alpha1.NodePolicySpec)
		labels string
		code   int32
	}{
		"zone-of-the-policy": {of("a"), `"topology.kubernetes.io/zone":"a","kubernetes.io/os":"linux"`, 200},
		"another-zone":       {of("a"), `"topology.kubernetes.io/zone":"b"`, 403},
		"named-as-well":      {of("a", "n1"), `"topology.kubernetes.io/zone":"b"`, 200},
		"no-zone":            {of("a"), `"kubernetes.io/os":"linux","own.example/x":"y"`, 200},
		"not-its-own":        {of("a"), `"others.example/x":"y"`, 403},
		"no-selector":        {nil, `"topology.kubernetes.io/zone":"b"`, 200},
	} {
		l := knowing(t, nil)
		l.nodes["n1"].labels.Store(nil) // it is not there yet
		f := compiled(t, l, policy("p", tt.policy))
		r := httptest.NewRequest(http.MethodPost, "/api/v1/nodes", strings.NewReader(`{"kind":"Node","apiVersion":"v1","metadata":{"name":"n1","labels":{`+tt.labels+`}}}`))
		info := &request.RequestInfo{IsResourceRequest: true, Verb: "create", Resource: "nodes"}
		caller := &user.DefaultInfo{Name: "system:node:n1", Groups: []string{user.NodesGroup}}
		r = r.WithContext(request.WithUser(request.WithRequestInfo(t.Context(), info), caller))
		err := f.ServeHTTP(httptest.NewRecorder(), r, pipeline.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return nil }))
		if code := codeOf(err); code != tt.code {
			t.Errorf("%s: got %d, want %d: %v", name, code, tt.code, err)
		}
	}
}
