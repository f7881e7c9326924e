package main

import (
	"net/http"
	"time"

	"github.com/portico-proxy/portico/core/fetch"
	"github.com/portico-proxy/portico/core/talkers"
	"github.com/portico-proxy/portico/core/telemetry"
	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
	"github.com/portico-proxy/portico/filters"
	"github.com/portico-proxy/portico/filters/rego"
	"github.com/portico-proxy/portico/filters/throttle"
)

// maxWaiting is how many requests may wait for their callers' turns.
const maxWaiting = 2000

// limit prepares what asks policies in Rego and keeps requests to their limits.
func (p *proxy) limit(from fetch.Sources, o proxyOptions, d *filters.Deps) error {
	var limiter *throttle.Limiter
	limits, err := p.telemetry.ObserveLimits(func() int { return limiter.Len() })
	if err != nil {
		return err
	}
	limiter = throttle.NewLimiter(throttle.Options{Count: limits.Decided, Proxies: func() int { return int(p.proxies.Load()) }})
	d.Limiter, d.Talkers = limiter, talkers.New()
	d.Share = throttle.NewShare(throttle.NewLimiter(throttle.Options{Waiting: maxWaiting, Count: limits.Decided}), throttle.Shares{
		Requests: o.maxRequests, Lists: o.maxLists, Streams: o.maxWatches,
	}, throttle.NewPressure(p.log.WithName("memory")))
	p.debug[talkersPath] = describe(d.Talkers.Talkers)
	memory := d.Memory
	servable := func(r *http.Request) bool { return memory != nil && memory.Asked(r) }
	decisions, err := p.logDecisions(o)
	if err != nil {
		return err
	}
	d.Policies = rego.NewLibrary(rego.Options{
		Node: o.nodeName, Servable: servable, Account: d.Talkers, Observe: p.decided, Decisions: decisions,
		Sources: from, CacheDir: o.filterCacheDir, Log: p.log.WithName("rego"),
	})
	return nil
}

// decided counts what a filter of a FilterBinding decided.
func (p *proxy) decided(b *v1alpha1.FilterBindingSpec, name, decision string, took time.Duration) {
	p.telemetry.Metrics.Decided(telemetry.Decision{Filter: name, Phase: string(b.Phase), Mode: string(b.Mode), Decision: decision, Took: took})
}
