package noderestriction

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/portico-proxy/portico/core/config"
	"github.com/portico-proxy/portico/core/pipeline"
	"github.com/portico-proxy/portico/core/view"
	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// knowing is a library that knows of node n1 and its pod, and follows nobody.
func knowing(t *testing.T, is labels.Set) *Library {
	t.Helper()
	l := NewLibrary(Options{})
	l.ctx = t.Context()
	n := newNode("n1", nil, func() { l.judgeWatches(l.known("n1")) })
	n.onceFollowed.Do(func() {})
	n.labels.Store(&is)
	close(n.known)
	close(n.loaded)
	n.pods.put(withSecret("1", "1", "own"))
	l.nodes["n1"] = n
	return l
}

func policy(name string, change func(*v1alpha1.NodePolicySpec)) runtime.Object {
	p := &v1alpha1.NodePolicy{ObjectMeta: metav1.ObjectMeta{Name: name}}
	p.Spec.Nodes.Names = []string{"n1"}
	if change != nil {
		change(&p.Spec)
	}
	return p
}

// ask sends a request as a pod of n1.
func ask(t *testing.T, f *Filter, target string, info request.RequestInfo, next pipeline.HandlerFunc, headers ...string) error {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, target, nil)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	info.IsResourceRequest = true
	caller := &user.DefaultInfo{Name: "system:serviceaccount:shop:web", Extra: map[string][]string{"authentication.kubernetes.io/node-name": {"n1"}}}
	ctx := request.WithUser(request.WithRequestInfo(t.Context(), &info), caller)
	if next == nil {
		next = func(http.ResponseWriter, *http.Request) error { return nil }
	}
	return f.ServeHTTP(httptest.NewRecorder(), r.WithContext(ctx), next)
}

func codeOf(err error) int32 {
	if err == nil {
		return http.StatusOK
	}
	return pipeline.StatusOf(err).Code
}

func compiled(t *testing.T, l *Library, policies ...runtime.Object) *Filter {
	t.Helper()
	f, found := l.Compile(&config.Snapshot{Objects: policies})
	if len(found) > 0 {
		t.Fatal(found)
	}
	return f
}

func TestWebSocketsShowNothingThatNobodyHasLookedAt(t *testing.T) {
	f := compiled(t, knowing(t, nil), policy("p", nil))
	watch := request.RequestInfo{Verb: "watch", Resource: "secrets"}
	if got := codeOf(ask(t, f, "/api/v1/secrets?watch=1", watch, nil, "Upgrade", "websocket", "Connection", "Upgrade")); got != http.StatusBadRequest {
		t.Errorf("got %d", got)
	}
	if got := codeOf(ask(t, f, "/api/v1/secrets?watch=1", watch, nil)); got != http.StatusOK {
		t.Errorf("over HTTP: %d", got)
	}
}

func TestListsOfWhatIsGrantedAreBounded(t *testing.T) {
	f := compiled(t, knowing(t, nil), policy("p", func(s *v1alpha1.NodePolicySpec) {
		s.MaxList, s.Reads = 100, []v1alpha1.NodeRead{{Resource: "services"}}
	}))
	for target, want := range map[string]int32{
		"/api/v1/services": 403, "/api/v1/services?limit=101": 403, "/api/v1/services?limit=-1": 403, "/api/v1/services?limit=100": 200,
	} {
		if got := codeOf(ask(t, f, target, request.RequestInfo{Verb: "list", Resource: "services"}, nil)); got != want {
			t.Errorf("%s: %d", target, got)
		}
	}
	if got := codeOf(ask(t, f, "/api/v1/secrets", request.RequestInfo{Verb: "list", Resource: "secrets"}, nil)); got != http.StatusOK {
		t.Errorf("what is few: %d", got)
	}
}

func TestARequestMustPassAllPoliciesThatMeanItsNode(t *testing.T) {
	services := func(s *v1alpha1.NodePolicySpec) {
		s.Reads = []v1alpha1.NodeRead{{Resource: "deployments", Group: "apps"}}
	}
	info := request.RequestInfo{Verb: "list", APIGroup: "apps", Resource: "deployments"}
	one := compiled(t, knowing(t, nil), policy("a", services))
	if got := codeOf(ask(t, one, "/apis/apps/v1/deployments", info, nil)); got != http.StatusOK {
		t.Errorf("one: %d", got)
	}
	two := compiled(t, knowing(t, nil), policy("a", services), policy("b", nil))
	if got := codeOf(ask(t, two, "/apis/apps/v1/deployments", info, nil)); got != http.StatusForbidden {
		t.Errorf("two: %d", got)
	}
}

func TestNodeThatIsNotThereIsMeantByAllSelectors(t *testing.T) {
	selecting := policy("p", func(s *v1alpha1.NodePolicySpec) {
		s.Nodes = v1alpha1.MeantNodes{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"trust": "low"}}}
	})
	l := knowing(t, labels.Set{"trust": "high"})
	f := compiled(t, l, selecting)
	info := request.RequestInfo{Verb: "get", Namespace: "shop", Resource: "services", Name: "web"}
	if got := codeOf(ask(t, f, "/", info, nil)); got != http.StatusOK {
		t.Errorf("trusted: %d", got)
	}
	l.nodes["n1"].labels.Store(nil)
	if got := codeOf(ask(t, f, "/", request.RequestInfo{Verb: "list", Resource: "deployments"}, nil)); got != http.StatusForbidden {
		t.Errorf("not there: %d", got)
	}
}

// TestNewsEndsOnlyWhatItConcerns has one watch of one Secret and one of pods.
func TestNewsEndsOnlyWhatItConcerns(t *testing.T) {
	l := knowing(t, nil)
	f := compiled(t, l, policy("p", nil))
	n := l.nodes["n1"]
	ended := func(ctx context.Context) bool {
		for _, v := range view.From(ctx) {
			select {
			case <-v.Changed():
				return true
			default:
			}
		}
		return view.Ending(ctx).Err() != nil
	}
	secret := request.RequestInfo{Verb: "watch", Namespace: "shop", Resource: "secrets", Name: "own", FieldSelector: "metadata.name=own"}
	during := func(_ http.ResponseWriter, r *http.Request) error {
		own := r.Context()
		return ask(t, f, "/", request.RequestInfo{Verb: "watch", Resource: "pods"}, func(_ http.ResponseWriter, r *http.Request) error {
			pods := r.Context()
			other := withSecret("2", "2", "another")
			other.Name = "other"
			if n.pods.put(other) {
				n.news()
			}
			if ended(own) || ended(pods) {
				t.Error("a pod that comes ends watches of others")
			}
			n.pods.remove(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "1"}})
			n.news()
			if !ended(own) || ended(pods) {
				t.Errorf("of a pod that goes: its Secret's watch ended %v, that of pods %v", ended(own), ended(pods))
			}
			compiled(t, l) // without any policy
			if !ended(pods) {
				t.Error("a narrowed watch goes on without the policy")
			}
			return nil
		})
	}
	if err := ask(t, f, "/", secret, during); err != nil {
		t.Error(err)
	}
	if len(l.watches) > 0 {
		t.Error("watches that are over are remembered")
	}
}

func TestNarrowingKeepsWhatTheClientAsksFor(t *testing.T) {
	f := compiled(t, knowing(t, nil), policy("p", nil))
	for selector, want := range map[string]string{
		"": "spec.nodeName=n1", "status.phase=Running": "status.phase=Running,spec.nodeName=n1", "spec.nodeName=n1": "spec.nodeName=n1",
		"spec.nodeName=n1,status.phase=Running": "spec.nodeName=n1,status.phase=Running",
		`metadata.name!=x\,spec.nodeName=n1`:    `metadata.name!=x\,spec.nodeName=n1,spec.nodeName=n1`,
	} {
		err := ask(t, f, "/api/v1/pods?labelSelector=a&fieldSelector="+url.QueryEscape(selector), request.RequestInfo{Verb: "list", Resource: "pods", FieldSelector: selector}, func(_ http.ResponseWriter, r *http.Request) error {
			info, _ := request.RequestInfoFrom(r.Context())
			if got := r.URL.Query(); got.Get("fieldSelector") != want || got.Get("labelSelector") != "a" || info.FieldSelector != want {
				t.Errorf("%q: got %v and %q", selector, got, info.FieldSelector)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	if got := codeOf(ask(t, f, "/?fieldSelector=spec.nodeName=n2", request.RequestInfo{Verb: "list", Resource: "pods"}, nil)); got != http.StatusForbidden {
		t.Errorf("another node's: %d", got)
	}
}

// TestNobodySelectsByWhatIsMasked asks as RequestInfo describes it, which tells the
// selectors of plain reads only.
func TestNobodySelectsByWhatIsMasked(t *testing.T) {
	f := compiled(t, knowing(t, nil), policy("p", func(s *v1alpha1.NodePolicySpec) {
		s.Reads = []v1alpha1.NodeRead{{Group: "batch", Resource: "jobs"}}
		s.Writes = []v1alpha1.NodeWrite{{Group: "batch", Resource: "jobs", Verbs: []string{"deletecollection"}}}
		s.Masks = []v1alpha1.NodeMask{{Group: "batch", Resource: "jobs", Fields: []string{"/status/succeeded", "/metadata/labels"}}}
	}))
	for query, want := range map[string]int32{
		"": 200, "fieldSelector=metadata.name%3Da": 200, "fieldSelector=status.successful%3D1": 403, "labelSelector=a": 403,
		"fieldSelector=metadata.name%3Da&fieldSelector=status.successful%3D1": 403, "fieldSelector=": 200, "labelSelector=": 200,
	} {
		for _, verb := range []string{"watch", "list", "deletecollection"} {
			if got := codeOf(ask(t, f, "/?"+query, request.RequestInfo{Verb: verb, APIGroup: "batch", Resource: "jobs", Namespace: "shop"}, nil)); got != want {
				t.Errorf("%s by %q: %d", verb, query, got)
			}
		}
	}
}

// TestPolicyThatDoesNotCompileFailsClosed has one that was never right, and one that
// was.
func TestPolicyThatDoesNotCompileFailsClosed(t *testing.T) {
	wrong := policy("p", func(s *v1alpha1.NodePolicySpec) {
		s.Nodes = v1alpha1.MeantNodes{Selector: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{
			{Key: "trust", Operator: "in", Values: []string{"low"}},
		}}}
	})
	l := knowing(t, nil)
	pods, secret := request.RequestInfo{Verb: "list", Resource: "pods"}, request.RequestInfo{Verb: "get", Resource: "secrets", Namespace: "shop", Name: "other"}
	check := func(when string, policy runtime.Object, findings int, ofPods, ofSecret int32) {
		t.Helper()
		f, found := l.Compile(&config.Snapshot{Objects: []runtime.Object{policy}})
		if len(found) != findings {
			t.Errorf("%s: found %v", when, found)
		}
		if got := codeOf(ask(t, f, "/", pods, nil)); got != ofPods {
			t.Errorf("%s: pods are %d", when, got)
		}
		if ofSecret == 0 {
			return
		}
		if got := codeOf(ask(t, f, "/", secret, nil)); got != ofSecret {
			t.Errorf("%s: a Secret is %d", when, got)
		}
	}
	check("never right", wrong, 1, 403, 403)
	granting := policy("p", func(s *v1alpha1.NodePolicySpec) { s.Reads = []v1alpha1.NodeRead{{Resource: "secrets"}} })
	check("right", granting, 0, 200, 200)
	check("no longer right", wrong, 1, 200, 200)
	check("still wrong", wrong, 1, 200, 200)
	check("gone", policy("q", nil), 0, 200, 0)
	check("back", wrong, 1, 403, 403)
}

// TestWhatIsThereIsReadAsTheCallerMay sends a whole Node as a caller who may not
// read it, and as one who may.
func TestWhatIsThereIsReadAsTheCallerMay(t *testing.T) {
	const is = `{"metadata":{"name":"n1","resourceVersion":"5"},"spec":{"podCIDR":"10.0.0.0/24"}}`
	put := func(f *Filter, object string, answer func(http.ResponseWriter)) (passed bool, err error) {
		r := httptest.NewRequest(http.MethodPut, "/api/v1/nodes/n1?dryRun=All", strings.NewReader(object))
		r.Header.Set("Authorization", "Bearer own")
		info := &request.RequestInfo{IsResourceRequest: true, Verb: "update", Path: "/api/v1/nodes/n1", Resource: "nodes", Name: "n1"}
		caller := &user.DefaultInfo{Name: "system:serviceaccount:shop:web", Extra: map[string][]string{"authentication.kubernetes.io/node-name": {"n1"}}}
		ctx := request.WithUser(request.WithRequestInfo(t.Context(), info), caller)
		err = f.ServeHTTP(httptest.NewRecorder(), r.WithContext(ctx), pipeline.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
			if r.Method == http.MethodPut {
				passed = true
				return nil
			}
			info, _ := request.RequestInfoFrom(r.Context())
			if r.Method != http.MethodGet || r.URL.String() != "/api/v1/nodes/n1" || r.Header.Get("Authorization") != "Bearer own" || info.Verb != "get" {
				t.Errorf("asked for %s %s as %q", r.Method, r.URL, r.Header.Get("Authorization"))
			}
			answer(w)
			return nil
		}))
		return passed, err
	}
	f := compiled(t, knowing(t, nil), policy("p", nil))
	shows := func(w http.ResponseWriter) { _, _ = io.WriteString(w, is) }
	refuses := func(w http.ResponseWriter) {
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, `{"kind":"Status","status":"Failure","reason":"Forbidden","code":403,"message":"no"}`)
	}
	other := strings.Replace(is, "10.0.0.0", "10.0.1.0", 1)
	for _, object := range []string{is, other} {
		if passed, err := put(f, object, refuses); passed || err == nil || err.Error() != "no" {
			t.Errorf("who may not read it: %v, %v", err, passed)
		}
	}
	if passed, err := put(f, is, shows); err != nil || !passed {
		t.Errorf("unchanged: %v, %v", err, passed)
	}
	if passed, err := put(f, other, shows); codeOf(err) != http.StatusForbidden || strings.Contains(err.Error(), "podCIDR") || passed {
		t.Errorf("changed: %v, %v", err, passed)
	}
	masked := compiled(t, knowing(t, nil), policy("p", func(s *v1alpha1.NodePolicySpec) {
		s.Masks = []v1alpha1.NodeMask{{Resource: "nodes", Fields: []string{"/spec/podCIDR"}}}
	}))
	if passed, err := put(masked, is, shows); codeOf(err) != http.StatusForbidden || passed {
		t.Errorf("masked: %v, %v", err, passed)
	}
}

func TestPartsAreNotWatched(t *testing.T) {
	l := knowing(t, nil)
	f := compiled(t, l, policy("p", func(s *v1alpha1.NodePolicySpec) {
		s.Masks = []v1alpha1.NodeMask{{Resource: "nodes", Fields: []string{"/spec/podCIDR"}}}
	}))
	status := request.RequestInfo{Verb: "watch", Resource: "nodes", Subresource: "status", Name: "n1"}
	if got := codeOf(ask(t, f, "/api/v1/watch/nodes/n1/status", status, nil)); got != http.StatusForbidden {
		t.Errorf("got %d", got)
	}
	status.Verb = "get"
	if got := codeOf(ask(t, f, "/api/v1/nodes/n1/status", status, func(_ http.ResponseWriter, r *http.Request) error {
		for _, v := range view.From(r.Context()) {
			if v.Changed() == nil {
				t.Error("a view never changes")
			}
		}
		return nil
	})); got != http.StatusOK {
		t.Errorf("read once: %d", got)
	}
}

func TestWithoutALibraryNothingPasses(t *testing.T) {
	f, _ := (*Library)(nil).Compile(&config.Snapshot{Objects: []runtime.Object{policy("p", nil)}})
	if got := codeOf(ask(t, f, "/", request.RequestInfo{Verb: "list", Resource: "pods"}, nil)); got != http.StatusServiceUnavailable {
		t.Errorf("got %d", got)
	}
}

func TestObjectsSayThemselvesWhoseTheyAre(t *testing.T) {
	l := knowing(t, nil)
	f := compiled(t, l, policy("p", nil))
	l.nodes["n1"].pods.put(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "db", UID: "9"}, Spec: corev1.PodSpec{
		Volumes: []corev1.Volume{{VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "disk"}}}},
	}})
	for _, tt := range []struct {
		group, resource, object string
		want                    bool
	}{
		{"", "persistentvolumes", `{"spec":{"claimRef":{"namespace":"shop","name":"disk"}}}`, true},
		{"", "persistentvolumes", `{"spec":{"claimRef":{"namespace":"bank","name":"disk"}}}`, false},
		{"", "persistentvolumes", `{"spec":{}}`, false},
		{"storage.k8s.io", "volumeattachments", `{"spec":{"nodeName":"n1"}}`, true},
		{"storage.k8s.io", "volumeattachments", `{"spec":{"nodeName":"n2"}}`, false},
		{"certificates.k8s.io", "certificatesigningrequests", `{"spec":{"username":"system:serviceaccount:shop:web"}}`, true},
		{"certificates.k8s.io", "certificatesigningrequests", `{"spec":{"username":"system:node:n2"}}`, false},
	} {
		err := ask(t, f, "/", request.RequestInfo{Verb: "list", APIGroup: tt.group, Resource: tt.resource}, func(_ http.ResponseWriter, r *http.Request) error {
			seen, err := view.From(r.Context()).See(r.Context(), view.Object{JSON: []byte(tt.object)})
			if (seen != nil) != tt.want {
				t.Errorf("%s %s: seen %s", tt.resource, tt.object, seen)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
}

func TestGatewaysLetKubeletsBootstrap(t *testing.T) {
	f := compiled(t, knowing(t, nil), policy("p", func(s *v1alpha1.NodePolicySpec) { s.Placement = v1alpha1.PlacementGateway }))
	csr := request.RequestInfo{IsResourceRequest: true, Verb: "create", APIGroup: "certificates.k8s.io", Resource: "certificatesigningrequests"}
	secret := request.RequestInfo{IsResourceRequest: true, Verb: "get", Namespace: "shop", Resource: "secrets", Name: "own"}
	for name, tt := range map[string]struct {
		groups []string
		info   request.RequestInfo
		want   int32
	}{
		"bootstrapper": {[]string{"system:bootstrappers"}, csr, 200}, "its-secrets": {[]string{"system:bootstrappers"}, secret, 403}, "others": {nil, csr, 403},
	} {
		ctx := request.WithUser(request.WithRequestInfo(t.Context(), &tt.info), &user.DefaultInfo{Name: "somebody", Groups: tt.groups})
		err := f.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil).WithContext(ctx), pipeline.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return nil }))
		if got := codeOf(err); got != tt.want {
			t.Errorf("%s: %d", name, got)
		}
	}
}
