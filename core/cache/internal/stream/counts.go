package stream

import "sync/atomic"

// Counts are what the streams of one collection have done, one after another.
// They outlive each of them, so that they only grow.
type Counts struct {
	// Requests to the API server: what a collection costs it.
	Lists, Watches, Probes, Asks, CatchUps, Fetches atomic.Int64
	// Resets are lists that the collection began anew from.
	Resets atomic.Int64
	// Events are changes that have been applied.
	Events atomic.Int64
}

// Upstream is the number of requests to the API server.
func (c *Counts) Upstream() int64 {
	return c.Lists.Load() + c.Watches.Load() + c.Probes.Load() + c.Asks.Load() + c.CatchUps.Load() + c.Fetches.Load()
}
