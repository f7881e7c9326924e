package view

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/portico-proxy/portico/core/config"
	"github.com/portico-proxy/portico/core/pipeline"
	"github.com/portico-proxy/portico/core/view"
	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
)

func labelled(key, value string) *v1alpha1.VirtualViewSpec {
	selector := &metav1.LabelSelector{MatchLabels: map[string]string{key: value}}
	return &v1alpha1.VirtualViewSpec{Objects: []v1alpha1.ViewRule{{Resources: pods, Selector: selector}}}
}

// TestWhatPoliciesSayHoldsAsViewsDo has what one policy says and what another does
// hold both.
func TestWhatPoliciesSayHoldsAsViewsDo(t *testing.T) {
	l := NewLibrary(Options{Log: logr.Discard()})
	f, _ := l.Compile(&config.Snapshot{})
	over := make(chan struct{})
	said := []view.Narrowing{
		{Policy: "a", Spec: labelled("team", "red"), Key: "1", Changed: over},
		{Policy: "b", Spec: &v1alpha1.VirtualViewSpec{Namespaces: &v1alpha1.ViewNamespaces{Names: []string{"shop"}}}, Key: "2", Changed: over},
		{Policy: "c", Audits: true, Spec: &v1alpha1.VirtualViewSpec{Hidden: pods}, Key: "3", Changed: over},
	}
	ask := func(target string, next pipeline.HandlerFunc) error {
		r := httptest.NewRequest("GET", target, http.NoBody)
		info, err := resources.NewRequestInfo(r)
		if err != nil {
			t.Fatal(err)
		}
		ctx := view.WithNarrowings(view.WithNarrowings(request.WithRequestInfo(r.Context(), info), said[0]), said[1:]...)
		return f.ServeHTTP(httptest.NewRecorder(), r.WithContext(ctx), next)
	}
	if err := ask("/api/v1/namespaces/other/pods/web", unreached(t)); !apierrors.IsNotFound(err) {
		t.Errorf("got %v", err)
	}
	var first view.Views
	if err := ask("/api/v1/pods?labelSelector=app", func(_ http.ResponseWriter, r *http.Request) error {
		first = view.From(r.Context())
		if got := r.URL.Query().Get("labelSelector"); got != "app,team=red" {
			t.Errorf("asks for %s", got)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if len(first) != 2 || first.Key() != "1\x002" {
		t.Errorf("%d views, %q", len(first), first.Key())
	}
	if err := ask("/api/v1/pods", func(_ http.ResponseWriter, r *http.Request) error {
		if again := view.From(r.Context()); again[0] != first[0] || again[1] != first[1] {
			t.Error("a lens is made twice")
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	close(over)
	if !isClosed(first[0].Changed()) {
		t.Error("it goes on when its policy has changed")
	}
}

// TestWhatShowsAllEndsWatchesOnly has all be asked for under a policy that hides
// nothing yet.
func TestWhatShowsAllEndsWatchesOnly(t *testing.T) {
	l := NewLibrary(Options{Log: logr.Discard()})
	f, _ := l.Compile(&config.Snapshot{})
	over := make(chan struct{})
	ask := func(method, target string, next pipeline.HandlerFunc) error {
		r := httptest.NewRequest(method, target, http.NoBody)
		info, err := resources.NewRequestInfo(r)
		if err != nil {
			t.Fatal(err)
		}
		ctx := view.WithNarrowings(request.WithRequestInfo(r.Context(), info), view.Narrowing{Policy: "a", Spec: &v1alpha1.VirtualViewSpec{}, Key: "all", Changed: over})
		return f.ServeHTTP(httptest.NewRecorder(), r.WithContext(ctx), next)
	}
	for target, views := range map[string]int{
		"GET /api/v1/pods": 0, "GET /api/v1/pods?watch=1": 1, "GET /api/v1/namespaces/a/pods/b": 0, "GET /api/v1/nodes/n/proxy/metrics": 0,
		"POST /api/v1/namespaces/a/pods": 0, "DELETE /api/v1/namespaces/a/pods": 0, "POST /api/v1/namespaces/a/bindings": 0,
		"POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews": 0,
	} {
		method, path, _ := strings.Cut(target, " ")
		asked := false
		err := ask(method, path, func(_ http.ResponseWriter, r *http.Request) error {
			asked = true
			all := view.From(r.Context())
			if len(all) != views || r.URL.RequestURI() != path {
				t.Errorf("%s: %d views of %s", target, len(all), r.URL)
			}
			for _, v := range all {
				if isClosed(v.Changed()) {
					t.Errorf("%s: it has changed", target)
				}
			}
			return nil
		})
		if err != nil || !asked {
			t.Errorf("%s: %v", target, err)
		}
	}
	err := ask("GET", "/api/v1/pods", func(http.ResponseWriter, *http.Request) error {
		close(over)
		return nil
	})
	if !errors.Is(err, errChanged) {
		t.Errorf("a list that is over: %v", err)
	}
	if err := ask("GET", "/api/v1/pods?watch=1", func(_ http.ResponseWriter, r *http.Request) error {
		if !isClosed(view.From(r.Context())[0].Changed()) {
			t.Error("a watch goes on")
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

func TestLensesOfPoliciesAreForgotten(t *testing.T) {
	l := NewLibrary(Options{Log: logr.Discard()})
	over := make(chan struct{})
	often := view.Narrowing{Spec: labelled("a", "b"), Key: "often", Changed: over}
	kept, err := l.lensOf(&often)
	if err != nil {
		t.Fatal(err)
	}
	most := 0
	for i := range 10 * maxMade / (lensOverhead + 1<<20) {
		if _, err := l.lensOf(&view.Narrowing{Spec: labelled("a", "c"), Key: fmt.Sprint(i), Size: 1 << 20, Changed: over}); err != nil {
			t.Fatal(err)
		}
		if again, _ := l.lensOf(&often); again != kept {
			t.Fatal("one that is used is forgotten")
		}
		most = max(most, len(l.made.young)+len(l.made.old))
	}
	if limit := 2*maxMade>>20 + 4; most > limit {
		t.Errorf("%d lenses of a MiB are kept, want at most %d", most, limit)
	}
	// The same said by a policy after it has changed is another lens.
	if now, err := l.lensOf(&view.Narrowing{Spec: often.Spec, Key: often.Key, Changed: make(chan struct{})}); err != nil || now == kept {
		t.Errorf("got the old one, %v", err)
	}
	bad := view.Narrowing{Policy: "p", Spec: labelled("a", "no value!"), Changed: over}
	if _, err := l.lensOf(&bad); !apierrors.IsInternalError(err) {
		t.Errorf("got %v", err)
	}
}
