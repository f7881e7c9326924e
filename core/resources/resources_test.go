package resources

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"
	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"

	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
	"github.com/portico-proxy/portico/test/controlplane"
)

// plane is shared by all tests of the package.
var plane *controlplane.ControlPlane

func TestMain(m *testing.M) {
	var err error
	plane, err = controlplane.Start(context.Background(), controlplane.Options{Log: os.Stderr})
	if err != nil {
		panic(err)
	}
	code := m.Run()
	plane.Stop()
	os.Exit(code)
}

// server is the API server, which can be told to break.
type server struct {
	http.RoundTripper
	broken atomic.Bool
	cached atomic.Int64 // answers that said that nothing has changed
}

func (s *server) RoundTrip(r *http.Request) (*http.Response, error) {
	if s.broken.Load() {
		return nil, errors.New("broken")
	}
	res, err := s.RoundTripper.RoundTrip(r)
	if err == nil && res.StatusCode == http.StatusNotModified {
		s.cached.Add(1)
	}
	return res, err
}

// start asks the API server of the tests until the test ends.
func start(t *testing.T) (s *Served, api *server, told chan struct{}, said chan string) {
	t.Helper()
	client, err := rest.HTTPClientFor(plane.Config())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.CloseIdleConnections)
	base, _, err := rest.DefaultServerUrlFor(plane.Config())
	if err != nil {
		t.Fatal(err)
	}
	api = &server{RoundTripper: client.Transport}
	said, told = make(chan string, 100), make(chan struct{}, 1)
	selects := func(policy string) []schema.GroupResource {
		if policy != "selecting" {
			return nil
		}
		return []schema.GroupResource{{Resource: "configmap"}, {Group: "apps", Resource: "deployments"}}
	}
	s = New(Options{Upstream: api, Base: base, Soonest: 50 * time.Millisecond, Selected: selects, Log: funcr.New(func(_, args string) { said <- args }, funcr.Options{})})
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- s.Start(ctx, func() {
			select {
			case told <- struct{}{}:
			default:
			}
		})
	}()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return s, api, told, said
}

// until waits for the condition of a policy to have a status.
func until(t *testing.T, s *Served, told <-chan struct{}, policy runtime.Object, status metav1.ConditionStatus) metav1.Condition {
	t.Helper()
	for late := time.After(2 * time.Minute); ; {
		if found := s.Found(policy); len(found) == 1 && found[0].Status == status {
			return found[0]
		}
		select {
		case <-told:
		case <-late:
			t.Fatalf("the condition is %v", s.Found(policy))
		}
	}
}

func binding(resources ...v1alpha1.MatchedResource) *v1alpha1.FilterBinding {
	return &v1alpha1.FilterBinding{ObjectMeta: metav1.ObjectMeta{Name: "b"}, Spec: v1alpha1.FilterBindingSpec{Match: v1alpha1.RequestMatch{Resources: resources}}}
}

func TestWhatIsNotServedIsNamed(t *testing.T) {
	s, _, told, said := start(t)
	seen := []v1alpha1.ViewResource{{Resource: "secret"}}
	view := &v1alpha1.VirtualView{ObjectMeta: metav1.ObjectMeta{Name: "v"}, Spec: v1alpha1.VirtualViewSpec{
		Hidden: []v1alpha1.ViewResource{{Resource: "*"}, {Group: "*", Resource: "deployment"}}, Objects: []v1alpha1.ViewRule{{Resources: seen}}, Masks: []v1alpha1.ViewMask{{Resources: seen}},
	}}
	node := &v1alpha1.NodePolicy{Spec: v1alpha1.NodePolicySpec{
		Reads: []v1alpha1.NodeRead{{Resource: "svc"}}, Masks: []v1alpha1.NodeMask{{Group: "app", Resource: "deployments"}}, Writes: []v1alpha1.NodeWrite{{Resource: "pods/state"}},
	}}
	cached := &v1alpha1.CachePolicy{Spec: v1alpha1.CachePolicySpec{Resources: []v1alpha1.CachedResource{{Resource: "pod"}, {Resource: "deployments"}}}}
	match := binding(v1alpha1.MatchedResource{Group: "apps", Resource: "deployment"}, v1alpha1.MatchedResource{Group: "apps", Resource: "deploymints/scale"}, v1alpha1.MatchedResource{Group: "*", Resource: "nonsense"})
	module := &v1alpha1.WasmFilter{ObjectMeta: metav1.ObjectMeta{Name: "w"}, Spec: v1alpha1.WasmFilterSpec{ContextResources: []v1alpha1.ContextResource{{Resource: "pods"}, {Resource: "namespace"}}}}
	rego := &v1alpha1.RegoPolicy{ObjectMeta: metav1.ObjectMeta{Name: "selecting"}}
	s.Judge([]runtime.Object{view, node, cached, match, module, rego})
	for _, tt := range []struct {
		policy runtime.Object
		want   []string
	}{
		{view, []string{
			`spec.hidden[1].resource: the API server has no resource "deployment" in any group; did you mean "deployments"?`,
			`spec.objects[0].resources[0].resource: the API server has no resource "secret" in group ""; did you mean "secrets"?`,
			`spec.masks[0].resources[0].resource: the API server has no resource "secret" in group ""; did you mean "secrets"?`,
		}},
		{node, []string{
			`spec.reads[0].resource: the API server has no resource "svc" in group ""; did you mean "services"?`,
			`spec.masks[0].group: the API server has no group "app"; did you mean "deployments" of group "apps"?`,
			`spec.writes[0].resource: the API server has no resource "pods/state" in group ""; its subresources are attach, binding, ephemeralcontainers, eviction, exec, log, portforward, proxy, resize, status`,
		}},
		{cached, []string{
			`spec.resources[0].resource: the API server has no resource "pod" in group ""; did you mean "pods"?`,
			`spec.resources[1].resource: the API server has no resource "deployments" in group ""; did you mean "deployments" of group "apps"?`,
		}},
		{match, []string{
			`spec.match.resources[0].resource: the API server has no resource "deployment" in group "apps"; did you mean "deployments"?`,
			`spec.match.resources[1].resource: the API server has no resource "deploymints/scale" in group "apps"; did you mean "deployments/scale"?`,
			`spec.match.resources[2].resource: the API server has no resource "nonsense" in any group`,
		}},
		{module, []string{`spec.contextResources[1].resource: the API server has no resource "namespace" in group ""; did you mean "namespaces"?`}},
		{rego, []string{`selectors.resource: the API server has no resource "configmap" in group ""; did you mean "configmaps"?`}},
	} {
		got := until(t, s, told, tt.policy, metav1.ConditionFalse)
		if diff := cmp.Diff(text(tt.want), got.Message); diff != "" {
			t.Error(diff)
		}
	}
	for range 6 {
		if line := <-said; !strings.Contains(line, "the API server has no") {
			t.Errorf("logged %s", line)
		}
	}
	<-told
	<-told
	if len(said) > 0 {
		t.Errorf("logged twice: %s", <-said)
	}
}

func TestWhatIsServedIsKnown(t *testing.T) {
	s, api, told, said := start(t)
	good := binding(
		v1alpha1.MatchedResource{Resource: "pods/exec"}, v1alpha1.MatchedResource{Group: "apps", Resource: "deployments/*"}, v1alpha1.MatchedResource{Group: "*", Resource: "*"},
		v1alpha1.MatchedResource{Group: "*", Resource: "deployments/scale"}, v1alpha1.MatchedResource{Group: "batch", Resource: "*/status"})
	s.Judge([]runtime.Object{good})
	until(t, s, told, good, metav1.ConditionTrue)
	for api.cached.Load() == 0 { // what has not changed is not sent again
		<-told
	}
	if found := s.Found(&v1alpha1.RegoPolicy{}); found != nil {
		t.Errorf("a policy that has named no resources has %v", found)
	}
	if found := s.Found(&v1alpha1.WasmFilter{}); found != nil {
		t.Errorf("a module that looks nothing up has %v", found)
	}
	if len(said) > 0 {
		t.Errorf("logged %s", <-said)
	}
}

func TestWhatIsNotKnownIsNotSaid(t *testing.T) {
	s, api, told, _ := start(t)
	api.broken.Store(true)
	bad := binding(v1alpha1.MatchedResource{Resource: "secret"})
	s.Judge([]runtime.Object{bad})
	<-told
	if found := s.Found(bad); found != nil {
		t.Errorf("while nothing is known: %v", found)
	}
	api.broken.Store(false)
	until(t, s, told, bad, metav1.ConditionFalse)
	s.Judge([]runtime.Object{bad})
	if found := s.Found(bad); found != nil {
		t.Errorf("of what was known before the policy: %v", found)
	}
	until(t, s, told, bad, metav1.ConditionFalse)
}

func TestWhatIsStaleIsNotJudged(t *testing.T) {
	k := &known{groups: map[string]*group{
		"":        {resources: map[string]*resource{"pods": {}}},
		"metrics": {stale: true, resources: map[string]*resource{}},
	}}
	for _, tt := range []struct {
		group, resource string
		wrong           bool
	}{
		{"", "secret", true}, {"metrics", "nodes", false}, {"*", "nodes", false}, {"other", "nodes", false},
	} {
		if got := k.missing([]name{{nil, tt.group, tt.resource}}); len(got) > 0 != tt.wrong {
			t.Errorf("%s %s: %v", tt.group, tt.resource, got)
		}
	}
}

func TestDefinitionThatComesIsNoticed(t *testing.T) {
	s, _, told, said := start(t)
	early := binding(v1alpha1.MatchedResource{Group: v1alpha1.GroupVersion.Group, Resource: "wasmfilters"})
	s.Judge([]runtime.Object{early})
	until(t, s, told, early, metav1.ConditionFalse)
	<-said
	manifests := t.TempDir()
	manifest, err := os.ReadFile("../../crds/manifests/proxy.elf.io_wasmfilters.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(manifests, "crd.yaml"), manifest, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := plane.AddDefinitions(t.Context(), manifests); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if out, err := plane.Kubectl(context.Background(), plane.KubeconfigPath(), "delete", "-f", manifests).CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
	until(t, s, told, early, metav1.ConditionTrue)
}
