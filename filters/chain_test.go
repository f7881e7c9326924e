package filters

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr/testr"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/portico-proxy/portico/core/config"
	"github.com/portico-proxy/portico/core/pipeline"
	"github.com/portico-proxy/portico/core/telemetry"
	seen "github.com/portico-proxy/portico/core/view"
	"github.com/portico-proxy/portico/core/watches"
	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
	"github.com/portico-proxy/portico/filters/rego"
	"github.com/portico-proxy/portico/filters/view"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long what has to happen may take.
const patience = 10 * time.Second

// stop holds whoever comes by first.
type stop struct {
	passed            atomic.Bool
	arrived, released chan struct{}
}

func (s *stop) hold() {
	if s.passed.CompareAndSwap(false, true) {
		close(s.arrived)
		<-s.released
	}
}

// road is what requests of anna's take, to an API server that keeps watches open.
type road struct {
	t       *testing.T
	deps    Deps
	stop    *stop
	begun   chan context.Context
	serving sync.WaitGroup
}

// newRoad makes one that holds the first request in a filter once its policies have
// been asked, until the test lets go.
func newRoad(t *testing.T, in string) *road {
	t.Helper()
	p := &road{t: t, stop: &stop{arrived: make(chan struct{}), released: make(chan struct{})}, begun: make(chan context.Context, 1)}
	observed, err := telemetry.New(t.Context(), telemetry.Options{Registry: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	log := testr.New(t)
	holdIn := func(filter string) {
		if filter == in {
			p.stop.hold()
		}
	}
	p.deps = Deps{
		Telemetry: observed, Log: log, Watches: watches.New(log),
		Tokens: authenticator.TokenFunc(func(_ context.Context, token string) (*authenticator.Response, bool, error) {
			return &authenticator.Response{User: &user.DefaultInfo{Name: token}}, true, nil
		}),
		Policies: rego.NewLibrary(rego.Options{Log: log, Observe: func(*v1alpha1.FilterBindingSpec, string, string, time.Duration) { holdIn("rego") }}),
		Views:    view.NewLibrary(view.Options{Log: log, Observe: func(string, v1alpha1.FilterMode, string, time.Duration) { holdIn("view") }}),
		Upstream: pipeline.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) error {
			p.begun <- r.Context()
			<-r.Context().Done()
			return nil
		}),
	}
	t.Cleanup(p.serving.Wait)
	return p
}

// with is the chain of some policies.
func (p *road) with(objects ...runtime.Object) pipeline.Handler {
	p.t.Helper()
	h, found := Chain(&config.Snapshot{Objects: objects}, p.deps)
	for policy, conditions := range found {
		for _, c := range conditions {
			if c.Status == metav1.ConditionFalse {
				p.t.Fatalf("%T: %+v", policy, c)
			}
		}
	}
	return h
}

// watch has anna begin a watch that lasts until the test ends.
func (p *road) watch(h pipeline.Handler) {
	ctx, cancel := context.WithCancel(p.t.Context())
	r := httptest.NewRequestWithContext(ctx, http.MethodGet, "/api/v1/configmaps?watch=1", http.NoBody)
	r.Header.Set("Authorization", "Bearer anna")
	p.serving.Go(func() {
		if err := h.ServeHTTP(httptest.NewRecorder(), pipeline.WithRequestInfo(r)); err != nil {
			p.t.Error(err)
		}
	})
	p.t.Cleanup(cancel)
}

// bound is a policy in Rego, and a binding of it.
func bound(name string, phase v1alpha1.FilterPhase, text string) []runtime.Object {
	called := metav1.ObjectMeta{Name: name}
	return []runtime.Object{
		&v1alpha1.RegoPolicy{ObjectMeta: called, Spec: v1alpha1.RegoPolicySpec{Rego: "package " + name + "\n\n" + text + "\n", Deadline: &metav1.Duration{Duration: time.Second}}},
		&v1alpha1.FilterBinding{ObjectMeta: called, Spec: v1alpha1.FilterBindingSpec{FilterRef: v1alpha1.FilterRef{Kind: v1alpha1.FilterKindRego, Name: name}, Phase: phase}},
	}
}

// TestWatchesOnTheirWayEndWhenAViewComes has a watch be held in its chain while somebody
// binds a view that it does not meet any more.
func TestWatchesOnTheirWayEndWhenAViewComes(t *testing.T) {
	of := func(name string, mode v1alpha1.FilterMode) runtime.Object {
		return &v1alpha1.VirtualView{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.VirtualViewSpec{
			Mode: mode, Subjects: v1alpha1.ViewSubjects{Users: []string{"anna"}}, Namespaces: &v1alpha1.ViewNamespaces{Names: []string{name}},
		}}
	}
	before := map[string][]runtime.Object{
		"rego": bound("restricts", v1alpha1.PhaseRestrict, `deny contains "no" if input.user.name == "bert"`), // and there is no place for views
		"view": {of("audited", v1alpha1.ModeAudit)},
	}
	for name, coming := range map[string][]runtime.Object{
		"virtualview": {of("hers", v1alpha1.ModeEnforce)},
		"rego":        bound("sees", v1alpha1.PhaseView, `selectors contains {"namespaces": ["hers"]}`),
	} {
		for in, was := range before {
			t.Run(name+"-held-in-"+in, func(t *testing.T) {
				p := newRoad(t, in)
				p.watch(p.with(was...))
				<-p.stop.arrived
				all := slices.Concat(coming, was)
				p.watch(p.with(all...))
				narrowed := <-p.begun
				p.with(all...) // so that it is judged too
				close(p.stop.released)
				slipped := <-p.begun
				p.judge(seen.Ending(slipped).Done())
				if cause := context.Cause(seen.Ending(slipped)); !errors.Is(cause, seen.ErrChanged) {
					t.Errorf("it shows her everything: %v", cause)
				}
				if cause := context.Cause(seen.Ending(narrowed)); cause != nil {
					t.Errorf("one that met the view ends: %v", cause)
				}
			})
		}
	}
}

// judge judges watches until one has ended, and all that are judged beside it have been.
func (p *road) judge(over <-chan struct{}) {
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	judged := make(chan error, 1)
	go func() { judged <- p.deps.Watches.Start(ctx) }()
	select {
	case <-over:
	case <-ctx.Done():
	}
	cancel()
	if err := <-judged; err != nil {
		p.t.Error(err)
	}
}
