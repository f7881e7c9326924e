package view

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/client-go/metadata/fake"

	"github.com/portico-proxy/portico/core/config"
	"github.com/portico-proxy/portico/core/pipeline"
	"github.com/portico-proxy/portico/core/view"
	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
)

var (
	pods = []v1alpha1.ViewResource{{Resource: "pods"}}
	jane = v1alpha1.ViewSubjects{Users: []string{"jane"}}
)

// bySelector shows namespaces of jane's by a label.
var bySelector = &v1alpha1.ViewNamespaces{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"of": "jane"}}}

func snapshot(specs ...v1alpha1.VirtualViewSpec) *config.Snapshot {
	s := &config.Snapshot{}
	for i, spec := range specs {
		s.Objects = append(s.Objects, &v1alpha1.VirtualView{ObjectMeta: metav1.ObjectMeta{Name: string(rune('a' + i))}, Spec: spec})
	}
	return s
}

// resources reads paths as the server does.
var resources = &request.RequestInfoFactory{APIPrefixes: sets.NewString("api", "apis"), GrouplessAPIPrefixes: sets.NewString("api")}

// send sends a request of a user's through the filter to next.
func send(t *testing.T, f *Filter, caller, method, target string, next pipeline.HandlerFunc) (*httptest.ResponseRecorder, error) {
	t.Helper()
	r := httptest.NewRequest(method, target, http.NoBody)
	info, err := resources.NewRequestInfo(r)
	if err != nil {
		t.Fatal(err)
	}
	ctx := request.WithUser(request.WithRequestInfo(r.Context(), info), &user.DefaultInfo{Name: caller})
	w := httptest.NewRecorder()
	return w, f.ServeHTTP(w, r.WithContext(ctx), next)
}

// unreached is what no request may get to.
func unreached(t *testing.T) pipeline.HandlerFunc {
	return func(_ http.ResponseWriter, r *http.Request) error {
		t.Errorf("%s %s got through", r.Method, r.URL)
		return nil
	}
}

func TestUnknownNamespacesMeanTryAgain(t *testing.T) {
	l := NewLibrary(Options{Log: logr.Discard()})
	s := snapshot(v1alpha1.VirtualViewSpec{Subjects: jane, Namespaces: bySelector})
	f, found := l.Compile(s)
	if c := found[s.Objects[0]]; len(c) != 1 || c[0].Type != config.Programmed || !strings.Contains(c[0].Message, "spec.namespaces.selector") {
		t.Errorf("found %v", c)
	}
	_, err := send(t, f, "jane", "GET", "/api/v1/pods", unreached(t))
	if seconds, retry := apierrors.SuggestsClientDelay(err); !apierrors.IsServiceUnavailable(err) || !retry || seconds != 1 {
		t.Errorf("got %v", err)
	}
	reached := false
	if _, err := send(t, f, "joe", "GET", "/api/v1/pods", func(http.ResponseWriter, *http.Request) error { reached = true; return nil }); err != nil || !reached {
		t.Errorf("somebody else got %v", err)
	}
	l.know(map[string]labels.Set{"hers": {"of": "jane"}})
	if _, found = l.Compile(s); len(found) != 0 {
		t.Errorf("found %v", found)
	}
	if _, err := send(t, f, "jane", "GET", "/api/v1/namespaces/his/pods/web", unreached(t)); !apierrors.IsNotFound(err) {
		t.Errorf("got %v", err)
	}
}

func TestCredentialsThatNobodyKnowsAreRefused(t *testing.T) {
	f, _ := NewLibrary(Options{Log: logr.Discard()}).Compile(snapshot(v1alpha1.VirtualViewSpec{Subjects: jane}))
	r := httptest.NewRequest("GET", "/api/v1/pods", http.NoBody)
	r.Header.Set("Authorization", "Bearer stale")
	info, _ := resources.NewRequestInfo(r)
	err := f.ServeHTTP(httptest.NewRecorder(), r.WithContext(request.WithRequestInfo(r.Context(), info)), unreached(t))
	if !apierrors.IsUnauthorized(err) {
		t.Errorf("got %v", err)
	}
}

// viewsIn takes the views of a request that gets through.
func viewsIn(t *testing.T, f *Filter, target string) view.Views {
	t.Helper()
	var views view.Views
	if _, err := send(t, f, "jane", "GET", target, func(_ http.ResponseWriter, r *http.Request) error {
		views = view.From(r.Context())
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return views
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestOnlyViewsThatChangedAreOver(t *testing.T) {
	l := NewLibrary(Options{Log: logr.Discard()})
	l.know(map[string]labels.Set{"hers": {"of": "jane"}})
	same, other := v1alpha1.VirtualViewSpec{Subjects: jane, Namespaces: bySelector}, v1alpha1.VirtualViewSpec{Subjects: jane, Hidden: pods}
	old, _ := l.Compile(snapshot(same, other))
	before := viewsIn(t, old, "/api/v1/configmaps")
	if len(before) != 2 {
		t.Fatalf("there are %d views", len(before))
	}
	l.Compile(snapshot(same))
	if isClosed(before[0].Changed()) || !isClosed(before[1].Changed()) {
		t.Error("another one is over than the one that was taken away")
	}
	if after := viewsIn(t, old, "/api/v1/configmaps"); len(after) != 1 {
		t.Errorf("a chain of before has %d views", len(after))
	}
	l.know(map[string]labels.Set{"hers": {"of": "jane", "more": ""}, "his": {}})
	if isClosed(before[0].Changed()) {
		t.Error("it is over though it shows what it did")
	}
	l.know(map[string]labels.Set{"hers": {"of": "jane"}, "his": {"of": "jane"}})
	after := viewsIn(t, old, "/api/v1/configmaps")
	if !isClosed(before[0].Changed()) || isClosed(after[0].Changed()) || after[0].Key() == before[0].Key() {
		t.Error("it is not over though it shows more")
	}
}

func TestListsBreakOffWhenTheViewChanges(t *testing.T) {
	l := NewLibrary(Options{Log: logr.Discard()})
	f, _ := l.Compile(snapshot(v1alpha1.VirtualViewSpec{Subjects: jane}))
	_, err := send(t, f, "jane", "GET", "/api/v1/pods", func(http.ResponseWriter, *http.Request) error {
		l.Compile(snapshot())
		return nil
	})
	if err == nil {
		t.Error("the list looks whole")
	}
}

func TestSelectorsArePushedDownWhereTheyMeanTheSame(t *testing.T) {
	tenant := &metav1.LabelSelector{MatchLabels: map[string]string{"tenant": "a"}}
	for name, tt := range map[string]struct {
		rules        []v1alpha1.ViewRule
		target, want string
	}{
		"labels":           {[]v1alpha1.ViewRule{{Resources: pods, Selector: tenant}}, "/api/v1/pods", "tenant=a"},
		"and-the-caller's": {[]v1alpha1.ViewRule{{Resources: pods, Selector: tenant}}, "/api/v1/pods?watch=1&labelSelector=x%3Dy", "x=y,tenant=a"},
		"labels-and-names": {[]v1alpha1.ViewRule{{Resources: pods, Selector: tenant, Names: []string{"web"}}}, "/api/v1/pods", ""},
		"two-rules":        {[]v1alpha1.ViewRule{{Resources: pods, Selector: tenant}, {Resources: pods, Names: []string{"web"}}}, "/api/v1/pods", ""},
		"others":           {[]v1alpha1.ViewRule{{Resources: pods, Selector: tenant}}, "/api/v1/services", ""},
		"no-namespace":     {nil, "/api/v1/namespaces/his/pods", isImpossible},
	} {
		f, _ := NewLibrary(Options{Log: logr.Discard()}).Compile(snapshot(v1alpha1.VirtualViewSpec{
			Subjects: jane, Namespaces: &v1alpha1.ViewNamespaces{Names: []string{"hers"}}, Objects: tt.rules,
		}))
		if _, err := send(t, f, "jane", "GET", tt.target, func(_ http.ResponseWriter, r *http.Request) error {
			info, _ := request.RequestInfoFrom(r.Context())
			if got := r.URL.Query().Get("labelSelector"); got != tt.want || info.LabelSelector != tt.want {
				t.Errorf("%s: asked with %q and %q, want %q", name, got, info.LabelSelector, tt.want)
			}
			return nil
		}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRulesSayWhatExists(t *testing.T) {
	const pod = `{"metadata":{"name":"web","namespace":"hers","ownerReferences":[{"kind":"ReplicaSet","name":"web-1"}]},"spec":{"nodeName":"n1","priority":7,"hostNetwork":true}}`
	see := func(spec v1alpha1.VirtualViewSpec, name, raw string, set labels.Set) bool {
		l, err := newLens(&v1alpha1.VirtualView{Spec: spec}, "")
		if err != nil {
			t.Fatal(err)
		}
		seen, err := l.See(t.Context(), view.Object{Resource: schema.GroupVersionResource{Version: "v1", Resource: name}, Namespace: "hers", Name: "web", Labels: set, JSON: []byte(raw)})
		if err != nil {
			t.Fatal(err)
		}
		return seen != nil
	}
	for name, tt := range map[string]struct {
		rule v1alpha1.ViewRule
		want bool
	}{
		"name":          {v1alpha1.ViewRule{Names: []string{"db", "we*"}}, true},
		"other-name":    {v1alpha1.ViewRule{Names: []string{"web2", "x*"}}, false},
		"owner":         {v1alpha1.ViewRule{Owners: []v1alpha1.ViewOwner{{Kind: "ReplicaSet", Name: "web-*"}}}, true},
		"other-owner":   {v1alpha1.ViewRule{Owners: []v1alpha1.ViewOwner{{Kind: "Job", Name: "web-1"}}}, false},
		"fields":        {v1alpha1.ViewRule{Fields: []v1alpha1.ViewField{{Path: "/spec/nodeName", Value: "n1"}, {Path: "/spec/priority", Value: "7"}, {Path: "/spec/hostNetwork", Value: "true"}}}, true},
		"missing-field": {v1alpha1.ViewRule{Fields: []v1alpha1.ViewField{{Path: "/spec/none"}}}, true},
		"other-field":   {v1alpha1.ViewRule{Fields: []v1alpha1.ViewField{{Path: "/spec/nodeName", Value: "n1"}, {Path: "/spec/priority", Value: "8"}}}, false},
		"labels":        {v1alpha1.ViewRule{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}}}, true},
		"other-labels":  {v1alpha1.ViewRule{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"a": "c"}}}, false},
	} {
		tt.rule.Resources = pods
		if got := see(v1alpha1.VirtualViewSpec{Objects: []v1alpha1.ViewRule{tt.rule}}, "pods", pod, labels.Set{"a": "b"}); got != tt.want {
			t.Errorf("%s: exists is %v", name, got)
		}
	}
	event := func(kind, in, of string) string {
		return `{"involvedObject":{"apiVersion":"v1","kind":"` + kind + `","namespace":"` + in + `","name":"` + of + `"}}`
	}
	spec := v1alpha1.VirtualViewSpec{
		Namespaces: &v1alpha1.ViewNamespaces{Names: []string{"hers"}}, Hidden: []v1alpha1.ViewResource{{Resource: "nodes"}},
		Objects: []v1alpha1.ViewRule{{Resources: pods, Names: []string{"web"}}, {Resources: []v1alpha1.ViewResource{{Resource: "services"}}, Selector: &metav1.LabelSelector{}}},
	}
	for raw, want := range map[string]bool{
		event("Pod", "hers", "web"): true, event("Pod", "hers", "db"): false, event("Pod", "his", "web"): false, event("Node", "", "n1"): false,
		event("Service", "hers", "web"): false, event("ConfigMap", "hers", "x"): true, event("Namespace", "", "his"): false, event("Namespace", "", "hers"): true, `{}`: true,
	} {
		if got := see(spec, "events", raw, nil); got != want {
			t.Errorf("an event of %s exists: %v", raw, got)
		}
	}
}

func TestAuditLeavesRequestsAlone(t *testing.T) {
	var decided []string
	l := NewLibrary(Options{Log: logr.Discard(), Observe: func(_ string, mode v1alpha1.FilterMode, decision string, _ time.Duration) {
		decided = append(decided, string(mode)+" "+decision)
	}})
	f, _ := l.Compile(snapshot(v1alpha1.VirtualViewSpec{Subjects: jane, Mode: v1alpha1.ModeAudit, Namespaces: &v1alpha1.ViewNamespaces{Names: []string{"hers"}}}))
	for _, target := range []string{"/api/v1/namespaces/his/pods/web", "/api/v1/namespaces/hers/pods/web"} {
		if views := viewsIn(t, f, target); len(views) > 0 {
			t.Error("the answer is looked at")
		}
	}
	if got := strings.Join(decided, ", "); got != "Audit deny, Audit pass" {
		t.Errorf("decided %s", got)
	}
}

func TestWritesAreTriedAgainWhenSomebodyElseWasFaster(t *testing.T) {
	f, _ := NewLibrary(Options{Log: logr.Discard()}).Compile(snapshot(v1alpha1.VirtualViewSpec{
		Subjects: jane, Objects: []v1alpha1.ViewRule{{Resources: pods, Fields: []v1alpha1.ViewField{{Path: "/spec/nodeName", Value: "n1"}}}},
	}))
	for name, tt := range map[string]struct {
		node string // of the pod once it has changed
		code int
	}{"still-there": {"n1", http.StatusOK}, "gone-from-sight": {"n2", http.StatusNotFound}} {
		rv, node := "1", "n1"
		w, err := send(t, f, "jane", "DELETE", "/api/v1/namespaces/hers/pods/web", func(w http.ResponseWriter, r *http.Request) error {
			if r.Method == http.MethodGet {
				_, err := io.WriteString(w, `{"metadata":{"name":"web","namespace":"hers","uid":"u","resourceVersion":"`+rv+`"},"spec":{"nodeName":"`+node+`"}}`)
				if rv == "1" {
					defer func() { rv, node = "2", tt.node }() // right after it was read
				}
				return err
			}
			body, err := io.ReadAll(r.Body)
			if !strings.Contains(string(body), `"preconditions":{"uid":"u","resourceVersion":"`+rv+`"}`) {
				return apierrors.NewConflict(podResource, "web", errModified)
			}
			w.WriteHeader(http.StatusOK)
			return err
		})
		if code := int(pipeline.StatusOf(err).Code); err == nil && w.Code != tt.code || err != nil && code != tt.code {
			t.Errorf("%s: got %d, %v", name, w.Code, err)
		}
	}
}

func TestNamespacesAreFollowed(t *testing.T) {
	scheme := fake.NewTestScheme()
	if err := metav1.AddMetaToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	hers := &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"}, ObjectMeta: metav1.ObjectMeta{Name: "hers", Labels: map[string]string{"of": "jane"}}}
	l := NewLibrary(Options{Client: fake.NewSimpleMetadataClient(scheme, []runtime.Object{hers}...), Log: logr.Discard()})
	f, _ := l.Compile(snapshot(v1alpha1.VirtualViewSpec{Subjects: jane, Namespaces: bySelector}))
	ctx, cancel := context.WithCancel(t.Context())
	known, ended := make(chan struct{}), make(chan error)
	go func() { ended <- l.Start(ctx, func() error { close(known); return nil }) }()
	<-known
	viewsIn(t, f, "/api/v1/namespaces/hers/pods/web")
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestFloorsAreThoseOfCollections(t *testing.T) {
	for target, want := range map[string]string{
		"/api/v1/namespaces/hers/pods?watch=1":                 "/api/v1/namespaces/hers/pods",
		"/api/v1/watch/namespaces/hers/pods":                   "/api/v1/namespaces/hers/pods",
		"/api/v1/watch/namespaces/hers/pods/web":               "/api/v1/namespaces/hers/pods",
		"/api/v1/namespaces/watch/pods?watch=1":                "/api/v1/namespaces/watch/pods",
		"/api/v1/watch/namespaces/watch/pods":                  "/api/v1/namespaces/watch/pods",
		"/api/v1/watch/namespaces/hers":                        "/api/v1/namespaces",
		"/api/v1/pods?watch=1&fieldSelector=metadata.name=web": "/api/v1/pods",
		"/apis/apps/v1/watch/deployments":                      "/apis/apps/v1/deployments",
	} {
		f, _ := NewLibrary(Options{Log: logr.Discard()}).Compile(snapshot(v1alpha1.VirtualViewSpec{Subjects: jane}))
		u, err := url.Parse(target)
		if err != nil {
			t.Fatal(err)
		}
		query := u.Query()
		query.Set("resourceVersion", "5")
		u.RawQuery = query.Encode()
		listed := ""
		_, err = send(t, f, "jane", "GET", u.String(), func(w http.ResponseWriter, r *http.Request) error {
			listed = r.URL.Path
			_, err := io.WriteString(w, `{"metadata":{"resourceVersion":"9"}}`)
			return err
		})
		if listed != want || !apierrors.IsResourceExpired(err) {
			t.Errorf("%s: listed %s, %v", target, listed, err)
		}
	}
}

func TestWhatIsHiddenIsNotToldOtherwise(t *testing.T) {
	masks := []v1alpha1.ViewMask{
		{Resources: []v1alpha1.ViewResource{{Group: "batch", Resource: "jobs"}}, Paths: []string{"/status/succeeded"}},
		{Resources: pods, Paths: []string{"/spec/containers/*/env"}},
		{Resources: []v1alpha1.ViewResource{{Resource: "events"}}, Paths: []string{"/source"}},
		{Resources: []v1alpha1.ViewResource{{Group: "apps", Resource: "deployments"}}, Paths: []string{"/spec/replicas"}},
		{Resources: []v1alpha1.ViewResource{{Group: "apps", Resource: "statefulsets"}}, Paths: []string{"/spec/template/spec/containers"}},
		{Resources: []v1alpha1.ViewResource{{Group: "example.com", Resource: "shops"}}, Paths: []string{"/spec/size"}},
	}
	f, _ := NewLibrary(Options{Log: logr.Discard()}).Compile(snapshot(v1alpha1.VirtualViewSpec{Subjects: jane, Masks: masks}))
	for target, want := range map[string]int32{
		"/apis/batch/v1/jobs?fieldSelector=status.successful%3D1":        http.StatusBadRequest,
		"/apis/batch/v1/jobs?fieldSelector=metadata.name%3Da":            0,
		"/api/v1/events?fieldSelector=reportingComponent%3Dkubelet":      http.StatusBadRequest,
		"/api/v1/events?fieldSelector=involvedObject.name%3Da":           0,
		"/api/v1/pods?fieldSelector=spec.nodeName%3Da,metadata.name%3Da": 0,
		"/api/v1/pods?fieldSelector=status.phase%3DRunning":              http.StatusBadRequest,
		"/api/v1/services?fieldSelector=spec.type%3DClusterIP":           0,
		"/apis/apps/v1/namespaces/hers/deployments/a/scale":              http.StatusForbidden,
		"/apis/apps/v1/namespaces/hers/statefulsets/a/scale":             0,
		"/apis/apps/v1/namespaces/hers/replicasets/a/scale":              0,
		"/apis/example.com/v1/namespaces/hers/shops/a/scale":             http.StatusForbidden,
	} {
		_, err := send(t, f, "jane", "GET", target, func(http.ResponseWriter, *http.Request) error { return nil })
		code := int32(0)
		if err != nil {
			code = pipeline.StatusOf(err).Code
		}
		if code != want {
			t.Errorf("%s: %v", target, err)
		}
	}
}
