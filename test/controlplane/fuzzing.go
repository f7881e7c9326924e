package controlplane

import (
	"os"
	"slices"
	"strings"
)

// Fuzzing reports whether a test binary was started to fuzz. Every worker is a process
// of its own: where targets need no control plane, none should start one.
func Fuzzing() bool {
	return slices.ContainsFunc(os.Args, func(arg string) bool { return strings.HasPrefix(arg, "-test.fuzz=") })
}
