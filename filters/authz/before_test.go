package authz

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"syscall"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/portico-proxy/portico/core/pipeline"
	"github.com/portico-proxy/portico/core/upstream"
)

// doubtful is a request of jane's whose token was reviewed too long ago.
func doubtful() *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/api/v1/pods", nil)
	ctx := request.WithRequestInfo(r.Context(), &request.RequestInfo{IsResourceRequest: true, Verb: "list", APIVersion: "v1", Resource: "pods"})
	return r.WithContext(upstream.WithDoubt(request.WithUser(ctx, jane)))
}

// TestAYesOfBeforeIsGoodForStaleAnswersAlone asks while the API server is there, and
// then while it is gone, refuses, or does not let the proxy ask.
func TestAYesOfBeforeIsGoodForStaleAnswersAlone(t *testing.T) {
	down := fmt.Errorf("review: %w", syscall.ECONNREFUSED)
	forbidden := apierrors.NewForbidden(schema.GroupResource{Resource: "subjectaccessreviews"}, "", nil)
	failing := apierrors.NewInternalError(down)
	type asking struct {
		decision authorizer.Decision
		err      error
	}
	yes, no := asking{decision: authorizer.DecisionAllow}, asking{decision: authorizer.DecisionNoOpinion}
	for name, tt := range map[string]struct {
		earlier []asking
		now     error
		within  time.Duration
		after   time.Duration
		forgets bool // RBAC has changed
		other   bool // somebody else asks
		doubted bool // that it is still the caller, as nobody could review the token
		want    bool
	}{
		"allowed":              {earlier: []asking{yes}, now: down, within: time.Minute, want: true},
		"allowed-and-failing":  {earlier: []asking{yes}, now: failing, within: time.Minute, want: true},
		"no-policy":            {earlier: []asking{yes}, now: down},
		"never-asked":          {now: down, within: time.Minute},
		"denied":               {earlier: []asking{no}, now: down, within: time.Minute},
		"allowed-then-denied":  {earlier: []asking{yes, no}, now: down, within: time.Minute},
		"too-long-ago":         {earlier: []asking{yes}, now: down, within: time.Minute, after: 51 * time.Second},
		"rights-have-changed":  {earlier: []asking{yes}, now: down, within: time.Minute, forgets: true},
		"somebody-else":        {earlier: []asking{yes}, now: down, within: time.Minute, other: true},
		"proxy-may-not-ask":    {earlier: []asking{yes}, now: forbidden, within: time.Minute},
		"slow":                 {earlier: []asking{yes}, now: context.DeadlineExceeded, within: time.Minute},
		"in-doubt":             {earlier: []asking{yes}, within: time.Minute, doubted: true},
		"client-has-gone-away": {earlier: []asking{yes}, now: context.Canceled, within: time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			var said asking
			g := gate(t, func(context.Context, authorizer.Attributes) (authorizer.Decision, string, error) {
				return said.decision, "", said.err
			})
			f := &Filter{Gate: g, Answers: func(*http.Request) bool { return true }, Stale: func(*http.Request) time.Duration { return tt.within }}
			var granted, before bool
			ask := func(u user.Info) {
				err := pass(f, "list", u, "", func(_ http.ResponseWriter, r *http.Request) error {
					granted, before = pipeline.Granted(r.Context()), upstream.GrantedBefore(r.Context())
					return nil
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			at := time.Unix(1000, 0)
			g.now = func() time.Time { return at }
			g.forget()
			for _, said = range tt.earlier {
				ask(jane)
				at = at.Add(decisionTTL + 1) // it is asked each time
			}
			if tt.forgets {
				g.forget()
			}
			at = at.Add(tt.after)
			said = no
			said.err = tt.now
			caller := user.Info(jane)
			if tt.other {
				caller = &user.DefaultInfo{Name: "jane", Groups: []string{"others"}}
			}
			if tt.doubted {
				said = yes
				err := f.ServeHTTP(httptest.NewRecorder(), doubtful(), pipeline.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) error {
					granted, before = pipeline.Granted(r.Context()), upstream.GrantedBefore(r.Context())
					return nil
				}))
				if err != nil || granted || !before {
					t.Errorf("granted %v, before %v: %v", granted, before, err)
				}
				return
			}
			if ask(caller); granted || before != tt.want {
				t.Errorf("granted %v, before %v; want false, %v", granted, before, tt.want)
			}
		})
	}
}
