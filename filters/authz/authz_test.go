package authz

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/portico-proxy/portico/core/pipeline"
)

// granted runs a list of pods through the gate.
func granted(t *testing.T, f *Filter, caller user.Info, header string) bool {
	t.Helper()
	r := httptest.NewRequest("GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1", nil)
	if header != "" {
		r.Header.Set(header, "x")
	}
	ctx := request.WithRequestInfo(r.Context(), &request.RequestInfo{
		IsResourceRequest: true, Verb: "list", APIVersion: "v1", Resource: "pods", FieldSelector: "spec.nodeName=n1",
	})
	if caller != nil {
		ctx = request.WithUser(ctx, caller)
	}
	got, passed := false, false
	err := f.ServeHTTP(httptest.NewRecorder(), r.WithContext(ctx), pipeline.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) error {
		got, passed = pipeline.Granted(r.Context()), true
		return nil
	}))
	if err != nil || !passed {
		t.Fatalf("the gate refused: %v", err)
	}
	return got
}

func TestOnlyAnAllowedAndKnownCallerIsGranted(t *testing.T) {
	jane := &user.DefaultInfo{Name: "jane"}
	yes := func(*http.Request) bool { return true }
	tests := map[string]struct {
		decision authorizer.Decision
		err      error
		answers  func(*http.Request) bool
		caller   user.Info
		header   string
		want     bool
	}{
		"allowed":            {decision: authorizer.DecisionAllow, answers: yes, caller: jane, want: true},
		"allowed-with-error": {decision: authorizer.DecisionAllow, err: errors.New("rule broken"), answers: yes, caller: jane, want: true},
		"denied":             {decision: authorizer.DecisionDeny, answers: yes, caller: jane},
		"no-opinion":         {decision: authorizer.DecisionNoOpinion, answers: yes, caller: jane},
		"unreachable":        {decision: authorizer.DecisionNoOpinion, err: errors.New("down"), answers: yes, caller: jane},
		"unknown-caller":     {decision: authorizer.DecisionAllow, answers: yes},
		"impersonating":      {decision: authorizer.DecisionAllow, answers: yes, caller: jane, header: "Impersonate-Extra-Scopes"},
		"nothing-in-memory":  {decision: authorizer.DecisionAllow, caller: jane},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			asked := authorizer.AuthorizerFunc(func(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
				if fields, err := a.GetFieldSelector(); err != nil || len(fields) != 1 {
					t.Errorf("asked with field selector %v, %v", fields, err)
				}
				return tt.decision, "", tt.err
			})
			if got := granted(t, &Filter{Authorizer: asked, Answers: tt.answers}, tt.caller, tt.header); got != tt.want {
				t.Errorf("granted: %v, want %v", got, tt.want)
			}
		})
	}
}
