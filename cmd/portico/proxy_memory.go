package main

import (
	"fmt"
	"math"
	"runtime/debug"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/go-logr/logr"
)

const (
	// memoryShare of what the process's cgroup may take is the Go heap's: the rest
	// is for stacks, for what WebAssembly modules compile to and for the kernel's
	// buffers.
	memoryShare = 0.9

	// Above four fifths of the heap's limit requests are refused (see
	// filters/throttle). Collections alone must not come near that.
	usualCacheShare = 50 // percent
	mostCacheShare  = 60
)

// limitMemory has the garbage collector work harder before the process takes more
// than its cgroup may, and is killed. GOMEMLIMIT wins.
func limitMemory(log logr.Logger) error {
	limit, err := memlimit.Set(memlimit.WithRatio(memoryShare))
	if err != nil {
		return fmt.Errorf("read the cgroup's memory limit (GOMEMLIMIT=off does without): %w", err)
	}
	if limit < math.MaxInt64 {
		log.Info("memory is limited", "bytes", limit)
	}
	return nil
}

// cacheBudget is what collections may take together, in bytes, and 0 without a bound.
func (o *proxyOptions) cacheBudget(log logr.Logger) int64 {
	limit, asked := debug.SetMemoryLimit(-1), o.cacheMemory.Value()
	switch most := limit / 100 * mostCacheShare; {
	case limit == math.MaxInt64:
	case !o.cacheMemoryGiven:
		return min(asked, limit/100*usualCacheShare)
	case asked == 0 || asked > most:
		log.Info("--cache-memory-limit is too much of the memory that there is: once collections have filled it, requests are refused by 429."+
			" Set it to half of the memory limit or leave it out, or give the process more memory", "cacheMemoryLimit", o.cacheMemory.String(), "memoryLimit", limit)
	}
	return asked
}
