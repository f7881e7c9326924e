package proxy

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// Binary returns the path of the portico binary, built from this checkout, with
// the race detector if the test has it. go build knows whether it is up to date.
func Binary(tb testing.TB) string {
	tb.Helper()
	path, err := built()
	if err != nil {
		tb.Fatal(err)
	}
	return path
}

var built = sync.OnceValues(func() (string, error) {
	cache := os.Getenv("PORTICO_CACHE")
	if cache == "" {
		dir, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("find a cache directory: %w", err)
		}
		cache = filepath.Join(dir, "portico")
	}
	args := []string{"build"}
	name := "portico"
	if Race {
		args, name = append(args, "-race"), "portico-race"
	}
	_, here, _, _ := runtime.Caller(0)
	checkout := filepath.Join(filepath.Dir(here), "..", "..")
	// Several checkouts must not run each other's.
	dir := filepath.Join(cache, "test", fmt.Sprintf("%x", sha256.Sum256([]byte(checkout)))[:12])
	path := filepath.Join(dir, name)
	unlock, err := lock(dir)
	if err != nil {
		return "", err
	}
	defer unlock()
	cmd := exec.Command("go", append(args, "-o", path, "./cmd/portico")...)
	cmd.Dir = checkout
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build portico: %w\n%s", err, out)
	}
	return path, nil
})

// lock keeps test packages that run at once from building into one file.
func lock(dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make cache directory: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, ".lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open lock file: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock cache directory: %w", err)
	}
	return func() { f.Close() }, nil
}
