// Package resources knows which resources the API server serves, and says of
// policies which of those that they name it does not.
package resources

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/portico-proxy/portico/core/config"
)

const (
	// soonest and latest are how often the API server is asked. Each answer that
	// brings nothing new doubles the time to the next, and each change of policies
	// begins anew. It costs the API server next to nothing: it says that nothing has
	// changed since a version that it is told.
	soonest = 10 * time.Second
	latest  = 5 * time.Minute

	// maxSaid bounds how many mistakes of a policy are told of.
	maxSaid = 10
)

// Reasons of the condition.
const (
	ReasonKnown   = "Known"
	ReasonUnknown = "UnknownResource"
)

// Options says whom to ask. Upstream and Base are required.
type Options struct {
	// Upstream carries requests under the proxy's own identity.
	Upstream http.RoundTripper
	// Base is the API server's address.
	Base *url.URL
	// Soonest is how often it is asked at most; 0 means every ten seconds.
	Soonest time.Duration
	// Selected are the resources that a policy in Rego has named in selectors so far.
	// Nil knows of none.
	Selected func(policy string) []schema.GroupResource
	Log      logr.Logger
}

// Served is what the API server serves. Policies may name what is installed
// later, so they are put in force all the same.
type Served struct {
	options Options
	changed chan struct{} // has room for one

	mu       sync.Mutex // guards following
	known    *known     // nil if that is not known
	policies []runtime.Object
	since    time.Time       // of the policies
	said     map[string]bool // what has been logged of policies in force
}

// New returns what nothing is known of.
func New(o Options) *Served {
	if o.Soonest <= 0 {
		o.Soonest = soonest
	}
	if o.Selected == nil {
		o.Selected = func(string) []schema.GroupResource { return nil }
	}
	return &Served{options: o, changed: make(chan struct{}, 1), said: map[string]bool{}}
}

// Judge takes the policies that are in force now. What they name and the API
// server does not have is logged, once it is known.
func (s *Served) Judge(policies []runtime.Object) {
	s.mu.Lock()
	s.policies, s.since = policies, time.Now()
	s.mu.Unlock()
	select {
	case s.changed <- struct{}{}:
	default: // it has been said
	}
}

// Found is the condition of a policy that may name resources. There is none while
// it is not known what the API server has. Its time is when that was known:
// the proxy that has asked last is right.
func (s *Served) Found(policy runtime.Object) []metav1.Condition {
	s.mu.Lock()
	defer s.mu.Unlock()
	named, ok := s.namedBy(policy)
	if !ok || s.known == nil {
		return nil
	}
	wrong := s.known.missing(named)
	switch {
	case len(wrong) == 0:
		return []metav1.Condition{{
			Type: config.ResourcesKnown, Status: metav1.ConditionTrue, Reason: ReasonKnown,
			Message: "The API server has all resources that it names.", LastTransitionTime: s.known.time(),
		}}
	case s.known.at.Before(s.since):
		return nil // a definition may have come with the policy
	}
	return []metav1.Condition{{
		Type: config.ResourcesKnown, Status: metav1.ConditionFalse, Reason: ReasonUnknown,
		Message: text(wrong), LastTransitionTime: s.known.time(),
	}}
}

// Start asks what there is until ctx ends, while there are policies that name
// resources, and tells after each answer that Found may find something else.
func (s *Served) Start(ctx context.Context, tell func()) error {
	var asked time.Time
	wait := s.options.Soonest
	due := time.NewTimer(time.Hour)
	due.Stop()
	defer due.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.changed:
			wait = s.options.Soonest
			due.Reset(max(0, wait-time.Since(asked)))
			continue
		case <-due.C:
		}
		if !s.isAsked() {
			continue
		}
		news := s.ask(ctx)
		asked = time.Now()
		if wait = min(2*wait, latest); news {
			wait = s.options.Soonest
		}
		due.Reset(wait)
		s.log()
		tell()
	}
}

// isAsked reports whether any policy names a resource.
func (s *Served) isAsked() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.policies, func(p runtime.Object) bool {
		named, _ := s.namedBy(p)
		return len(named) > 0
	})
}

// ask brings what is known up to date, and reports whether it has changed.
func (s *Served) ask(ctx context.Context) bool {
	s.mu.Lock()
	was := s.known
	s.mu.Unlock()
	is, err := s.options.read(ctx, was)
	if err != nil {
		// What was known is as good as it gets; it is not renewed.
		s.options.Log.V(1).Info("it is not known which resources the API server has", "reason", err.Error())
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known = is
	return was == nil || !was.equal(is)
}

// log says once of each policy in force what is wrong with it.
func (s *Served) log() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known == nil {
		return
	}
	said := map[string]bool{}
	for _, p := range s.policies {
		named, _ := s.namedBy(p)
		wrong := s.known.missing(named)
		if len(wrong) == 0 {
			continue
		}
		kind, name := kindOf(p)
		line := kind + "/" + name + ": " + text(wrong)
		if said[line] = true; !s.said[line] {
			s.options.Log.Info("Policy names what the API server does not have", "kind", kind, "name", name, "reason", text(wrong))
		}
	}
	s.said = said
}
