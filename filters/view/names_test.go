package view

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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

// stored are objects of jane's namespace, of which those that are called far name what she has no
// name for.
var stored = map[string]string{
	bindingsPath + "/near": `{"metadata":{"name":"near","namespace":"a-x","resourceVersion":"7"},"subjects":[{"namespace":"a-x"}]}`,
	bindingsPath + "/far":  `{"metadata":{"name":"far","namespace":"a-x","resourceVersion":"7"},"subjects":[{"namespace":"kube-system"}]}`,
	secretsPath + "/near":  `{"metadata":{"name":"near","namespace":"a-x","resourceVersion":"7"},"type":"Opaque"}`,
	secretsPath + "/far":   `{"metadata":{"name":"far","namespace":"a-x","resourceVersion":"7"},"type":"kubernetes.io/service-account-token"}`,
	hersPath + "pods/near": `{"metadata":{"name":"near","namespace":"a-x","resourceVersion":"7"}}`,
	hersPath + "pods/far": `{"metadata":{"name":"far","namespace":"a-x","resourceVersion":"7"},"spec":{"affinity":{"podAffinity":{` +
		`"requiredDuringSchedulingIgnoredDuringExecution":[{"namespaces":["kube-system"]}]}}}}`,
}

const (
	hersPath     = "/api/v1/namespaces/a-x/"
	secretsPath  = hersPath + "secrets"
	bindingsPath = "/apis/rbac.authorization.k8s.io/v1/namespaces/a-x/rolebindings"
)

// sendRenamed sends a request of jane's, whose namespaces begin with a-, through a view, and
// returns what of it, beyond what is looked at first, comes to the API server.
func sendRenamed(t *testing.T, spec v1alpha1.VirtualViewSpec, r *http.Request, next pipeline.HandlerFunc) (came *http.Request, err error) {
	t.Helper()
	spec.Subjects, spec.Namespaces = jane, &v1alpha1.ViewNamespaces{Prefix: "a-"}
	f, _ := NewLibrary(Options{Log: logr.Discard()}).Compile(snapshot(spec))
	info, err := resources.NewRequestInfo(r)
	if err != nil {
		t.Fatal(err)
	}
	ctx := names.With(request.WithUser(request.WithRequestInfo(t.Context(), info), &user.DefaultInfo{Name: "jane"}), names.New("a-", nil))
	err = f.ServeHTTP(httptest.NewRecorder(), r.WithContext(ctx), pipeline.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		info, _ := request.RequestInfoFrom(r.Context())
		object, there := stored[r.URL.Path]
		switch {
		case info.Verb != "get" || info.Subresource != "":
			came = r
			return next.ServeHTTP(w, r)
		case !there:
			return apierrors.NewNotFound(schema.GroupResource{Resource: info.Resource}, info.Name)
		}
		_, err := io.WriteString(w, object)
		return err
	}))
	return came, err
}

func answered(w http.ResponseWriter, _ *http.Request) error {
	_, err := io.WriteString(w, "{}")
	return err
}

func TestWhatNamesOthersIsNotWritten(t *testing.T) {
	const merge, apply = "application/merge-patch+json", "application/apply-patch+yaml"
	for _, tt := range []struct{ method, below, media, body string }{
		{"DELETE", "", "", ""},
		{"PUT", "", mediaJSON, `{"metadata":{"name":"NAME"}}`},
		{"PATCH", "", merge, `{"metadata":{"labels":{"a":"b"}}}`},
		{"PATCH", "", "application/json-patch+json", `[{"op":"remove","path":"/metadata/labels"}]`},
		{"PATCH", "", apply, `{"metadata":{"name":"NAME"}}`},
		{"PUT", "/status", mediaJSON, `{"metadata":{"name":"NAME"}}`},
		{"GET", "/log", "", ""},
		{"GET", "/exec", "", ""},
		{"POST", "/exec", "", ""},
		{"POST", "/eviction", mediaJSON, `{"metadata":{"name":"NAME"}}`},
	} {
		for path := range stored {
			r := httptest.NewRequest(tt.method, path+tt.below, strings.NewReader(strings.ReplaceAll(tt.body, "NAME", path[strings.LastIndex(path, "/")+1:])))
			r.Header.Set("Content-Type", tt.media)
			came, err := sendRenamed(t, v1alpha1.VirtualViewSpec{}, r, answered)
			if near := strings.HasSuffix(path, "near"); near != (came != nil) || near != (err == nil) || !near && !apierrors.IsNotFound(err) {
				t.Errorf("%s %s%s: came %v, %v", tt.method, path, tt.below, came != nil, err)
			}
		}
	}
}

// What deletes many, or makes something, is not about one object that can be looked at.
func TestWhatNamesOthersIsNotAmongMany(t *testing.T) {
	red := v1alpha1.VirtualViewSpec{Objects: []v1alpha1.ViewRule{{Resources: pods, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"is": "red"}}}}}
	for _, tt := range []struct {
		method, path, body string
		want               bool
	}{
		{"DELETE", bindingsPath, "", false},
		{"DELETE", secretsPath, "", false},
		{"DELETE", hersPath + "pods", "", false},
		{"DELETE", hersPath + "configmaps", "", true},
		{"POST", hersPath + "bindings", `{"metadata":{"name":"far"}}`, false},
		{"POST", secretsPath, `{"metadata":{"name":"new"},"type":"kubernetes.io/service-account-token"}`, false},
		{"POST", secretsPath, `{"metadata":{"name":"new"},"type":"Opaque"}`, true},
	} {
		r := httptest.NewRequest(tt.method, tt.path, strings.NewReader(tt.body))
		r.Header.Set("Content-Type", mediaJSON)
		came, err := sendRenamed(t, red, r, answered)
		if tt.want != (came != nil) || tt.want != (err == nil) || !tt.want && !apierrors.IsForbidden(err) {
			t.Errorf("%s %s: came %v, %v", tt.method, tt.path, came != nil, err)
		}
	}
	came, err := sendRenamed(t, red, httptest.NewRequest("GET", hersPath+"pods", nil), answered)
	if err != nil || came.URL.Query().Get("labelSelector") != "is=red" {
		t.Errorf("a list came as %v, %v", came, err)
	}
}

func TestWhatIsAppliedIsMadeOnlyWhereNothingIs(t *testing.T) {
	apply := func(path, body string, next pipeline.HandlerFunc) (*http.Request, error) {
		r := httptest.NewRequest("PATCH", path, strings.NewReader(body))
		r.Header.Set("Content-Type", "application/apply-patch+yaml")
		return sendRenamed(t, v1alpha1.VirtualViewSpec{}, r, next)
	}
	came, err := apply(bindingsPath+"/new", `{"metadata":{"name":"new"}}`, answered)
	if err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(came.Body); err != nil || string(text) != `{"metadata":{"name":"new","resourceVersion":"1"}}` {
		t.Errorf("it is applied as %s, %v", text, err)
	}
	if came, err := apply(secretsPath+"/new", `{"metadata":{"name":"new"},"type":"kubernetes.io/service-account-token"}`, answered); came != nil || !apierrors.IsForbidden(err) {
		t.Errorf("a token: %v", err)
	}
	tries := 0
	_, err = apply(bindingsPath+"/late", `{"metadata":{"name":"late"}}`, func(http.ResponseWriter, *http.Request) error {
		tries++
		stored[bindingsPath+"/late"] = stored[bindingsPath+"/far"]
		return apierrors.NewConflict(schema.GroupResource{Resource: "rolebindings"}, "late", errModified)
	})
	delete(stored, bindingsPath+"/late")
	if tries != 1 || !apierrors.IsNotFound(err) {
		t.Errorf("what somebody has made meanwhile: tried %d times, %v", tries, err)
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
