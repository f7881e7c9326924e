package main

import (
	"math"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/go-logr/logr/funcr"
	"github.com/spf13/cobra"
)

func TestCollectionsLeaveMemoryForRequests(t *testing.T) {
	const mebi = 1 << 20
	for name, tt := range map[string]struct {
		limit int64
		flags []string
		want  int64 // in MiB
		warns bool
	}{
		"no-limit":              {math.MaxInt64, nil, 512, false},
		"no-limit-given":        {math.MaxInt64, []string{"--cache-memory-limit=8Gi"}, 8192, false},
		"small-container":       {600 * mebi, nil, 300, false},
		"large-container":       {4096 * mebi, nil, 512, false},
		"given":                 {1000 * mebi, []string{"--cache-memory-limit=550Mi"}, 550, false},
		"given-as-usual":        {4096 * mebi, []string{"--cache-memory-limit=512Mi"}, 512, false},
		"too-much":              {600 * mebi, []string{"--cache-memory-limit=512Mi"}, 512, true},
		"no-bound-in-container": {600 * mebi, []string{"--cache-memory-limit=0"}, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			before := debug.SetMemoryLimit(tt.limit)
			defer debug.SetMemoryLimit(before)
			said := ""
			o, cmd := defaultProxyOptions(), &cobra.Command{}
			o.addFlags(cmd)
			if err := cmd.ParseFlags(tt.flags); err != nil {
				t.Fatal(err)
			}
			o.complete(cmd)
			got := o.cacheBudget(funcr.New(func(_, args string) { said += args }, funcr.Options{}))
			if off := got - tt.want*mebi; off < -mebi || off > 0 {
				t.Errorf("collections may take %d bytes, want %d MiB", got, tt.want)
			}
			if tt.warns != strings.Contains(said, `"memoryLimit"=629145600`) {
				t.Errorf("logged %q", said)
			}
		})
	}
}
