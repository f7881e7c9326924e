package stream

import "sync/atomic"

// A Budget is the memory that streams may take together.
type Budget struct {
	// Limit is in bytes; 0 means none.
	Limit int64
	used  atomic.Int64
}

// Add takes n bytes, or gives -n back, and reports whether the budget holds.
func (b *Budget) Add(n int64) bool {
	used := b.used.Add(n)
	return b.Limit == 0 || used <= b.Limit
}

// Used is the number of bytes taken.
func (b *Budget) Used() int64 { return b.used.Load() }
