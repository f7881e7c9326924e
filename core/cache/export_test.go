package cache

import (
	"context"
	"net/http"
	"strconv"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/portico-proxy/portico/core/cache/wire"
)

// SkipProof breaks the cache: the newest state is taken to be the one in memory.
func (c *Cache) SkipProof() {
	c.newest = func(context.Context, *entry) (uint64, error) { return 0, nil }
}

// ForgetWrites breaks the ledger: nothing that was written is remembered.
func (c *Cache) ForgetWrites() {
	c.ledger.mu.Lock()
	defer c.ledger.mu.Unlock()
	c.ledger.floors = nil
	c.ledger.lost = true
}

// Recordings is what coalesced answers take, in bytes, once more is taken: of nothing
// there is, if that is maxRecordings.
func (c *Cache) Recordings(more int64) int64 {
	c.streams.recordings.Add(more)
	return c.streams.recordings.Used()
}

// MaxRecordings is what they may take.
const MaxRecordings = maxRecordings

// Named is for how many resources something is remembered: what sessions have to see,
// outages, and how to read them.
func (c *Cache) Named() (floors, outages, resources int) {
	c.ledger.mu.Lock()
	defer c.ledger.mu.Unlock()
	c.outages.Range(func(_, _ any) bool { outages++; return true })
	c.streams.mu.Lock()
	defer c.streams.mu.Unlock()
	return len(c.ledger.floors), outages, len(c.streams.resources)
}

// BeginsDropped reports whether a collection is begun to answer r that was dropped once
// it was known how to read it.
func (c *Cache) BeginsDropped(r *http.Request) bool {
	q, ok := c.question(r)
	if !ok {
		return false
	}
	s := c.streams
	known := s.resource(q.gvr).await(r.Context())
	s.mu.Lock()
	s.drop(q.gvr)
	s.mu.Unlock()
	e := s.use(q, wire.JSON, known)
	if e != nil {
		e.release()
	}
	return e != nil
}

// FillLedger names as many resources as may be in doubt, but for room.
func (c *Cache) FillLedger(room int) {
	for n := range maxDoubted - room {
		c.doubt(schema.GroupResource{Resource: strconv.Itoa(n)})
	}
}

// MaxDoubted is how many those are.
const MaxDoubted = maxDoubted
