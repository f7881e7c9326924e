package watches

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/testr"
	"go.uber.org/goleak"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/portico-proxy/portico/core/pipeline"
	"github.com/portico-proxy/portico/core/view"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// plain is a filter that does nothing.
type plain struct{}

func (plain) Name() string { return "plain" }

func (plain) ServeHTTP(w http.ResponseWriter, r *http.Request, next pipeline.Handler) error {
	return next.ServeHTTP(w, r)
}

// narrowing is a judge to whom these narrow all watches of some users.
func narrowing(of string, by ...any) *Judge {
	sees := func(w *Watch) []any {
		if u, known := request.UserFrom(w.Request.Context()); !known || u.GetName() != of {
			return nil
		}
		return by
	}
	return &Judge{
		Who: func(r *http.Request) *http.Request {
			if name := r.Header.Get("Authorization"); name != "" {
				return r.WithContext(request.WithUser(r.Context(), &user.DefaultInfo{Name: name}))
			}
			return r
		},
		Sees: sees,
		Met:  sees,
	}
}

// begin opens a watch of a user, by f, until the test ends. Who it is is known if a
// policy asked for it.
func begin(t *testing.T, f pipeline.Filter, verb, who string, known bool) context.Context {
	t.Helper()
	ctx, cancel := context.WithCancel(request.WithRequestInfo(t.Context(), &request.RequestInfo{Verb: verb}))
	if known {
		ctx = request.WithUser(ctx, &user.DefaultInfo{Name: who})
	}
	r := httptest.NewRequestWithContext(ctx, http.MethodGet, "/", http.NoBody)
	r.Header.Set("Authorization", who)
	begun, over := make(chan context.Context), make(chan error)
	go func() {
		over <- f.ServeHTTP(httptest.NewRecorder(), r, pipeline.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) error {
			r.Header.Del("Authorization") // as those do who send it on
			begun <- r.Context()
			<-ctx.Done()
			return nil
		}))
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-over; err != nil {
			t.Error(err)
		}
	})
	return <-begun
}

// judged returns once all that is due has been judged.
func judged(t *testing.T, o *Open) {
	t.Helper()
	<-o.woken
	o.judgeDue(t.Context())
}

func isOver(ctx context.Context) bool {
	ending := view.Ending(ctx)
	return ending != nil && errors.Is(context.Cause(ending), view.ErrChanged)
}

// TestWatchesEndThatWouldBeNarrowed has a policy come that narrows one caller, of whom
// nobody knew who he is, and then change.
func TestWatchesEndThatWouldBeNarrowed(t *testing.T) {
	o := New(testr.New(t))
	before := o.Before(plain{}, narrowing("nobody"))
	anna, bert := begin(t, before, "watch", "anna", false), begin(t, before, "watch", "bert", false)
	list := begin(t, before, "list", "anna", false)
	judged(t, o)
	if isOver(anna) || isOver(bert) {
		t.Fatal("a watch ends for nothing")
	}
	after := o.Before(plain{}, narrowing("anna", "a"))
	judged(t, o)
	if !isOver(anna) || isOver(bert) || isOver(list) {
		t.Errorf("ended: anna's %v, bert's %v, a list %v", isOver(anna), isOver(bert), isOver(list))
	}
	anna = begin(t, after, "watch", "anna", true)
	o.Again()
	judged(t, o)
	if isOver(anna) {
		t.Error("what narrowed a watch from the beginning ends it")
	}
	o.Before(plain{}, narrowing("anna", "a", "b"))
	judged(t, o)
	if !isOver(anna) || isOver(bert) {
		t.Errorf("ended: anna's %v, bert's %v", isOver(anna), isOver(bert))
	}
}

// TestNoWatchSlipsThroughAChange has one begin under policies that are not in force
// any more.
func TestNoWatchSlipsThroughAChange(t *testing.T) {
	o := New(testr.New(t))
	old := o.Before(plain{}, narrowing("nobody"))
	o.Before(plain{}, narrowing("anna", "a"))
	judged(t, o)
	anna := begin(t, old, "watch", "anna", false)
	judged(t, o)
	if !isOver(anna) {
		t.Error("it goes on")
	}
}

func TestWatchesThatAreOverAreForgotten(t *testing.T) {
	o := New(logr.Discard())
	t.Run("watch", func(t *testing.T) {
		begin(t, o.Before(plain{}, narrowing("nobody")), "watch", "anna", false)
		if len(o.all) != 1 {
			t.Errorf("%d are open", len(o.all))
		}
	})
	if len(o.all)+len(o.due) != 0 {
		t.Errorf("%d are open, %d are to be judged", len(o.all), len(o.due))
	}
	if f := (*Open)(nil).Before(plain{}, nil); f != (plain{}) {
		t.Errorf("got %v", f)
	}
}

// TestStartJudgesUntilItEnds runs it as a proxy does.
func TestStartJudgesUntilItEnds(t *testing.T) {
	o := New(logr.Discard())
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- o.Start(ctx) }()
	anna := begin(t, o.Before(plain{}, narrowing("nobody")), "watch", "anna", false)
	o.Before(plain{}, narrowing("anna", "a"))
	<-view.Ending(anna).Done()
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
