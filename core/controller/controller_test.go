package controller

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/portico-proxy/portico/core/config"
	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
	"github.com/portico-proxy/portico/test/controlplane"
)

// plane is shared by all tests of the package, which run one after another.
var plane *controlplane.ControlPlane

func TestMain(m *testing.M) {
	var err error
	plane, err = controlplane.Start(context.Background(), controlplane.Options{Log: os.Stderr, Users: []controlplane.User{{Name: "joe"}}})
	if err != nil {
		panic(err)
	}
	code := m.Run()
	plane.Stop()
	os.Exit(code)
}

var (
	resource    = v1alpha1.GroupVersion.WithResource("cachepolicies")
	definitions = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
)

const definition = "cachepolicies.proxy.elf.io"

func client(t *testing.T, cfg *rest.Config) dynamic.Interface {
	t.Helper()
	c, err := rest.HTTPClientFor(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdleConnections)
	d, err := dynamic.NewForConfigAndClient(cfg, c)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// install makes the custom resource known, as the manifest or as edit leaves
// it, until the test ends.
func install(t *testing.T, edit func(spec map[string]any)) {
	t.Helper()
	manifest, err := os.ReadFile("../../crds/manifests/proxy.elf.io_cachepolicies.yaml")
	if err != nil {
		t.Fatal(err)
	}
	crd := &unstructured.Unstructured{}
	if err := yaml.Unmarshal(manifest, &crd.Object); err != nil {
		t.Fatal(err)
	}
	if edit != nil {
		versions, _, _ := unstructured.NestedSlice(crd.Object, "spec", "versions")
		spec, _, _ := unstructured.NestedMap(versions[0].(map[string]any), "schema", "openAPIV3Schema", "properties", "spec")
		edit(spec)
		_ = unstructured.SetNestedMap(versions[0].(map[string]any), spec, "schema", "openAPIV3Schema", "properties", "spec")
		_ = unstructured.SetNestedSlice(crd.Object, versions, "spec", "versions")
	}
	all := client(t, plane.Config()).Resource(definitions)
	if _, err := all.Create(t.Context(), crd, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := context.Background()
		_ = all.Delete(ctx, definition, metav1.DeleteOptions{})
		until(t, func() bool { _, err := all.Get(ctx, definition, metav1.GetOptions{}); return apierrors.IsNotFound(err) })
	})
	until(t, func() bool {
		_, err := client(t, plane.Config()).Resource(resource).List(t.Context(), metav1.ListOptions{})
		return err == nil
	})
}

// until waits for something that happens in another process.
func until(t *testing.T, done func() bool) {
	t.Helper()
	tick, deadline := time.NewTicker(20*time.Millisecond), time.After(2*time.Minute)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("waited in vain")
		}
	}
}

// policies is a followed API.
type policies struct {
	t       *testing.T
	applied chan []string          // names with their memory modes
	refuse  atomic.Pointer[string] // what Apply answers
}

// follow runs a controller until the test ends.
func follow(t *testing.T, c dynamic.Interface, by string, log logr.Logger) *policies {
	t.Helper()
	return followed(t, c, func(o *Options) { o.By, o.Log = by, log })
}

func followed(t *testing.T, c dynamic.Interface, edit func(*Options)) *policies {
	t.Helper()
	p := &policies{t: t, applied: make(chan []string, 1000)}
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	controller := &Controller{Options: Options{
		Client: c, Resources: []schema.GroupVersionResource{resource}, Scheme: scheme, By: "n1", Spread: 100 * time.Millisecond, Apply: p.apply,
	}}
	edit(&controller.Options)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- controller.Start(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return p
}

func (p *policies) apply(objects []runtime.Object, _ string) error {
	if why := p.refuse.Load(); why != nil {
		return errors.New(*why)
	}
	names := []string{}
	for _, o := range objects {
		policy := o.(*v1alpha1.CachePolicy)
		names = append(names, policy.Name+" "+string(policy.Spec.Memory))
	}
	p.applied <- names
	return nil
}

// next checks what is put in force next.
func (p *policies) next(want ...string) {
	p.t.Helper()
	select {
	case got := <-p.applied:
		if diff := cmp.Diff(append([]string{}, want...), got); diff != "" {
			p.t.Errorf("in force (-want +got):\n%s", diff)
		}
	case <-time.After(2 * time.Minute):
		p.t.Fatal("nothing was put in force")
	}
}

func asking(name, memory string) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "proxy.elf.io/v1alpha1", "kind": "CachePolicy", "metadata": map[string]any{"name": name},
		"spec": map[string]any{"resources": []any{map[string]any{"resource": "pods"}}, "memory": memory},
	}}
}

func put(t *testing.T, c dynamic.Interface, u *unstructured.Unstructured) {
	t.Helper()
	_, err := c.Resource(resource).Apply(t.Context(), u.GetName(), u, metav1.ApplyOptions{FieldManager: "test", Force: true})
	if err != nil {
		t.Fatal(err)
	}
}

// condition waits for one to say status of the generation that there is.
func condition(t *testing.T, c dynamic.Interface, name, kind string, status metav1.ConditionStatus) (found metav1.Condition) {
	t.Helper()
	until(t, func() bool {
		u, err := c.Resource(resource).Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		is := meta.FindStatusCondition(conditionsOf(u), kind)
		if is == nil || is.ObservedGeneration != u.GetGeneration() || is.Status != status {
			return false
		}
		found = *is
		return true
	})
	return found
}

func TestPoliciesAreFollowedAndReportedOn(t *testing.T) {
	ignore := goleak.IgnoreCurrent()
	// Last of all.
	t.Cleanup(func() {
		goleak.VerifyNone(t, ignore, goleak.IgnoreAnyFunction("net/http.(*http2ClientConn).readLoop"), goleak.IgnoreAnyFunction("golang.org/x/net/http2.(*ClientConn).readLoop"))
	})
	install(t, nil)
	c := client(t, plane.Config())
	p := follow(t, c, "n1", logr.Discard())
	p.next()
	put(t, c, asking("b", "Keep"))
	p.next("b Keep")
	put(t, c, asking("a", "Refuse"))
	p.next("a Refuse", "b Keep")
	for _, name := range []string{"a", "b"} {
		condition(t, c, name, config.Accepted, metav1.ConditionTrue)
		condition(t, c, name, config.Programmed, metav1.ConditionTrue)
	}
	put(t, c, asking("b", "Refuse"))
	p.next("a Refuse", "b Refuse")
	condition(t, c, "b", config.Accepted, metav1.ConditionTrue)
	if err := c.Resource(resource).Delete(t.Context(), "a", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	p.next("b Refuse")
}

func TestWithoutDefinitionThereAreNoneUntilThereIs(t *testing.T) {
	said := make(chan string, 100)
	c := client(t, plane.Config())
	p := follow(t, c, "n1", funcr.New(func(_, args string) { said <- args }, funcr.Options{}))
	p.next()
	if line := <-said; !strings.Contains(line, "not installed") {
		t.Errorf("logged %s", line)
	}
	install(t, nil)
	put(t, c, asking("a", "Keep"))
	for names := []string(nil); len(names) == 0; {
		select {
		case names = <-p.applied:
		case <-time.After(2 * time.Minute):
			t.Fatal("the definition was not noticed")
		}
	}
	condition(t, c, "a", config.Programmed, metav1.ConditionTrue)
	if len(said) > 0 {
		t.Errorf("logged more than once: %s", <-said)
	}
}

func TestWithoutRightsThereAreNone(t *testing.T) {
	install(t, nil)
	put(t, client(t, plane.Config()), asking("a", "Refuse"))
	said := make(chan string, 100)
	p := follow(t, client(t, plane.ConfigFor(plane.Token("joe"))), "n1", funcr.New(func(_, args string) { said <- args }, funcr.Options{}))
	p.next()
	if line := <-said; !strings.Contains(line, "may not list and watch") {
		t.Errorf("logged %s", line)
	}
}

// failing answers requests by itself, each failure once, and then passes them on.
type failing struct {
	http.RoundTripper
	failures chan func(*http.Request) (*http.Response, error)
}

func (f failing) RoundTrip(r *http.Request) (*http.Response, error) {
	select {
	case fail := <-f.failures:
		return fail(r)
	default:
		return f.RoundTripper.RoundTrip(r)
	}
}

func unreachable(*http.Request) (*http.Response, error) {
	return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
}

func status(code int) func(*http.Request) (*http.Response, error) {
	return func(r *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: code, Header: http.Header{}, Body: http.NoBody, Request: r}, nil
	}
}

// TestAPIServerThatIsGoneIsAskedAgainSoon starts while there is none: client-go
// alone would wait for longer each time, more than fifty seconds in all.
func TestAPIServerThatIsGoneIsAskedAgainSoon(t *testing.T) {
	install(t, nil)
	put(t, client(t, plane.Config()), asking("a", "Refuse"))
	failures := make(chan func(*http.Request) (*http.Response, error), 6)
	for _, fail := range []func(*http.Request) (*http.Response, error){
		unreachable, unreachable, status(http.StatusBadGateway), status(http.StatusServiceUnavailable), unreachable, status(http.StatusGatewayTimeout),
	} {
		failures <- fail
	}
	cfg := plane.Config()
	cfg.Wrap(func(rt http.RoundTripper) http.RoundTripper { return failing{rt, failures} })
	said := make(chan string, 100)
	started := time.Now()
	p := follow(t, client(t, cfg), "n1", funcr.New(func(_, args string) { said <- args }, funcr.Options{}))
	p.next("a Refuse")
	if took := time.Since(started); len(failures) > 0 || took > 35*time.Second {
		t.Errorf("it took %v, and %d failures were not met", took, len(failures))
	}
	for _, want := range []string{"policies of the API are not followed for now", "policies of the API are followed again"} {
		if line := <-said; !strings.Contains(line, want) || !strings.Contains(line, "cachepolicies") {
			t.Errorf("logged %s, want %s", line, want)
		}
	}
	if len(said) > 0 {
		t.Errorf("logged besides: %s", <-said)
	}
}

// TestAPIServerThatStartsIsNotBelieved has one refuse what it will grant.
func TestAPIServerThatStartsIsNotBelieved(t *testing.T) {
	install(t, nil)
	put(t, client(t, plane.Config()), asking("a", "Refuse"))
	failures := make(chan func(*http.Request) (*http.Response, error), 3)
	for _, fail := range []func(*http.Request) (*http.Response, error){unreachable, status(http.StatusForbidden), status(http.StatusUnauthorized)} {
		failures <- fail
	}
	cfg := plane.Config()
	cfg.Wrap(func(rt http.RoundTripper) http.RoundTripper { return failing{rt, failures} })
	followed(t, client(t, cfg), func(o *Options) {
		o.Started = func(context.Context) bool { return len(failures) == 0 }
	}).next("a Refuse") // and not nothing before
	// Whoever is refused by one that has started has no policies.
	joe := client(t, plane.ConfigFor(plane.Token("joe")))
	followed(t, joe, func(o *Options) { o.Started = func(context.Context) bool { return true } }).next()
}

// revocable sends requests as one who may, and once that is over ends those that
// are open and sends others as one who may not.
type revocable struct {
	may, mayNot http.RoundTripper
	over        context.Context
}

func (c revocable) RoundTrip(r *http.Request) (*http.Response, error) {
	if c.over.Err() != nil {
		return c.mayNot.RoundTrip(r)
	}
	ctx, cancel := context.WithCancel(r.Context())
	context.AfterFunc(c.over, cancel)
	return c.may.RoundTrip(r.WithContext(ctx))
}

func TestRightThatIsLostLeavesWhatWasSaid(t *testing.T) {
	install(t, nil)
	put(t, client(t, plane.Config()), asking("a", "Refuse"))
	over, revoke := context.WithCancel(context.Background())
	defer revoke()
	mayNot, err := rest.HTTPClientFor(plane.ConfigFor(plane.Token("joe")))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(mayNot.CloseIdleConnections)
	cfg := plane.Config()
	cfg.Wrap(func(may http.RoundTripper) http.RoundTripper { return revocable{may, mayNot.Transport, over} })
	said := make(chan string, 100)
	p := follow(t, client(t, cfg), "n1", funcr.New(func(_, args string) { said <- args }, funcr.Options{}))
	p.next("a Refuse")
	revoke()
	until(t, func() bool {
		select {
		case line := <-said:
			return strings.Contains(line, "may not list and watch")
		default:
			return false
		}
	})
	select {
	case got := <-p.applied:
		t.Errorf("in force after the right was lost: %v", got)
	case <-time.After(time.Second): // there is nothing to wait for
	}
}

func TestBadPolicyLeavesWhatItSaidBefore(t *testing.T) {
	// A definition of a later version allows what this build does not know.
	install(t, func(spec map[string]any) {
		unstructured.RemoveNestedField(spec, "properties", "memory", "enum")
		delete(spec, "x-kubernetes-validations")
	})
	c := client(t, plane.Config())
	p := follow(t, c, "n1", logr.Discard())
	p.next()
	put(t, c, asking("a", "Refuse"))
	p.next("a Refuse")
	put(t, c, asking("a", "Sometimes"))
	if got := condition(t, c, "a", config.Accepted, metav1.ConditionFalse); !strings.Contains(got.Message, "spec.memory") || !strings.Contains(got.Message, "(n1)") {
		t.Errorf("the field is not named: %+v", got)
	}
	put(t, c, asking("b", "Keep"))
	p.next("a Refuse", "b Keep") // a as it was
	put(t, c, asking("a", "Keep"))
	p.next("a Keep", "b Keep")
	condition(t, c, "a", config.Accepted, metav1.ConditionTrue)
}

// TestPolicyMadeAgainIsReadAgain replaces one that was refused by a good one that
// has its name and its generation.
func TestPolicyMadeAgainIsReadAgain(t *testing.T) {
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	c := &Controller{Options: Options{Scheme: scheme, Log: logr.Discard()}}
	k := &kind{resource: resource, policies: map[string]*policy{}}
	for uid, memory := range []string{"Sometimes", "Keep"} {
		u := asking("a", memory)
		u.SetUID(types.UID(fmt.Sprint(uid)))
		u.SetGeneration(1)
		c.read(k, "a", u)
	}
	if p := k.policies["a"]; p.err != nil || p.good == nil {
		t.Errorf("the second was not read: %v", p.err)
	}
}

func TestRefusedPoliciesAreReported(t *testing.T) {
	install(t, nil)
	c := client(t, plane.Config())
	p := follow(t, c, "n1", logr.Discard())
	p.next()
	why := "no room"
	p.refuse.Store(&why)
	put(t, c, asking("a", "Keep"))
	if got := condition(t, c, "a", config.Programmed, metav1.ConditionFalse); got.Message != "no room (n1)" {
		t.Errorf("got %+v", got)
	}
	condition(t, c, "a", config.Accepted, metav1.ConditionTrue)
}

// counted counts the writes that were made.
type counted struct {
	http.RoundTripper
	made *atomic.Int64
}

func (c counted) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := c.RoundTripper.RoundTrip(r)
	if err == nil && r.Method == http.MethodPut && res.StatusCode == http.StatusOK {
		c.made.Add(1)
	}
	return res, err
}

func TestOneOfManyProxiesReports(t *testing.T) {
	install(t, nil)
	cfg := plane.Config()
	made := &atomic.Int64{}
	cfg.Wrap(func(rt http.RoundTripper) http.RoundTripper { return counted{rt, made} })
	many := client(t, cfg)
	for n := range 20 {
		follow(t, many, fmt.Sprintf("n%d", n), logr.Discard()).next()
	}
	c := client(t, plane.Config())
	const changes = 6
	for n := range changes {
		put(t, c, asking("a", []string{"Keep", "Refuse"}[n%2]))
		condition(t, c, "a", config.Programmed, metav1.ConditionTrue)
	}
	if n := made.Load(); n > changes {
		t.Errorf("%d writes of %d changes", n, changes)
	}
}

func TestOnlyNewsIsWritten(t *testing.T) {
	c := &Controller{Options: Options{By: "n1"}}
	say := func(status metav1.ConditionStatus, generation int64, by string) metav1.Condition {
		return metav1.Condition{Type: config.Accepted, Status: status, ObservedGeneration: generation, Message: "(" + by + ")"}
	}
	const yes, no = metav1.ConditionTrue, metav1.ConditionFalse
	for name, tt := range map[string]struct {
		is, want metav1.Condition
		news     bool
	}{
		"same":                    {say(yes, 1, "n2"), say(yes, 1, "n1"), false},
		"same-refusal-of-another": {say(no, 1, "n2"), say(no, 1, "n1"), false},
		"older":                   {say(yes, 1, "n2"), say(yes, 2, "n1"), true},
		"newer":                   {say(no, 3, "n2"), say(yes, 2, "n1"), false},
		"refusal-over-acceptance": {say(yes, 1, "n2"), say(no, 1, "n1"), true},
		"acceptance-over-refusal": {say(no, 1, "some (n2)"), say(yes, 1, "n1"), false},
		"own-refusal-taken-back":  {metav1.Condition{Type: config.Accepted, Status: no, ObservedGeneration: 1, Message: "bad (n1)"}, say(yes, 1, "n1"), true},
		"own-refusal-again":       {say(no, 1, "n1"), say(no, 1, "n1"), false},
		"own-refusal-in-other-words": {
			metav1.Condition{Type: config.Accepted, Status: no, ObservedGeneration: 1, Message: "not there (n1)"},
			metav1.Condition{Type: config.Accepted, Status: no, ObservedGeneration: 1, Message: "bad (n1)"}, true,
		},
		"other-words-for-anothers": {
			metav1.Condition{Type: config.Accepted, Status: no, ObservedGeneration: 1, Message: "not there (n2)"},
			metav1.Condition{Type: config.Accepted, Status: no, ObservedGeneration: 1, Message: "bad (n1)"}, false,
		},
	} {
		if got := c.isNews([]metav1.Condition{tt.is}, tt.want); got != tt.news {
			t.Errorf("%s: %v", name, got)
		}
	}
	seen := func(status metav1.ConditionStatus, second int64) metav1.Condition {
		return metav1.Condition{Type: config.ResourcesKnown, Status: status, LastTransitionTime: metav1.Unix(second, 0)}
	}
	for name, tt := range map[string]struct {
		is, want metav1.Condition
		news     bool
	}{
		"looked-later":      {seen(yes, 1), seen(no, 2), true},
		"looked-later-too":  {seen(no, 1), seen(yes, 2), true},
		"looked-before":     {seen(yes, 2), seen(no, 1), false},
		"looked-at-once":    {seen(yes, 2), seen(no, 2), false},
		"looked-and-agreed": {seen(yes, 1), seen(yes, 2), false},
	} {
		if got := c.isNews([]metav1.Condition{tt.is}, tt.want); got != tt.news {
			t.Errorf("%s: %v", name, got)
		}
	}
	if !c.isNews(nil, say(yes, 1, "n1")) {
		t.Error("nothing has been written yet")
	}
}
