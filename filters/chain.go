// Package filters lists the filters of this build in the order requests meet
// them. To add one, write its package beside the others and add its line here.
package filters

import (
	"crypto/x509"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apiserver/pkg/authentication/authenticator"

	"github.com/portico-proxy/portico/core/body"
	"github.com/portico-proxy/portico/core/config"
	"github.com/portico-proxy/portico/core/pipeline"
	account "github.com/portico-proxy/portico/core/talkers"
	"github.com/portico-proxy/portico/core/telemetry"
	"github.com/portico-proxy/portico/core/watches"
	"github.com/portico-proxy/portico/filters/authn"
	"github.com/portico-proxy/portico/filters/authz"
	"github.com/portico-proxy/portico/filters/names"
	"github.com/portico-proxy/portico/filters/noderestriction"
	"github.com/portico-proxy/portico/filters/rego"
	"github.com/portico-proxy/portico/filters/talkers"
	"github.com/portico-proxy/portico/filters/throttle"
	"github.com/portico-proxy/portico/filters/trace"
	"github.com/portico-proxy/portico/filters/view"
	"github.com/portico-proxy/portico/filters/wasm"
)

// Deps are the parts that outlive a configuration: made once, shared by every
// chain that is compiled.
type Deps struct {
	// Telemetry traces and counts requests.
	Telemetry *telemetry.Telemetry
	// Log is where each request's own logger comes from.
	Log logr.Logger
	// Tokens reviews bearer tokens.
	Tokens authenticator.Token
	// Callers remembers whose tokens were, for reads that may be stale; nil does not.
	Callers *authn.Before
	// ClientCA verifies client certificates; nil means none are known.
	ClientCA func() (x509.VerifyOptions, bool)
	// ImpersonateX509 passes callers with a certificate on by impersonation.
	ImpersonateX509 bool
	// Nodes knows nodes and their pods. Without it, requests that a NodePolicy may be
	// about are refused.
	Nodes *noderestriction.Library
	// Modules are those of WebAssembly filters. Without it, requests that are bound
	// to one fare as if it had failed.
	Modules *wasm.Library
	// Policies are those in Rego. Without it, requests that are bound to one fare as
	// if it had failed.
	Policies *rego.Library
	// Limiter counts requests that are kept to limits. It is required where
	// there are Policies.
	Limiter *throttle.Limiter
	// Share shares the proxy out among callers; nil does not.
	Share *throttle.Share
	// Views are what exists for whom. Without it, namespaces are not known by their
	// labels.
	Views *view.Library
	// Watches are those that are open. Without it, policies end no watches that began
	// before they were there.
	Watches *watches.Open
	// Rooms is where names of namespaces are exchanged in what is written; nil makes some.
	Rooms *body.Rooms
	// Talkers keeps account of what callers do; nil keeps none.
	Talkers *account.Account
	// Gate says who may have answers from memory.
	Gate *authz.Gate
	// Memory answers requests without the API server; nil answers none.
	Memory Answerer
	// Upstream is the API server.
	Upstream pipeline.Handler
}

// An Answerer is a filter that answers some requests itself. It does so only
// for requests that carry a grant (see [pipeline.Granted]).
type Answerer interface {
	pipeline.Filter
	// Ask reports whether r would be answered if it had a grant. It is asked
	// before the caller is known and must be cheap. The request it returns is the
	// one to go on with.
	Ask(r *http.Request) (*http.Request, bool)
	// Asked reports whether r is one that Ask said yes to.
	Asked(r *http.Request) bool
	// Stale is how old the answer to such an r may be while the API server is gone;
	// 0 is not at all.
	Stale(r *http.Request) time.Duration
}

// Chain compiles one configuration into the whole path of a request, first to
// last, and says what it found out about its policies. A filter whose policies
// ask nothing of it is left out.
func Chain(s *config.Snapshot, d Deps) (pipeline.Handler, config.Findings) {
	var ask func(*http.Request) (*http.Request, bool)
	var asked func(*http.Request) bool
	var stale func(*http.Request) time.Duration
	var restrict, memory []pipeline.Filter
	var needed []func(*http.Request) bool
	if d.Memory != nil {
		ask, asked, stale = d.Memory.Ask, d.Memory.Asked, d.Memory.Stale
		memory = append(memory, d.Memory)
	}
	last := d.Upstream
	nodes, found := d.Nodes.Compile(s)
	if nodes.Binds() {
		nodes.Ask = ask
		restrict, needed = append(restrict, nodes), append(needed, nodes.Needs)
	}
	policies, foundToo := d.Policies.Compile(s)
	maps.Copy(found, foundToo)
	if policies.Binds() {
		restrict, needed = append(restrict, policies), append(needed, policies.Needs)
	}
	modules, foundToo := d.Modules.Compile(s)
	maps.Copy(found, foundToo)
	if modules.Binds() {
		restrict, needed = append(restrict, modules), append(needed, modules.Needs)
		if nodes.Twice = nodes.Binds(); nodes.Twice {
			restrict = append(restrict, nodes.Again()) // what modules write is not what was judged
		}
	}
	if policies.Throttles() || nodes.Limits() {
		door := &throttle.Filter{Limiter: d.Limiter, Ask: ask}
		restrict, last = append(restrict, door), door.Upstream(last)
	}
	views, foundOfViews := d.Views.Compile(s)
	maps.Copy(found, foundOfViews)
	if views.Binds() || policies.Views() {
		restrict, needed = append(restrict, views), append(needed, views.Needs)
	}
	tenants, foundOfNames := names.Compile(s, d.Rooms)
	for policy, conditions := range foundOfNames {
		found.Add(policy, conditions...)
	}
	if tenants.Binds() {
		needed = append(needed, tenants.Needs)
	}
	first := []pipeline.Filter{
		trace.New(d.Telemetry, d.Log), // span, metrics, Audit-ID
	}
	if d.Share != nil {
		first = append(first, d.Share) // is it its caller's turn?
	}
	identity := authn.New(authn.Options{
		Tokens:          d.Tokens,
		Needed:          whoNeeds(ask, needed),
		Stale:           stale,
		Before:          d.Callers,
		ClientCA:        d.ClientCA,
		ImpersonateX509: d.ImpersonateX509,
	})
	first = append(first, identity) // who is calling
	if tenants.Binds() {
		first = append(first, tenants) // what does it call namespaces
	}
	if d.Talkers != nil {
		first = append(first, &talkers.Filter{Account: d.Talkers}) // what it asks for, and what that costs
	}
	return pipeline.Chain(d.Telemetry.Tracer, last, slices.Concat(
		first,
		restrict, // may it pass, how, when, and what exists for it: NodePolicies, policies in Rego, WebAssembly filters, limits, views
		[]pipeline.Filter{d.Watches.Before( // what they show is as it was decided above
			&authz.Filter{Gate: d.Gate, Answers: asked, Stale: stale}, // whether memory may answer
			&watches.Judge{
				Who:  identity.Who,
				Sees: func(w *watches.Watch) []any { return sees(w, nodes, policies, modules, views) },
				Met:  func(w *watches.Watch) []any { return met(w, nodes, modules) },
			},
		)},
		memory, // reads that memory can answer stop here
	)...), found
}

// refused is what narrows a watch that a policy could not tell about.
type refused struct{}

// sees joins those who say what exists.
func sees(w *watches.Watch, nodes *noderestriction.Filter, policies *rego.Filter, modules *wasm.Filter, views *view.Filter) []any {
	by := append(nodes.Sees(w), modules.Sees(w.Request)...)
	narrowed, err := policies.Narrowed(w.Request)
	if err != nil {
		return append(by, refused{})
	}
	return append(by, views.Sees(narrowed)...)
}

// met joins those who have said what exists. Views, and policies that say what views
// do, are not asked: those that are in force by now may not have been when the watch
// came by, or its chain may have no place for them.
func met(w *watches.Watch, nodes *noderestriction.Filter, modules *wasm.Filter) []any {
	by := append(nodes.Sees(w), modules.Sees(w.Request)...)
	return append(by, view.Met(w.Request)...)
}

// whoNeeds joins those who must know the caller: memory, whose ask may be nil,
// and filters.
func whoNeeds(ask func(*http.Request) (*http.Request, bool), filters []func(*http.Request) bool) func(*http.Request) (*http.Request, bool) {
	if len(filters) == 0 {
		return ask
	}
	return func(r *http.Request) (*http.Request, bool) {
		needed := false
		if ask != nil {
			r, needed = ask(r)
		}
		return r, needed || slices.ContainsFunc(filters, func(needs func(*http.Request) bool) bool { return needs(r) })
	}
}
