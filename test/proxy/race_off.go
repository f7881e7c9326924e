//go:build !race

package proxy

// Race says that the race detector is at work, which takes several times the memory.
const Race = false
