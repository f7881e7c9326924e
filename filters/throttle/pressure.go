package throttle

import (
	"math"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync/atomic"
	"time"
)

// Pressure tells when memory is nearly used up. A nil Pressure never is high.
type Pressure struct {
	limit     uint64 // bytes
	read      func() uint64
	collect   func()
	now       func() time.Time
	looked    atomic.Int64 // Unix nanoseconds
	collected atomic.Int64 // when garbage last was because of it, Unix nanoseconds
	high      atomic.Bool
}

const (
	// lookEvery is how often memory is looked at.
	lookEvery = 100 * time.Millisecond
	// highAt is the part of the limit that may be in use, in percent. Beyond it
	// the garbage collector would soon do nothing else.
	highAt = 80
	// collectEvery is how often garbage is collected meanwhile: where nothing is
	// begun, little is allocated, and the collector would not look for two minutes
	// whether there is room again.
	collectEvery = time.Second
)

// NewPressure watches what the heap's live objects take of GOMEMLIMIT. It is nil
// where there is no limit.
func NewPressure() *Pressure {
	limit := debug.SetMemoryLimit(-1)
	if limit == math.MaxInt64 {
		return nil
	}
	return &Pressure{limit: uint64(limit), read: liveHeap, collect: runtime.GC, now: time.Now}
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
		p.high.Store(p.isAbove())
		if p.high.Load() && now-p.collected.Load() >= int64(collectEvery) {
			p.collect()
			p.collected.Store(p.now().UnixNano())
			p.high.Store(p.isAbove())
		}
	}
	return p.high.Load()
}

func (p *Pressure) isAbove() bool { return p.read()/highAt*100 > p.limit }
