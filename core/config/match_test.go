package config

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/portico-proxy/portico/core/pipeline"
	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
)

func TestRequestsAreMatched(t *testing.T) {
	resource := func(group, name string) v1alpha1.RequestMatch {
		return v1alpha1.RequestMatch{Resources: []v1alpha1.MatchedResource{{Group: group, Resource: name}}}
	}
	pods := request.RequestInfo{IsResourceRequest: true, Verb: "list", Resource: "pods", Namespace: "shop"}
	exec := request.RequestInfo{IsResourceRequest: true, Verb: "create", Resource: "pods", Subresource: "exec", Namespace: "shop"}
	scale := request.RequestInfo{IsResourceRequest: true, Verb: "update", APIGroup: "apps", Resource: "deployments", Subresource: "scale"}
	version := request.RequestInfo{Verb: "get", Path: "/version"}
	for name, tt := range map[string]struct {
		match v1alpha1.RequestMatch
		info  request.RequestInfo
		want  bool
	}{
		"everything":            {v1alpha1.RequestMatch{}, version, true},
		"verb":                  {v1alpha1.RequestMatch{Verbs: []string{"get", "list"}}, pods, true},
		"any-verb":              {v1alpha1.RequestMatch{Verbs: []string{"*"}}, pods, true},
		"other-verb":            {v1alpha1.RequestMatch{Verbs: []string{"get"}}, pods, false},
		"agent":                 {v1alpha1.RequestMatch{UserAgents: []string{"kubectl/*"}}, pods, true},
		"other-agent":           {v1alpha1.RequestMatch{UserAgents: []string{"kubectl"}}, pods, false},
		"namespace":             {v1alpha1.RequestMatch{Namespaces: []string{"shop"}}, pods, true},
		"no-namespace":          {v1alpha1.RequestMatch{Namespaces: []string{""}}, version, false},
		"resource":              {resource("", "pods"), pods, true},
		"resource-is-not-sub":   {resource("", "pods"), exec, false},
		"subresource":           {resource("", "pods/exec"), exec, true},
		"all-of-a-resource":     {resource("", "pods/*"), exec, true},
		"one-sub-of-all":        {resource("*", "*/scale"), scale, true},
		"other-group":           {resource("", "deployments/scale"), scale, false},
		"all-resources":         {resource("*", "*"), exec, true},
		"no-resource-is-no-one": {resource("*", "*"), version, false},
	} {
		if got := Concerns(&tt.match, &tt.info, "kubectl/v1.37"); got != tt.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestCallersAreMatched(t *testing.T) {
	web := &user.DefaultInfo{Name: "system:serviceaccount:shop:web", Groups: []string{"system:serviceaccounts:shop"}}
	for name, tt := range map[string]struct {
		match v1alpha1.RequestMatch
		want  bool
	}{
		"all":           {v1alpha1.RequestMatch{}, true},
		"user":          {v1alpha1.RequestMatch{Users: []string{"jane", "system:serviceaccount:shop:*"}}, true},
		"other-user":    {v1alpha1.RequestMatch{Users: []string{"system:serviceaccount:bank:*"}}, false},
		"user-or-group": {v1alpha1.RequestMatch{Users: []string{"jane"}, Groups: []string{"system:serviceaccounts:shop"}}, true},
		"other-group":   {v1alpha1.RequestMatch{Groups: []string{"system:masters"}}, false},
	} {
		if got := SentBy(&tt.match, web); got != tt.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestUnknownCallersDoNotSlipPast(t *testing.T) {
	r := httptest.NewRequest("GET", "/api/v1/pods", nil)
	if caller, err := CallerOf(r); err != nil || caller.GetName() != user.Anonymous {
		t.Errorf("nobody: %v, %v", caller, err)
	}
	r.Header.Set("Authorization", "Bearer unreviewed")
	if _, err := CallerOf(r); err == nil || pipeline.StatusOf(err).Code != http.StatusUnauthorized {
		t.Errorf("unreviewed: %v", err)
	}
	// The API server reads all lines of a WebSocket's subprotocols.
	r = httptest.NewRequest(http.MethodGet, "/api/v1/namespaces/shop/pods/web/exec", nil)
	r.Header["Sec-Websocket-Protocol"] = []string{"", "base64url.bearer.authorization.k8s.io.c2VjcmV0, v5.channel.k8s.io"}
	if caller, err := CallerOf(r); err == nil {
		t.Errorf("a token on the second line makes %v", caller)
	}
}

func TestImpersonatedCallersAreToldAsTheAPIServerKnowsThem(t *testing.T) {
	r := httptest.NewRequest("GET", "/", http.NoBody)
	r = r.WithContext(request.WithUser(r.Context(), &user.DefaultInfo{Name: "jane"}))
	for name, value := range map[string]string{
		"Impersonate-User": "system:serviceaccount:shop:web", "Impersonate-Uid": "7", "Impersonate-Group": "g",
		"Impersonate-Extra-Example.com%2fTeam": "red", "Impersonate-Extra-Odd%Zz": "x",
	} {
		r.Header.Set(name, value)
	}
	got, err := CallersOf(r)
	if err != nil {
		t.Fatal(err)
	}
	want := []user.Info{&user.DefaultInfo{Name: "jane"}, &user.DefaultInfo{
		Name: "system:serviceaccount:shop:web", UID: "7", Groups: []string{"system:authenticated", "g", "system:serviceaccounts", "system:serviceaccounts:shop"},
		Extra: map[string][]string{"example.com/team": {"red"}, "odd%zz": {"x"}},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestNobodyIsImpersonatedAsNobody(t *testing.T) {
	r := httptest.NewRequest("GET", "/", http.NoBody)
	r = r.WithContext(request.WithUser(r.Context(), &user.DefaultInfo{Name: "jane"}))
	r.Header.Set("Impersonate-User", "system:anonymous")
	got, err := CallersOf(r)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"system:unauthenticated"}, got[1].GetGroups()); diff != "" {
		t.Error(diff)
	}
}

func TestBindingsHaveAnOrder(t *testing.T) {
	binding := func(name string, priority int32, kind v1alpha1.FilterKind) runtime.Object {
		return &v1alpha1.FilterBinding{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.FilterBindingSpec{
			FilterRef: v1alpha1.FilterRef{Kind: kind}, Priority: priority,
		}}
	}
	const ours, others = v1alpha1.FilterKindWasm, "Other"
	s := &Snapshot{Objects: []runtime.Object{
		binding("c", 0, ours), binding("b", 0, ours), binding("x", 9, others), binding("a", -1, ours), binding("z", 5, ours),
	}}
	var got []string
	for _, b := range s.BindingsOf(ours, v1alpha1.PhaseRestrict) {
		got = append(got, b.Name)
	}
	if diff := cmp.Diff([]string{"z", "b", "c", "a"}, got); diff != "" {
		t.Error(diff)
	}
}
