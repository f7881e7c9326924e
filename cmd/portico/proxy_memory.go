package main

import (
	"fmt"
	"math"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/go-logr/logr"
)

// memoryShare of what the process's cgroup may take is the Go heap's: the rest is
// for stacks, for what WebAssembly modules compile to and for the kernel's
// buffers.
const memoryShare = 0.9

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
