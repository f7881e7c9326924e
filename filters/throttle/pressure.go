package throttle

import (
	"math"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
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
	log       logr.Logger
	met       atomic.Int64 // when it was high last, Unix nanoseconds
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
	// calm is how long memory has to have had room for the log to speak of the next
	// spell: the heap may grow and shrink many times in one.
	calm = time.Minute
)

// NewPressure watches what the heap's live objects take of GOMEMLIMIT. It is nil
// where there is no limit.
func NewPressure(log logr.Logger) *Pressure {
	limit := debug.SetMemoryLimit(-1)
	if limit == math.MaxInt64 {
		return nil
	}
	return &Pressure{limit: uint64(limit), read: liveHeap, collect: runtime.GC, now: time.Now, log: log}
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
		p.look(now)
	}
	return p.high.Load()
}

func (p *Pressure) isAbove() bool { return p.read()/highAt*100 > p.limit }

// look is for one at a time.
func (p *Pressure) look(now int64) {
	p.high.Store(p.isAbove())
	if p.high.Load() && now-p.collected.Load() >= int64(collectEvery) {
		p.collect()
		p.collected.Store(p.now().UnixNano())
		p.high.Store(p.isAbove())
	}
	if p.high.Load() && now-p.met.Swap(now) > int64(calm) {
		p.log.Info("memory is nearly used up: requests are refused by 429 until there is room", "liveHeapBytes", p.read(), "memoryLimit", p.limit)
	}
}
