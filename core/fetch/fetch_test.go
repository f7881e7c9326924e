package fetch

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/go-logr/logr"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fetcherOf has read these sources once.
func fetcherOf(t *testing.T, s Sources, log logr.Logger, sources ...Source) *Fetcher {
	t.Helper()
	f := New(s, "", log)
	readAgain(f, sources...)
	return f
}

// readAgain reads sources as libraries do, and returns what is there.
func readAgain(f *Fetcher, sources ...Source) (there []string) {
	f.Begin()
	defer f.End()
	for i := range sources {
		c, err := f.Content(&sources[i])
		if err != nil {
			continue
		}
		if code, err := c.Read(); err == nil {
			there = append(there, string(code))
		}
	}
	return there
}

// place puts a file in place whole, as operators' tools do.
func place(t *testing.T, name, text string) {
	t.Helper()
	tmp := filepath.Join(t.TempDir(), "new")
	if err := os.WriteFile(tmp, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(tmp, name); err != nil {
		t.Fatal(err)
	}
}
