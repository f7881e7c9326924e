// Package limit says what a limit on requests is, so that who decides on limits
// and who counts need not know each other.
package limit

import (
	"context"
	"slices"
	"time"
)

// A Limit bounds the requests that share its key. At least one of Tokens and
// InFlight is set.
type Limit struct {
	// Policy names who asks for the limit; its keys are its own.
	Policy string
	// ID tells the limits of a policy apart, and is a label of metrics.
	ID string
	// Key says which requests share the limit.
	Key []string
	// Tokens bounds how often. Nil means as often as one likes.
	Tokens *Tokens
	// InFlight bounds how many at a time. Nil means as many as one likes.
	InFlight *InFlight
	// Cost is what one request takes of the tokens.
	Cost Cost
	// OnExceed is what becomes of a request for which there is no room.
	OnExceed OnExceed
	// MaxDelay bounds how long a request waits for room.
	MaxDelay time.Duration
	// Scope says whose limit it is: each proxy's own, or all proxies' together.
	Scope Scope
	// Audit counts and tells, and lets pass.
	Audit bool
	// Applies says which requests are counted.
	Applies Applies
	// Message tells the client what is wrong with what it does.
	Message string
}

// Tokens come at a rate, and are kept up to a burst.
type Tokens struct {
	Rate  float64 // tokens a second
	Burst float64
}

// InFlight bounds requests that are being answered, watches included.
type InFlight struct{ Max int }

// Cost is what a request takes of the tokens.
type Cost struct {
	// Fixed is known before, and is what a request takes if From is empty.
	Fixed float64
	// From is measured while the answer is made, and charged then: it may leave
	// a debt.
	From Measure
	// Per is how much of what is measured costs one token.
	Per float64
}

// A Measure is something that is known of an answer only once it is made.
type Measure string

// The measures. Bytes are those sent, objects those of lists and watches, and
// duration is in seconds.
const (
	ResponseBytes   Measure = "responseBytes"
	ResponseObjects Measure = "responseObjects"
	Duration        Measure = "duration"
)

// OnExceed is what becomes of a request for which there is no room.
type OnExceed string

// What may become of it. Reject answers 429. Delay lets it wait for its turn.
// ServeCached answers it from memory, be it older than asked for, or not at all.
// Warn lets it pass with a warning.
const (
	Reject      OnExceed = "Reject"
	Delay       OnExceed = "Delay"
	ServeCached OnExceed = "ServeCached"
	Warn        OnExceed = "Warn"
)

// Applies says which requests a limit counts.
type Applies string

// Client counts what clients send, Upstream only what the API server has to
// answer.
const (
	Client   Applies = "Client"
	Upstream Applies = "Upstream"
)

// Scope says who shares a limit.
type Scope string

// Proxy is each proxy's own. ClusterShare is shared out evenly among all proxies
// that there are, each of which keeps to its share; as long as nobody knows how many
// there are, it is as Proxy is.
const (
	Proxy        Scope = "Proxy"
	ClusterShare Scope = "ClusterShare"
)

// MaxProxies bounds among how many proxies a limit is shared, whatever somebody has
// counted: more than a cluster has nodes, and few enough for a share to be one.
const MaxProxies = 10_000

// Of returns l as one of n proxies keeps it. A share that is smaller than what a
// request costs is owed afterwards, so that all together keep to the rate; a
// number in flight is at least 1, so that nobody is locked out.
func (l Limit) Of(n int) Limit {
	if l.Scope != ClusterShare {
		return l
	}
	n = min(max(n, 1), MaxProxies)
	if t := l.Tokens; t != nil {
		l.Cost.Fixed = min(l.Cost.Fixed, t.Burst)
		l.Tokens = &Tokens{Rate: t.Rate / float64(n), Burst: t.Burst / float64(n)}
	}
	if f := l.InFlight; f != nil && f.Max > 0 {
		l.InFlight = &InFlight{Max: max(1, f.Max/n)}
	}
	return l
}

type limitsKey struct{}

// With adds limits to those that a request is to keep.
func With(ctx context.Context, limits []Limit) context.Context {
	if len(limits) == 0 {
		return ctx
	}
	return context.WithValue(ctx, limitsKey{}, slices.Concat(From(ctx), limits))
}

// From returns the limits that a request is to keep. They are shared.
func From(ctx context.Context) []Limit {
	limits, _ := ctx.Value(limitsKey{}).([]Limit)
	return limits
}
