package rego

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"

	"github.com/portico-proxy/portico/core/config"
	"github.com/portico-proxy/portico/core/fetch"
	"github.com/portico-proxy/portico/core/talkers"
	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
)

var errMissing = errors.New("there is no such RegoPolicy")

// An Observer is told what a binding decided, and how long that took.
type Observer func(binding *v1alpha1.FilterBindingSpec, name, decision string, took time.Duration)

// Options says what policies may know. The zero value works.
type Options struct {
	// Node is the one that the proxy runs on.
	Node string
	// Servable reports whether memory would answer a request.
	Servable func(*http.Request) bool
	// Account tells what callers do; nil knows nothing.
	Account *talkers.Account
	Observe Observer
	// Failed is told what was wrong with what a policy said of a request. Nil tells
	// nobody.
	Failed func(policy string, err error)
	// Decisions logs what policies decided; nil logs nothing.
	Decisions *DecisionLog
	// Sources are where bundles come from, and CacheDir keeps them; without one they
	// are fetched anew by each process.
	Sources  fetch.Sources
	CacheDir string
	Log      logr.Logger
}

// Library has the policies of the configuration that is in force, with what they
// have decided so far. It outlives every configuration.
type Library struct {
	options Options
	fetcher *fetch.Fetcher
	faulted chan struct{} // has room for one

	mu      sync.Mutex // guards following
	shelves map[string]*shelf
	views   atomic.Pointer[[]*binding] // those of phase View; stored under mu
}

// A shelf is what is known of one RegoPolicy.
type shelf struct {
	policy *Policy  // the last good one; nil if there was none
	good   [32]byte // what it was made of
	bad    [32]byte // what err was found in
	err    error    // of the newest; nil if that is policy
	took   time.Duration
}

// NewLibrary returns an empty library.
func NewLibrary(o Options) *Library {
	if o.Observe == nil {
		o.Observe = func(*v1alpha1.FilterBindingSpec, string, string, time.Duration) {}
	}
	if o.Servable == nil {
		o.Servable = func(*http.Request) bool { return false }
	}
	kept := ""
	if o.CacheDir != "" {
		kept = filepath.Join(o.CacheDir, "bundles")
	}
	l := &Library{options: o, faulted: make(chan struct{}, 1), fetcher: fetch.New(o.Sources, kept, o.Log), shelves: map[string]*shelf{}}
	l.views.Store(&[]*binding{})
	return l
}

// Start fetches bundles until ctx ends, and calls again whenever Compile may come
// to something else: another bundle, or a policy that has failed.
func (l *Library) Start(ctx context.Context, again func() error) error {
	tell := func() {
		if err := again(); err != nil {
			l.options.Log.Error(err, "policies refused; the ones before stay in force")
		}
	}
	var failing sync.WaitGroup
	failing.Go(func() {
		for {
			select {
			case <-l.faulted:
				tell()
			case <-ctx.Done():
				return
			}
		}
	})
	defer failing.Wait()
	return l.fetcher.Run(ctx, tell)
}

// Compile returns the filter that does what a snapshot asks for, and what is to
// be said of its policies. A policy that is wrong leaves the one before it in
// force; where there was none, its bindings' requests fare as their failure
// policy says.
func (l *Library) Compile(s *config.Snapshot) (*Filter, config.Findings) {
	found, kept := config.Findings{}, map[string]*shelf{}
	if l == nil {
		l = NewLibrary(Options{Log: logr.Discard()})
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fetcher.Begin()
	for _, o := range s.Objects {
		if p, ok := o.(*v1alpha1.RegoPolicy); ok {
			l.put(p, kept, found)
		}
	}
	l.fetcher.End()
	l.shelves = kept
	l.see(bindings(s, v1alpha1.PhaseView, kept, found))
	return &Filter{options: &l.options, library: l, faulted: l.faulted, restrict: bindings(s, v1alpha1.PhaseRestrict, kept, found), throttle: bindings(s, v1alpha1.PhaseThrottle, kept, found)}, found
}

// put compiles p, unless that has been done, and puts it among those kept.
func (l *Library) put(p *v1alpha1.RegoPolicy, kept map[string]*shelf, found config.Findings) {
	if kept[p.Name] != nil {
		found.Add(p, config.NotInForce("NameTaken", "A RegoPolicy of a file of this proxy has the same name and is used instead."))
		return
	}
	s := cmp.Or(l.shelves[p.Name], &shelf{})
	kept[p.Name] = s
	l.update(p, s)
	if s.err == nil {
		found.Add(p, config.IsCompiled(fmt.Sprintf("It was compiled in %d ms.", s.took.Milliseconds())), s.policy.faults.condition())
		return
	}
	before := ". There is no policy before it."
	if s.policy != nil {
		before = ". The policy before this one stays in force."
	}
	switch {
	case errors.Is(s.err, fetch.ErrFetching):
		found.Add(p, config.NotCompiled("Fetching", "spec.source: "+s.err.Error()))
	case p.Spec.Source != nil:
		found.Add(p, config.NotCompiled("Refused", "spec.source, "+s.err.Error()+before))
	default:
		found.Add(p, config.NotCompiled("Refused", "spec.rego, "+s.err.Error()+before))
	}
	if s.policy == nil {
		found.Add(p, config.NotInForce("NotCompiled", "There is no policy: requests that it is bound to fare as failurePolicy says."))
		return
	}
	found.Add(p, config.NotInForce("NotCompiled", "The policy before this one stays in force."))
}

// update makes s hold what p asks for, or leaves what it holds.
func (l *Library) update(p *v1alpha1.RegoPolicy, s *shelf) {
	var content fetch.Content
	if p.Spec.Source != nil {
		var err error
		if content, err = l.fetcher.Content(bundleOf(p.Spec.Source)); err != nil {
			s.bad, s.err = [32]byte{}, err
			return
		}
	}
	// It came from JSON and can be written as such.
	text, _ := json.Marshal(p.Spec)
	is := sha256.Sum256(append(text, content.Identity...))
	if s.policy != nil && s.good == is {
		s.err = nil
		return
	}
	if s.err != nil && s.bad == is {
		return
	}
	source, began := SourceOf(p), time.Now()
	if p.Spec.Source != nil {
		packed, err := content.Read()
		if err != nil {
			s.bad, s.err = [32]byte{}, err // it may come later
			return
		}
		if source.Bundle, err = ReadBundle(packed, p.Spec.Source); err != nil {
			l.refuse(p, s, is, err)
			return
		}
	}
	policy, err := Compile(source)
	if err != nil {
		l.refuse(p, s, is, err)
		return
	}
	*s = shelf{policy: policy, good: is, took: time.Since(began)}
}

func (l *Library) refuse(p *v1alpha1.RegoPolicy, s *shelf, is [32]byte, err error) {
	l.options.Log.Error(err, "policies refused; what this one said before stays in force", "kind", "RegoPolicy", "name", p.Name)
	s.bad, s.err = is, err
}

// bundleOf is where a bundle is to be had from.
func bundleOf(s *v1alpha1.RegoSource) *fetch.Source {
	return &fetch.Source{File: s.File, URL: s.URL, OCI: s.OCI, SHA256: s.SHA256}
}

// SourceOf is what a RegoPolicy asks for, but for its bundle, if it has one.
func SourceOf(p *v1alpha1.RegoPolicy) Source {
	s := Source{Name: p.Name, Rego: p.Spec.Rego}
	if p.Spec.Settings != nil {
		// What is no JSON has been refused, by the API server or with the file.
		_ = json.Unmarshal(p.Spec.Settings.Raw, &s.Settings)
	}
	if p.Spec.Deadline != nil {
		s.Deadline = p.Spec.Deadline.Duration
	}
	return s
}

// bindings joins the FilterBindings of a phase with their policies.
func bindings(s *config.Snapshot, phase v1alpha1.FilterPhase, shelves map[string]*shelf, found config.Findings) []*binding {
	var all []*binding
	for _, b := range s.BindingsOf(v1alpha1.FilterKindRego, phase) {
		bound := &binding{name: b.Name, spec: &b.Spec, err: errMissing}
		if shelf := shelves[b.Spec.FilterRef.Name]; shelf != nil {
			bound.policy, bound.digest, bound.err = shelf.policy, hex.EncodeToString(shelf.good[:]), shelf.err
		}
		switch {
		case bound.policy == nil:
			found.Add(b, config.NotInForce("NoPolicy", fmt.Sprintf(
				"RegoPolicy %s: %v. Requests that the binding matches fare as failurePolicy says.", b.Spec.FilterRef.Name, bound.err)))
		case bound.question() == nil:
			found.Add(b, config.NotInForce("NothingToAsk", fmt.Sprintf(
				"RegoPolicy %s has no %s, which is what a binding of phase %s asks for.", b.Spec.FilterRef.Name, setsOf(phase), phase)))
		}
		all = append(all, bound)
	}
	return all
}

func setsOf(phase v1alpha1.FilterPhase) string {
	switch phase {
	case v1alpha1.PhaseThrottle:
		return limitsSet
	case v1alpha1.PhaseView:
		return selectorsSet
	}
	return denySet + " or " + warnSet
}
