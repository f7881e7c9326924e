package fetch

import (
	"context"
	"path/filepath"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/go-logr/logr/funcr"
	"github.com/google/go-cmp/cmp"
)

// withoutWatcher has f run where the system has none left: a file that is open
// counts as one that is watched does.
func withoutWatcher(t *testing.T, run func()) {
	t.Helper()
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 0, Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	run()
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
}

func TestNothingNeedsAWatcher(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f.wasm")
	place(t, file, "old")
	synctest.Test(t, func(t *testing.T) {
		url := func(context.Context, string) ([]byte, error) { return []byte("far"), nil }
		near, far := Source{File: file}, Source{URL: "https://example.org/", SHA256: DigestOf([]byte("far"))}
		said := 0
		f := fetcherOf(t, Sources{URL: url}, funcr.New(func(string, string) { said++ }, funcr.Options{}), near, far)
		ctx, cancel := context.WithCancel(t.Context())
		again, ended := make(chan struct{}, 100), make(chan error, 1)
		withoutWatcher(t, func() {
			go func() { ended <- f.Run(ctx, func() { again <- struct{}{} }) }()
			synctest.Wait()
		})
		for _, want := range []string{"far", "new"} {
			if want == "new" {
				place(t, file, want)
			}
			for there := ""; there != want; {
				select {
				case <-again:
				case err := <-ended:
					t.Fatalf("it ended: %v", err)
				}
				for _, text := range readAgain(f, near, far) {
					if there = text; there == want {
						break
					}
				}
			}
		}
		cancel()
		if err := <-ended; err != nil || said != 1 {
			t.Errorf("it ended with %v, and logged %d times", err, said)
		}
		if diff := cmp.Diff([]string{"new"}, readAgain(f, near)); diff != "" {
			t.Error(diff)
		}
	})
}
