package view

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/portico-proxy/portico/core/names"
	"github.com/portico-proxy/portico/core/pipeline"
	"github.com/portico-proxy/portico/core/view"
	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
)

func TestNamespacesExistThatHaveAName(t *testing.T) {
	renamed := []v1alpha1.ViewRenaming{{Name: "default", Cluster: "shop"}}
	for name, tt := range map[string]struct {
		limits v1alpha1.ViewNamespaces
		shown  []string
		not    []string
	}{
		"prefix":           {v1alpha1.ViewNamespaces{Prefix: "a-"}, []string{"a-default", "a-x"}, []string{"default", "b-x", "a-"}},
		"renamed":          {v1alpha1.ViewNamespaces{Renamed: renamed}, []string{"shop"}, []string{"default", "other"}},
		"both":             {v1alpha1.ViewNamespaces{Prefix: "a-", Renamed: renamed}, []string{"shop", "a-x"}, []string{"a-default", "default"}},
		"and-names":        {v1alpha1.ViewNamespaces{Prefix: "a-", Names: []string{"a-x", "b"}}, []string{"a-x"}, []string{"a-y", "b"}},
		"names-and-one":    {v1alpha1.ViewNamespaces{Renamed: renamed, Names: []string{"*"}}, []string{"shop", "other"}, []string{"default"}},
		"and-chosen":       {v1alpha1.ViewNamespaces{Prefix: "a-", Selector: bySelector.Selector}, nil, []string{"a-x", "b"}},
		"without-new-name": {v1alpha1.ViewNamespaces{Names: []string{"default"}}, []string{"default"}, []string{"other"}},
	} {
		l, err := newLens(&v1alpha1.VirtualView{Spec: v1alpha1.VirtualViewSpec{Subjects: jane, Namespaces: &tt.limits}}, "")
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range tt.shown {
			if !l.shows(n) || !l.admits(n, labels.Set{}) {
				t.Errorf("%s: %s does not exist", name, n)
			}
		}
		for _, n := range tt.not {
			if l.shows(n) || l.admits(n, labels.Set{}) {
				t.Errorf("%s: %s exists", name, n)
			}
		}
		if tt.limits.Selector != nil && (!l.admits("a-x", labels.Set{"of": "jane"}) || l.admits("b", labels.Set{"of": "jane"})) {
			t.Errorf("%s: others are chosen by labels", name)
		}
	}
}

func TestWhatNamesOthersIsNotShown(t *testing.T) {
	l, err := newLens(&v1alpha1.VirtualView{Spec: v1alpha1.VirtualViewSpec{Subjects: jane, Namespaces: &v1alpha1.ViewNamespaces{Prefix: "a-"}}}, "")
	if err != nil {
		t.Fatal(err)
	}
	for namespace, want := range map[string]bool{"a-x": true, "kube-system": false} {
		o := view.Object{
			Resource:  schema.GroupVersionResource{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "rolebindings"},
			Namespace: "a-x", Name: "web", JSON: []byte(`{"subjects":[{"namespace":"` + namespace + `"}]}`),
		}
		seen, err := l.See(t.Context(), o)
		if err != nil || (seen != nil) != want {
			t.Errorf("%s: seen %s, %v", namespace, seen, err)
		}
	}
}

// A request whose names were exchanged by a view that is over by now would be answered
// for namespaces that are others.
func TestNamesOfAnotherViewMeanTryAgain(t *testing.T) {
	f, _ := NewLibrary(Options{Log: logr.Discard()}).Compile(snapshot(v1alpha1.VirtualViewSpec{Subjects: jane, Namespaces: &v1alpha1.ViewNamespaces{Prefix: "a-"}}))
	for _, m := range []*names.Mapping{nil, names.New("b-", nil), names.New("a-", nil)} {
		r := httptest.NewRequestWithContext(t.Context(), "GET", "/api/v1/namespaces/a-x/pods", nil)
		info, err := resources.NewRequestInfo(r)
		if err != nil {
			t.Fatal(err)
		}
		ctx := request.WithUser(request.WithRequestInfo(r.Context(), info), &user.DefaultInfo{Name: "jane"})
		if m != nil {
			ctx = names.With(ctx, m)
		}
		got := false
		err = f.ServeHTTP(httptest.NewRecorder(), r.WithContext(ctx), pipeline.HandlerFunc(func(http.ResponseWriter, *http.Request) error {
			got = true
			return nil
		}))
		if fits := m.Key() == "a-"; got != fits || !fits && !apierrors.IsServiceUnavailable(err) {
			t.Errorf("by %q: passed %v, %v", m.Key(), got, err)
		}
	}
}
