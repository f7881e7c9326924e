package cache

import "context"

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
