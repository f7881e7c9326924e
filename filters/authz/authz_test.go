package authz

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/fake"

	"github.com/portico-proxy/portico/core/pipeline"
)

// gate is one whose decisions are the test's.
func gate(t *testing.T, decide authorizer.AuthorizerFunc) *Gate {
	t.Helper()
	return newGate(decide)
}

// pass sends a request for pods through the filter to next.
func pass(f *Filter, verb string, caller user.Info, header string, next pipeline.HandlerFunc) error {
	r := httptest.NewRequest("GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1", nil)
	if header != "" {
		r.Header.Set(header, "x")
	}
	ctx := request.WithRequestInfo(r.Context(), &request.RequestInfo{
		IsResourceRequest: true, Verb: verb, APIVersion: "v1", Resource: "pods", FieldSelector: "spec.nodeName=n1",
	})
	if caller != nil {
		ctx = request.WithUser(ctx, caller)
	}
	return f.ServeHTTP(httptest.NewRecorder(), r.WithContext(ctx), next)
}

var (
	jane = &user.DefaultInfo{Name: "jane"}
	yes  = func(*http.Request) bool { return true }
)

func TestOnlyAnAllowedAndKnownCallerIsGranted(t *testing.T) {
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
			g := gate(t, func(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
				if fields, err := a.GetFieldSelector(); err != nil || len(fields) != 1 {
					t.Errorf("asked with field selector %v, %v", fields, err)
				}
				return tt.decision, "", tt.err
			})
			passed := false
			err := pass(&Filter{Gate: g, Answers: tt.answers}, "list", tt.caller, tt.header, func(_ http.ResponseWriter, r *http.Request) error {
				passed = true
				if got := pipeline.Granted(r.Context()); got != tt.want {
					t.Errorf("granted: %v, want %v", got, tt.want)
				}
				return nil
			})
			if err != nil || !passed {
				t.Errorf("the gate refused: %v", err)
			}
		})
	}
}

func TestOpenWatchesAreJudgedAgain(t *testing.T) {
	tests := map[string]struct {
		decision authorizer.Decision
		err      error
		ends     bool
	}{
		"still-allowed": {decision: authorizer.DecisionAllow},
		"denied":        {decision: authorizer.DecisionDeny, ends: true},
		"no-opinion":    {decision: authorizer.DecisionNoOpinion, ends: true},
		"nobody-to-ask": {decision: authorizer.DecisionNoOpinion, err: errors.New("down")},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			decision, failure := authorizer.DecisionAllow, error(nil)
			g := gate(t, func(context.Context, authorizer.Attributes) (authorizer.Decision, string, error) {
				return decision, "", failure
			})
			err := pass(&Filter{Gate: g, Answers: yes}, "watch", jane, "", func(_ http.ResponseWriter, r *http.Request) error {
				decision, failure = tt.decision, tt.err
				g.forget()
				g.judge(t.Context())
				if ended := r.Context().Err() != nil; ended != tt.ends {
					t.Errorf("ended: %v, want %v", ended, tt.ends)
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
			if left := g.open(); len(left) > 0 {
				t.Errorf("%d watches are kept after their end", len(left))
			}
		})
	}
}

// TestWatchThatBeginsWhileRightsChangeIsJudgedByThem has them change before the watch is
// among those that are open.
func TestWatchThatBeginsWhileRightsChangeIsJudgedByThem(t *testing.T) {
	asked := 0
	var g *Gate
	g = gate(t, func(ctx context.Context, _ authorizer.Attributes) (authorizer.Decision, string, error) {
		if asked++; asked > 1 {
			return authorizer.DecisionDeny, "", nil
		}
		g.forget()
		g.judge(ctx)
		return authorizer.DecisionAllow, "", nil
	})
	err := pass(&Filter{Gate: g, Answers: yes}, "watch", jane, "", func(_ http.ResponseWriter, r *http.Request) error {
		if r.Context().Err() == nil {
			t.Error("the watch goes on")
		}
		return nil
	})
	if err != nil || len(g.open()) > 0 {
		t.Errorf("%d watches are kept after their end: %v", len(g.open()), err)
	}
}

func TestDrainingEndsWatchesFromMemory(t *testing.T) {
	g := gate(t, func(context.Context, authorizer.Attributes) (authorizer.Decision, string, error) {
		return authorizer.DecisionAllow, "", nil
	})
	f := &Filter{Gate: g, Answers: yes}
	ended := func(_ http.ResponseWriter, r *http.Request) error {
		g.EndWatches()
		if r.Context().Err() == nil {
			t.Error("the watch goes on")
		}
		return nil
	}
	for _, when := range []string{"open", "later"} {
		if err := pass(f, "watch", jane, "", ended); err != nil {
			t.Errorf("%s: %v", when, err)
		}
	}
}

func TestDecisionsHoldForAWhile(t *testing.T) {
	decision, failure, asked := authorizer.DecisionAllow, error(nil), 0
	g := gate(t, func(context.Context, authorizer.Attributes) (authorizer.Decision, string, error) {
		asked++
		return decision, "", failure
	})
	at := time.Unix(1000, 0)
	g.now = func() time.Time { return at }
	g.forget()
	f := &Filter{Gate: g, Answers: yes}
	for _, step := range []struct {
		what    string
		do      func()
		granted bool
		asked   int
	}{
		{"first", func() {}, true, 1},
		{"again", func() { decision = authorizer.DecisionDeny }, true, 1},
		{"when-rbac-has-changed", g.forget, false, 2},
		{"a-no-again", func() { decision = authorizer.DecisionAllow }, false, 2},
		{"after-a-while", func() { at = at.Add(decisionTTL + 1) }, true, 3},
		{"of-nobody", func() { g.forget(); decision, failure = authorizer.DecisionNoOpinion, errors.New("down") }, false, 4},
		{"of-nobody-again", func() {}, false, 5},
	} {
		step.do()
		granted := false
		if err := pass(f, "list", jane, "", func(_ http.ResponseWriter, r *http.Request) error {
			granted = pipeline.Granted(r.Context())
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if granted != step.granted || asked != step.asked {
			t.Errorf("%s: granted %v after %d reviews; want %v after %d", step.what, granted, asked, step.granted, step.asked)
		}
	}
}

// asking is a question of jane's, changed.
func asking(change func(*authorizer.AttributesRecord, *user.DefaultInfo)) question {
	u := &user.DefaultInfo{Name: "jane", UID: "1", Groups: []string{"a", "b"}, Extra: map[string][]string{"x": {"1"}, "y": {"2"}}}
	a := authorizer.AttributesRecord{
		User: u, Verb: "list", APIGroup: "apps", APIVersion: "v1", Resource: "deployments", Namespace: "shop", ResourceRequest: true,
		FieldSelectorRequirements: fields.Requirements{{Operator: "=", Field: "metadata.name", Value: "web"}},
	}
	if change != nil {
		change(&a, u)
	}
	return questionOf(a)
}

func TestADecisionIsAboutOneQuestion(t *testing.T) {
	app, err := labels.NewRequirement("app", "in", []string{"a", "b"})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[question]string{asking(nil): "the question itself"}
	for name, change := range map[string]func(*authorizer.AttributesRecord, *user.DefaultInfo){
		"user":        func(_ *authorizer.AttributesRecord, u *user.DefaultInfo) { u.Name = "joe" },
		"uid":         func(_ *authorizer.AttributesRecord, u *user.DefaultInfo) { u.UID = "2" },
		"groups":      func(_ *authorizer.AttributesRecord, u *user.DefaultInfo) { u.Groups = []string{"a"} },
		"one-group":   func(_ *authorizer.AttributesRecord, u *user.DefaultInfo) { u.Groups = []string{"ab"} },
		"extra":       func(_ *authorizer.AttributesRecord, u *user.DefaultInfo) { u.Extra["x"] = []string{"2"} },
		"verb":        func(a *authorizer.AttributesRecord, _ *user.DefaultInfo) { a.Verb = "watch" },
		"group":       func(a *authorizer.AttributesRecord, _ *user.DefaultInfo) { a.APIGroup = "" },
		"version":     func(a *authorizer.AttributesRecord, _ *user.DefaultInfo) { a.APIVersion = "v2" },
		"resource":    func(a *authorizer.AttributesRecord, _ *user.DefaultInfo) { a.Resource = "pods" },
		"subresource": func(a *authorizer.AttributesRecord, _ *user.DefaultInfo) { a.Subresource = "status" },
		"namespace":   func(a *authorizer.AttributesRecord, _ *user.DefaultInfo) { a.Namespace = "" },
		"name":        func(a *authorizer.AttributesRecord, _ *user.DefaultInfo) { a.Name = "web" },
		"path":        func(a *authorizer.AttributesRecord, _ *user.DefaultInfo) { a.Path = "/x" },
		"no-resource": func(a *authorizer.AttributesRecord, _ *user.DefaultInfo) { a.ResourceRequest = false },
		"no-field":    func(a *authorizer.AttributesRecord, _ *user.DefaultInfo) { a.FieldSelectorRequirements = nil },
		"other-field": func(a *authorizer.AttributesRecord, _ *user.DefaultInfo) { a.FieldSelectorRequirements[0].Value = "db" },
		"field-operator": func(a *authorizer.AttributesRecord, _ *user.DefaultInfo) {
			a.FieldSelectorRequirements[0].Operator = "!="
		},
		"bad-fields": func(a *authorizer.AttributesRecord, _ *user.DefaultInfo) {
			a.FieldSelectorParsingErr = errors.New("bad")
		},
		"labels": func(a *authorizer.AttributesRecord, _ *user.DefaultInfo) {
			a.LabelSelectorRequirements = labels.Requirements{*app}
		},
		"bad-labels": func(a *authorizer.AttributesRecord, _ *user.DefaultInfo) {
			a.LabelSelectorParsingErr = errors.New("bad")
		},
	} {
		q := asking(change)
		if other, ok := seen[q]; ok {
			t.Errorf("%s is taken for %s", name, other)
		}
		seen[q] = name
		if again := asking(change); again != q {
			t.Errorf("%s is not equal to itself", name)
		}
	}
}

// changed is an API server at which there is a binding, which is news to whoever
// follows it.
func changed(t *testing.T) metadata.Interface {
	t.Helper()
	scheme := fake.NewTestScheme()
	if err := metav1.AddMetaToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	return fake.NewSimpleMetadataClient(scheme, &metav1.PartialObjectMetadata{
		TypeMeta:   metav1.TypeMeta{APIVersion: "rbac.authorization.k8s.io/v1", Kind: "RoleBinding"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "jane"},
	})
}

// TestDecisionsAreForgottenTwice has an API server that learns of a change later
// than the proxy does.
func TestDecisionsAreForgottenTwice(t *testing.T) {
	var asked atomic.Int32
	g := gate(t, func(context.Context, authorizer.Attributes) (authorizer.Decision, string, error) {
		if asked.Add(1) <= 2 { // before the change, and right after it
			return authorizer.DecisionAllow, "", nil
		}
		return authorizer.DecisionDeny, "", nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	followed := make(chan error, 1)
	defer func() {
		cancel()
		if err := <-followed; err != nil {
			t.Error(err)
		}
	}()
	err := pass(&Filter{Gate: g, Answers: yes}, "watch", jane, "", func(_ http.ResponseWriter, r *http.Request) error {
		go func() { followed <- (&Follower{Gate: g, Client: changed(t), Log: logr.Discard()}).Start(ctx) }()
		<-r.Context().Done()
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// TestDecisionsAreForgottenWhileWatchesAreJudged has an API server take its time.
func TestDecisionsAreForgottenWhileWatchesAreJudged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		begun := false
		g := gate(t, func(context.Context, authorizer.Attributes) (authorizer.Decision, string, error) {
			if begun {
				<-ctx.Done()
			}
			return authorizer.DecisionAllow, "", nil
		})
		_, leave := g.enter(t.Context(), authorizer.AttributesRecord{User: jane, Verb: "watch", Resource: "pods", ResourceRequest: true})
		defer leave()
		begun = true
		followed := make(chan error, 1)
		go func() { followed <- (&Follower{Gate: g, Client: changed(t), Log: logr.Discard()}).Start(ctx) }()
		synctest.Wait() // the watch is being judged, as there is a binding
		before := g.known.Load()
		<-time.After(2 * settle)
		synctest.Wait()
		if g.known.Load() == before {
			t.Error("what was decided before still holds")
		}
		cancel()
		if err := <-followed; err != nil {
			t.Error(err)
		}
	})
}
