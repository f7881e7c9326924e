package throttle

import (
	"math"
	"runtime/debug"
	"runtime/metrics"
	"sync/atomic"
	"time"
)

// Pressure tells when memory is nearly used up. A nil Pressure never is high.
type Pressure struct {
	limit  uint64 // bytes
	read   func() uint64
	now    func() time.Time
	looked atomic.Int64 // Unix nanoseconds
	high   atomic.Bool
}

const (
	// lookEvery is how often memory is looked at.
	lookEvery = 100 * time.Millisecond
	// highAt is the part of the limit that may be in use, in percent. Beyond it
	// the garbage collector would soon do nothing else.
	highAt = 80
)

// NewPressure watches what the heap's live objects take of GOMEMLIMIT. It is nil
// where there is no limit.
func NewPressure() *Pressure {
	limit := debug.SetMemoryLimit(-1)
	if limit == math.MaxInt64 {
		return nil
	}
	return &Pressure{limit: uint64(limit), read: liveHeap, now: time.Now}
}

// liveHeap is what the last collection found in use, in bytes. What is garbage is
// not counted: with a limit there is always much of it.
func liveHeap() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(sample)
	if sample[0].Value.Kind() != metrics.KindUint64 {
		return 0
	}
	return sample[0].Value.Uint64()
}

// IsHigh reports whether nothing more should be begun.
func (p *Pressure) IsHigh() bool {
	if p == nil {
		return false
	}
	now, looked := p.now().UnixNano(), p.looked.Load()
	if now-looked >= int64(lookEvery) && p.looked.CompareAndSwap(looked, now) {
		p.high.Store(p.read()/highAt*100 > p.limit)
	}
	return p.high.Load()
}
