package noderestriction

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/portico-proxy/portico/core/limit"
	"github.com/portico-proxy/portico/core/pipeline"
	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
)

// TestEventsShareTheBudgetOfWhatTheyAreAbout tells events again under names that
// the node makes up.
func TestEventsShareTheBudgetOfWhatTheyAreAbout(t *testing.T) {
	f := compiled(t, knowing(t, nil), policy("p", func(s *v1alpha1.NodePolicySpec) {
		s.Events = &v1alpha1.EventBudget{PerObject: &v1alpha1.EventRate{PerMinute: 6, Burst: 25}}
	}))
	caller := &user.DefaultInfo{Name: "system:node:n1", Groups: []string{user.NodesGroup}}
	send := func(verb, name, object string) (key []string, err error) {
		info := &request.RequestInfo{IsResourceRequest: true, Verb: verb, Resource: "events", Namespace: "shop", Name: name}
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(object))
		if verb == "patch" {
			r.Header.Set("Content-Type", "application/merge-patch+json")
		}
		ctx := request.WithUser(request.WithRequestInfo(t.Context(), info), caller)
		err = f.ServeHTTP(httptest.NewRecorder(), r.WithContext(ctx), pipeline.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) error {
			for _, l := range limit.From(r.Context()) {
				key = l.Key
			}
			return nil
		}))
		return key, err
	}
	ofPod, ofNode := []string{"n1", "Pod", "shop", "web"}, []string{"n1", "Node", "", "n1"}
	for name, tt := range map[string]struct {
		verb, name, object string
		want               []string
	}{
		"pod":          {"patch", "web.1", `{"count":2}`, ofPod},
		"pod-again":    {"patch", "web.made-up", `{"count":2}`, ofPod},
		"node":         {"patch", "n1.made-up", `{"count":2}`, ofNode},
		"pod-first":    {"create", "", `{"involvedObject":{"kind":"Pod","namespace":"shop","name":"web"}}`, ofPod},
		"node-first":   {"create", "", `{"involvedObject":{"kind":"Node","name":"n1"}}`, ofNode},
		"node-nowhere": {"create", "", `{"involvedObject":{"kind":"Node","namespace":"made-up","name":"n1"}}`, ofNode},
	} {
		got, err := send(tt.verb, tt.name, tt.object)
		if diff := cmp.Diff(tt.want, got); err != nil || diff != "" {
			t.Errorf("%s: %v, %s", name, err, diff)
		}
	}
	if _, err := send("patch", "made.up", `{"count":2}`); codeOf(err) != http.StatusForbidden {
		t.Errorf("about nothing: %v", err)
	}
}
