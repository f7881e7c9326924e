package meter

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
)

// FuzzRewrite has modules rewritten that are none: what wazero takes becomes what it
// takes, and what it refuses does not; and nothing becomes much larger.
func FuzzRewrite(f *testing.F) {
	seeds, err := filepath.Glob(filepath.Join(specification(f), "v2", "testdata", "*.[0-3].wasm"))
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range seeds {
		code, err := os.ReadFile(seed)
		if err != nil {
			f.Fatal(err)
		}
		if len(code) < 4000 {
			f.Add(code)
		}
	}
	f.Fuzz(func(t *testing.T, code []byte) {
		metered, err := Rewrite(code)
		if err != nil {
			return // what is refused too often, scripts of the specification tell
		}
		if len(metered) > maxOf(len(code)) {
			t.Fatalf("%d bytes became %d", len(code), len(metered))
		}
		r := wazero.NewRuntimeWithConfig(t.Context(), wazero.NewRuntimeConfigInterpreter().WithMemoryLimitPages(16))
		defer r.Close(t.Context())
		_, before := r.CompileModule(t.Context(), code)
		_, after := r.CompileModule(t.Context(), metered)
		if before != nil && (strings.Contains(before.Error(), "section custom") || strings.Contains(before.Error(), "custom section")) {
			return // names that cannot be read are left out
		}
		if (before == nil) != (after == nil) {
			t.Fatalf("wazero says %v of it, and %v when it is metered", before, after)
		}
	})
}
