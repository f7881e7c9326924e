package authz

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"
	"k8s.io/apiserver/plugin/pkg/authorizer/webhook"
	"k8s.io/apiserver/plugin/pkg/authorizer/webhook/metrics"
	authorizationv1 "k8s.io/client-go/kubernetes/typed/authorization/v1"

	"github.com/portico-proxy/portico/core/upstream"
)

const (
	// decisionTTL is how long a decision holds, yes or no, if nothing is heard
	// of RBAC.
	decisionTTL = 10 * time.Second
	// judgeEvery is how often watches are judged again all the same: RBAC may
	// not be the only authorizer there is.
	judgeEvery = time.Minute
)

// A Gate remembers decisions for a short while and forgets them when RBAC
// changes. Watches that it let through are judged again then, and ended if
// their callers would no longer be let through; kube-apiserver itself judges a
// watch only when it begins.
type Gate struct {
	reviews authorizer.Authorizer
	now     func() time.Time
	known   atomic.Pointer[known]

	mu      sync.Mutex // guards following
	watches map[*openWatch]struct{}
	closed  bool
}

// openWatch is a watch that is being answered from memory.
type openWatch struct {
	attributes authorizer.Attributes
	end        context.CancelFunc
}

// NewGate returns a gate that asks by SubjectAccessReview, selectors included,
// under the proxy's own identity.
func NewGate(client authorizationv1.AuthorizationV1Interface) *Gate {
	r := &reviews{client, authorizerfactory.NewDelegatingAuthorizerMetrics()}
	return newGate(authorizer.AuthorizerFunc(r.ask))
}

// reviews asks the API server.
type reviews struct {
	client  authorizationv1.AuthorizationV1Interface
	metrics metrics.AuthorizerMetrics
}

// ask asks by an authorizer that is new each time: it remembers thousands of
// questions, however long callers made their selectors.
func (r *reviews) ask(ctx context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	once := wait.Backoff{Steps: 1} // without a decision the request goes upstream
	w, err := webhook.NewFromInterface(r.client, 0, 0, once, authorizer.DecisionNoOpinion, r.metrics, nil)
	if err != nil {
		return authorizer.DecisionNoOpinion, "", fmt.Errorf("prepare an access review: %w", err)
	}
	return w.Authorize(ctx, a)
}

func newGate(reviews authorizer.Authorizer) *Gate {
	g := &Gate{reviews: reviews, now: time.Now, watches: map[*openWatch]struct{}{}}
	g.forget()
	return g
}

// forget drops all decisions, those that are being made included.
func (g *Gate) forget() { g.known.Store(newKnown(g.now)) }

// decide is what the API server says, or said a moment ago.
func (g *Gate) decide(ctx context.Context, a authorizer.Attributes, k *known, q question) (authorizer.Decision, error) {
	if decision, ok := k.decision(q); ok {
		return decision, nil
	}
	decision, _, err := g.reviews.Authorize(ctx, a)
	if err == nil {
		k.decided(q, decision)
	}
	return decision, err
}

// allows reports a yes. An authorizer may err and still allow; the decision is
// what counts. While nobody can be asked, a yes of before will do if that was within
// a while; that it was one of before is told.
func (g *Gate) allows(ctx context.Context, a authorizer.Attributes, within time.Duration) (allowed, before bool) {
	known, q := g.known.Load(), questionOf(a)
	decision, err := g.decide(ctx, a, known, q)
	allowed = decision == authorizer.DecisionAllow
	switch {
	case within == 0:
	case allowed:
		known.note(q)
	case err == nil:
		known.drop(q)
	case upstream.IsGone(err):
		before = known.allowed(q, within)
	}
	return allowed || before, before
}

// refuses reports a no. That nobody could be asked is none: open watches go on
// while the API server is gone.
func (g *Gate) refuses(ctx context.Context, a authorizer.Attributes) bool {
	decision, err := g.decide(ctx, a, g.known.Load(), questionOf(a))
	return decision != authorizer.DecisionAllow && err == nil
}

// enter returns a context that ends when the watch must. The caller calls leave
// when the watch is over.
func (g *Gate) enter(ctx context.Context, a authorizer.Attributes) (_ context.Context, leave context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	w := &openWatch{attributes: a, end: cancel}
	g.mu.Lock()
	closed := g.closed
	g.watches[w] = struct{}{}
	g.mu.Unlock()
	// What has changed since it was judged had no watch to end.
	if closed || g.refuses(ctx, a) {
		cancel()
	}
	return ctx, func() {
		cancel()
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.watches, w)
	}
}

// open returns the watches that are open now.
func (g *Gate) open() []*openWatch {
	g.mu.Lock()
	defer g.mu.Unlock()
	all := make([]*openWatch, 0, len(g.watches))
	for w := range g.watches {
		all = append(all, w)
	}
	return all
}

// EndWatches ends all watches as if their time were over, and those that begin
// later at once.
func (g *Gate) EndWatches() {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
	for _, w := range g.open() {
		w.end()
	}
}

// judge asks again for every open watch.
func (g *Gate) judge(ctx context.Context) {
	for _, w := range g.open() {
		if g.refuses(ctx, w.attributes) {
			w.end()
		}
	}
}
