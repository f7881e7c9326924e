package controlplane

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestProgramsAreBuiltOnce(t *testing.T) {
	dir, err := Programs(t.Context(), ProgramsOptions{Progress: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	// Settings of the caller's own build must not lead to another build.
	t.Setenv("GOFLAGS", "-race -mod=vendor")
	t.Setenv("GOOS", "plan9")
	var progress bytes.Buffer
	again, err := Programs(t.Context(), ProgramsOptions{Progress: &progress})
	if err != nil {
		t.Fatal(err)
	}
	if again != dir || progress.Len() != 0 {
		t.Errorf("second call: directory %s and progress %q, want %s and nothing", again, &progress, dir)
	}
}

func TestProgramsTakesReadyDirectory(t *testing.T) {
	dir := t.TempDir()
	t.Setenv(BinEnv, dir)
	if _, err := Programs(t.Context(), ProgramsOptions{}); err == nil {
		t.Error("no error for a directory without programs")
	}
	for _, name := range programNames() {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	got, err := Programs(t.Context(), ProgramsOptions{})
	if got != dir || err != nil {
		t.Errorf("Programs() = %q, %v, want %q", got, err, dir)
	}
}

func TestLockFileWaitsForItsTurn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	said := make(chan struct{}, 1)
	unlock, err := lockFile(t.Context(), path, signalWriter(said))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	waiting := make(chan error, 1)
	go func() {
		_, err := lockFile(ctx, path, signalWriter(said))
		waiting <- err
	}()
	<-said
	cancel()
	if err := <-waiting; !errors.Is(err, context.Canceled) {
		t.Errorf("wait for a lock that is held: %v, want %v", err, context.Canceled)
	}
	unlock()
	unlock, err = lockFile(t.Context(), path, signalWriter(said))
	if err != nil {
		t.Fatal(err)
	}
	unlock()
}

// signalWriter tells that something was written.
type signalWriter chan struct{}

func (w signalWriter) Write(p []byte) (int, error) {
	w <- struct{}{}
	return len(p), nil
}
