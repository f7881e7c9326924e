package rego

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr/testr"
	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/portico-proxy/portico/core/config"
	"github.com/portico-proxy/portico/core/limit"
	"github.com/portico-proxy/portico/core/pipeline"
	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
)

const restricts = `package a

deny contains "no secrets" if input.resource == "secrets"

deny contains "nothing of joe's" if input.user.name == "joe"

warn contains "pods\nare dear" if input.resource == "pods"

limits contains {"id": "all", "key": [input.user.name], "tokens": {"rate": 1}}
`

func policy(name, rego string) *v1alpha1.RegoPolicy {
	return &v1alpha1.RegoPolicy{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.RegoPolicySpec{
		Rego: rego, Settings: &runtime.RawExtension{Raw: []byte(`{"n": 3}`)}, Deadline: &metav1.Duration{Duration: maxDeadline},
	}}
}

// maxDeadline is for tests: nothing runs out of time on a busy machine.
const maxDeadline = 10 * time.Second

func bind(name string, phase v1alpha1.FilterPhase, change func(*v1alpha1.FilterBindingSpec)) *v1alpha1.FilterBinding {
	b := &v1alpha1.FilterBinding{ObjectMeta: metav1.ObjectMeta{Name: "b"}, Spec: v1alpha1.FilterBindingSpec{
		FilterRef: v1alpha1.FilterRef{Kind: v1alpha1.FilterKindRego, Name: name}, Phase: phase,
	}}
	if change != nil {
		change(&b.Spec)
	}
	return b
}

// said is what became of a request.
type said struct {
	code     int // 0 if it passed
	text     string
	warnings []string
	limits   []string
	decided  string
}

type asking struct {
	method, path string
	caller       user.Info // nil has a token that nobody knows
}

// ask sends a request through the filter of objects.
func ask(t *testing.T, l *Library, a asking, objects ...runtime.Object) (said, config.Findings) {
	t.Helper()
	f, found := l.Compile(&config.Snapshot{Objects: objects})
	r := httptest.NewRequestWithContext(t.Context(), a.method, a.path, nil)
	info, err := infos.NewRequestInfo(r)
	if err != nil {
		t.Fatal(err)
	}
	ctx := request.WithRequestInfo(r.Context(), info)
	if r.Header.Set("Authorization", "Bearer x"); a.caller != nil {
		ctx = request.WithUser(ctx, a.caller)
	}
	var out said
	l.options.Observe = func(_ *v1alpha1.FilterBindingSpec, _, decision string, _ time.Duration) { out.decided = decision }
	w := httptest.NewRecorder()
	err = f.ServeHTTP(w, r.WithContext(ctx), pipeline.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		for _, one := range limit.From(r.Context()) {
			text := one.Policy + "/" + one.ID
			if one.Audit {
				text += " audited"
			}
			out.limits = append(out.limits, text)
		}
		_, err := io.WriteString(w, "ok")
		return err
	}))
	if err != nil {
		status := pipeline.StatusOf(err)
		out.code, out.text = int(status.Code), status.Message
	}
	out.warnings = w.Header()["Warning"]
	return out, found
}

var (
	jane = &user.DefaultInfo{Name: "jane"}
	joe  = &user.DefaultInfo{Name: "joe"}
)

func TestBindingsDoWhatTheySay(t *testing.T) {
	audit := func(s *v1alpha1.FilterBindingSpec) { s.Mode = v1alpha1.ModeAudit }
	ignore := func(s *v1alpha1.FilterBindingSpec) { s.FailurePolicy = v1alpha1.FailurePolicyIgnore }
	fail := func(s *v1alpha1.FilterBindingSpec) { s.FailurePolicy = v1alpha1.FailurePolicyFail }
	const restrict, throttle = v1alpha1.PhaseRestrict, v1alpha1.PhaseThrottle
	const fails = "package a\n\ndeny contains \"x\" if to_number(input.name) > 3\n\nlimits contains {\"id\": input.path, \"key\": [\"k\"], \"tokens\": {\"rate\": 1}}\n"
	pods, secrets := "/api/v1/pods", "/api/v1/secrets"
	for name, tt := range map[string]struct {
		rego   string
		phase  v1alpha1.FilterPhase
		change func(*v1alpha1.FilterBindingSpec)
		asking asking
		want   said
	}{
		"denied":        {restricts, restrict, nil, asking{"GET", secrets, jane}, said{code: 403, text: "no secrets (filter b)", decided: "deny"}},
		"denied-twice":  {restricts, restrict, nil, asking{"GET", secrets, joe}, said{code: 403, text: "no secrets; nothing of joe's (filter b)", decided: "deny"}},
		"warned":        {restricts, restrict, nil, asking{"GET", pods, jane}, said{warnings: []string{`299 - "pods are dear"`}, decided: "pass"}},
		"limited":       {restricts, throttle, nil, asking{"GET", pods, jane}, said{limits: []string{"p/all"}, decided: "pass"}},
		"audit-deny":    {restricts, restrict, audit, asking{"GET", secrets, jane}, said{decided: "deny"}},
		"audit-limit":   {restricts, throttle, audit, asking{"GET", pods, jane}, said{limits: []string{"p/all audited"}, decided: "pass"}},
		"fails-closed":  {fails, restrict, nil, asking{"GET", pods + "/x", jane}, said{code: 500, text: "filter b: evaluate: ", decided: "error"}},
		"fails-open":    {fails, restrict, ignore, asking{"GET", pods + "/x", jane}, said{decided: "error"}},
		"throttle-open": {fails, throttle, nil, asking{"GET", pods, jane}, said{decided: "error"}},
		"throttle-fail": {fails, throttle, fail, asking{"GET", pods, jane}, said{code: 500, text: "filter b: limit /api/v1/pods: id: ", decided: "error"}},
		"no-policy":     {"", restrict, nil, asking{"GET", pods, jane}, said{code: 503, text: "filter b: there is no such RegoPolicy", decided: "error"}},
		"no-throttle":   {"", throttle, nil, asking{"GET", pods, jane}, said{decided: "error"}},
		"mistake":       {"package a\n\nx", restrict, nil, asking{"GET", pods, jane}, said{code: 503, text: "filter b: line 3, column 1: ", decided: "error"}},
		"unknown":       {restricts, restrict, nil, asking{"GET", pods, nil}, said{code: 401, text: "a policy of this proxy concerns the request", decided: "error"}},
		"unknown-open":  {restricts, throttle, nil, asking{"GET", pods, nil}, said{decided: "error"}},
		"not-matched": {restricts, restrict, func(s *v1alpha1.FilterBindingSpec) { s.Match.Users = []string{"ann"} },
			asking{"GET", secrets, jane}, said{}},
		"not-about": {restricts, restrict, func(s *v1alpha1.FilterBindingSpec) { s.Match.Verbs = []string{"create"} },
			asking{"GET", secrets, nil}, said{}},
	} {
		t.Run(name, func(t *testing.T) {
			objects := []runtime.Object{bind("p", tt.phase, tt.change)}
			if tt.rego != "" {
				objects = append(objects, policy("p", tt.rego))
			}
			got, _ := ask(t, NewLibrary(Options{Log: testr.New(t)}), tt.asking, objects...)
			if strings.HasPrefix(got.text, tt.want.text) {
				got.text = tt.want.text
			}
			if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(said{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestVitalRequestsAreNotThrottled has everything limited, and what a cluster lives
// by pass, unless the binding names it.
func TestVitalRequestsAreNotThrottled(t *testing.T) {
	node := &user.DefaultInfo{Name: "system:node:n1", Groups: []string{"system:nodes"}}
	lease := asking{"PUT", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1", node}
	named := func(s *v1alpha1.FilterBindingSpec) {
		s.Match.Resources = []v1alpha1.MatchedResource{{Group: "coordination.k8s.io", Resource: "leases"}}
	}
	all := func(s *v1alpha1.FilterBindingSpec) {
		s.Match.Resources = []v1alpha1.MatchedResource{{Group: "*", Resource: "*"}}
	}
	for name, tt := range map[string]struct {
		asking  asking
		change  func(*v1alpha1.FilterBindingSpec)
		limited bool
	}{
		"lease":         {lease, nil, false},
		"lease-of-all":  {lease, all, false},
		"lease-named":   {lease, named, true},
		"leases-listed": {asking{"GET", "/apis/coordination.k8s.io/v1/leases", node}, nil, true},
		"heartbeat":     {asking{"PATCH", "/api/v1/nodes/n1/status", node}, nil, false},
		"other-status":  {asking{"PATCH", "/api/v1/nodes/n1/status", jane}, nil, true},
		"review":        {asking{"POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", jane}, nil, false},
		"token":         {asking{"POST", "/api/v1/namespaces/shop/serviceaccounts/web/token", jane}, nil, false},
		"health":        {asking{"GET", "/readyz", jane}, nil, false},
		"health-part":   {asking{"GET", "/livez/etcd", jane}, nil, false},
		"discovery":     {asking{"GET", "/apis/apps/v1", jane}, nil, false},
		"metrics":       {asking{"GET", "/metrics", jane}, nil, true},
		"apiserver":     {asking{"GET", "/api/v1/pods", &user.DefaultInfo{Name: "system:apiserver"}}, nil, false},
		"pods":          {asking{"GET", "/api/v1/pods", jane}, nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			got, _ := ask(t, NewLibrary(Options{Log: testr.New(t)}), tt.asking, policy("p", restricts), bind("p", v1alpha1.PhaseThrottle, tt.change))
			if limited := len(got.limits) > 0; limited != tt.limited || got.code != 0 {
				t.Errorf("got %+v, want limits: %t", got, tt.limited)
			}
		})
	}
}

func conditions(found config.Findings, of runtime.Object) string {
	var all []string
	for _, c := range found[of] {
		all = append(all, c.Type+"="+string(c.Status)+": "+c.Message)
	}
	return strings.Join(all, "\n")
}

func TestWrongPoliciesLeaveTheOneBefore(t *testing.T) {
	l := NewLibrary(Options{Log: testr.New(t)})
	good, bad := policy("p", restricts), policy("p", "package a\n\ndeny contains \"x\" if input.nothing == 1\n")
	secrets, b := asking{"GET", "/api/v1/secrets", jane}, bind("p", v1alpha1.PhaseRestrict, nil)
	if _, found := ask(t, l, secrets, good, b); !strings.HasPrefix(conditions(found, good), "Compiled=True: It was compiled in ") {
		t.Errorf("found %q", conditions(found, good))
	}
	for range 2 {
		got, found := ask(t, l, secrets, bad, b)
		if got.code != 403 || !strings.HasPrefix(conditions(found, bad), "Compiled=False: spec.rego, line 3, column 22: undefined ref: input.nothing") ||
			!strings.HasSuffix(conditions(found, bad), "Programmed=False: The policy before this one stays in force.") {
			t.Errorf("got %+v, found %q", got, conditions(found, bad))
		}
	}
	if got, found := ask(t, l, secrets, good, b); got.code != 403 || strings.Contains(conditions(found, good), "False") {
		t.Errorf("got %+v, found %q", got, conditions(found, good))
	}
	if got, _ := ask(t, l, secrets, bad); got.code != 0 {
		t.Errorf("without a binding: %+v", got)
	}
	ask(t, l, secrets) // all are gone
	got, found := ask(t, l, secrets, bad, b)
	if got.code != 503 || !strings.Contains(conditions(found, b), "Programmed=False: RegoPolicy p: line 3, column 22") {
		t.Errorf("got %+v, found %q", got, conditions(found, b))
	}
}

func TestBindingsThatAskForNothingAreReported(t *testing.T) {
	p, b := policy("p", "package a\n\nwarn contains \"x\" if input.verb == \"get\"\n"), bind("p", v1alpha1.PhaseThrottle, nil)
	_, found := ask(t, NewLibrary(Options{Log: testr.New(t)}), asking{"GET", "/api/v1/pods", jane}, p, b)
	if got := conditions(found, b); got != "Programmed=False: RegoPolicy p has no limits, which is what a binding of phase Throttle asks for." {
		t.Errorf("found %q", got)
	}
}

func TestFileWinsOverAPI(t *testing.T) {
	file, api := policy("p", restricts), policy("p", "package a\n\nwarn contains \"x\"\n")
	got, found := ask(t, NewLibrary(Options{Log: testr.New(t)}), asking{"GET", "/api/v1/secrets", jane}, file, api, bind("p", v1alpha1.PhaseRestrict, nil))
	if got.code != 403 || !strings.Contains(conditions(found, api), "has the same name") {
		t.Errorf("got %+v, found %q", got, conditions(found, api))
	}
}

// TestUnchangedPoliciesKeepTheirAnswers has other policies change.
func TestUnchangedPoliciesKeepTheirAnswers(t *testing.T) {
	l := NewLibrary(Options{Log: testr.New(t)})
	b := bind("p", v1alpha1.PhaseRestrict, nil)
	ask(t, l, asking{"GET", "/api/v1/pods", jane}, policy("p", restricts), b)
	before := l.shelves["p"].policy
	ask(t, l, asking{"GET", "/api/v1/pods", jane}, policy("p", restricts), b, policy("q", restricts))
	if after := l.shelves["p"].policy; before != after || after.decision.cache.size() != 1 {
		t.Error("a policy was compiled anew that had not changed")
	}
}

// TestREADMEIsInForce has the README's objects put in force as they stand there.
func TestREADMEIsInForce(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(readme), "```yaml\n")
	text, _, _ = strings.Cut(text, "```\n")
	dir, scheme := t.TempDir(), runtime.NewScheme()
	if err := errors.Join(v1alpha1.AddToScheme(scheme), os.WriteFile(filepath.Join(dir, "readme.yaml"), []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
	s, err := config.Loader{Dir: dir, Scheme: scheme}.Load()
	if err != nil || len(s.Objects) != 2 {
		t.Fatalf("got %v, %v", s, err)
	}
	accounts := &user.DefaultInfo{Name: "a", Groups: []string{"system:serviceaccounts"}}
	got, found := ask(t, NewLibrary(Options{Log: testr.New(t)}), asking{"POST", "/api/v1/namespaces/shop/pods", accounts}, s.Objects...)
	if diff := cmp.Diff([]string{"quiet-nights/writes audited"}, got.limits); diff != "" {
		t.Error(diff)
	}
	for o := range found {
		if strings.Contains(conditions(found, o), "False") {
			t.Error(conditions(found, o))
		}
	}
}

// TestHammerOfReloads has policies change while requests are judged: each gets an
// answer of one of them.
func TestHammerOfReloads(t *testing.T) {
	l := NewLibrary(Options{Log: testr.New(t)})
	var current atomic.Pointer[Filter]
	change := func(n int) {
		f, _ := l.Compile(&config.Snapshot{Objects: []runtime.Object{
			policy("p", fmt.Sprintf("package a\n\ndeny contains \"no %d\" if input.name != \"\"\n", n%3)), bind("p", v1alpha1.PhaseRestrict, nil),
		}})
		current.Store(f)
	}
	change(0)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for n := range 200 {
				facts := sent(t, "GET", fmt.Sprintf("/api/v1/namespaces/shop/pods/web-%d", n%7*i), jane)
				r := facts.Request.WithContext(request.WithUser(facts.Request.Context(), jane))
				err := current.Load().ServeHTTP(httptest.NewRecorder(), r, pipeline.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return nil }))
				if err == nil || !strings.HasPrefix(pipeline.StatusOf(err).Message, "no ") {
					t.Errorf("got %v", err)
				}
			}
		})
	}
	for n := range 60 {
		change(n)
	}
	wg.Wait()
}

func TestNilLibraryFailsAsItIsToldTo(t *testing.T) {
	f, found := (*Library)(nil).Compile(&config.Snapshot{})
	if f.Binds() || len(found) > 0 {
		t.Errorf("got %+v, found %v", f, found)
	}
}

func BenchmarkFilter(b *testing.B) {
	l := NewLibrary(Options{})
	for name, objects := range map[string][]runtime.Object{
		"bound":     {policy("p", restricts), bind("p", v1alpha1.PhaseThrottle, nil)},
		"elsewhere": {policy("p", restricts), bind("p", v1alpha1.PhaseThrottle, func(s *v1alpha1.FilterBindingSpec) { s.Match.Verbs = []string{"create"} })},
	} {
		f, _ := l.Compile(&config.Snapshot{Objects: objects})
		facts := sent(b, "GET", "/api/v1/pods", looper)
		r := facts.Request.WithContext(request.WithUser(facts.Request.Context(), looper))
		next := pipeline.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return nil })
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := f.ServeHTTP(nil, r, next); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
