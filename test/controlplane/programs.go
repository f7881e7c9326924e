package controlplane

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Environment variables that say where the programs are.
const (
	// BinEnv names a directory that already holds the programs. Nothing is
	// built when it is set.
	BinEnv = "PORTICO_CONTROLPLANE_BIN"
	// CacheEnv names the directory under which built programs are kept,
	// instead of "portico" in the user's cache directory.
	CacheEnv = "PORTICO_CACHE"
)

// stagesDir is where kwok's own Stage objects lie, beside the programs.
const stagesDir = "kwok-stages"

// ErrNoSource says that the Go module of the programs was not found.
var ErrNoSource = errors.New("source of the control plane's programs not found: run inside a checkout of portico, or set " +
	BinEnv + " to a directory that holds " + strings.Join(programNames(), ", "))

// ProgramsOptions says how [Programs] does its work. The zero value works.
type ProgramsOptions struct {
	// Progress receives a line for each program that must be built, which
	// takes minutes the first time. Nil discards it.
	Progress io.Writer
	// Cache is the directory under which programs are kept. Empty means
	// $PORTICO_CACHE, or "portico" in the user's cache directory.
	Cache string
}

// Programs returns the directory that holds etcd, kube-apiserver,
// kube-controller-manager, kube-scheduler, kubectl and kwok, and builds those
// that are missing. Processes that need them at once build them once.
func Programs(ctx context.Context, o ProgramsOptions) (string, error) {
	if dir := os.Getenv(BinEnv); dir != "" {
		return dir, checkPrograms(dir)
	}
	b, err := newBuild(ctx, o)
	if err != nil {
		return "", err
	}
	if b.complete() {
		return b.dir, nil
	}
	if err := os.MkdirAll(b.dir, 0o755); err != nil {
		return "", fmt.Errorf("make cache of programs: %w", err)
	}
	unlock, err := lockFile(ctx, filepath.Join(b.dir, ".lock"), b.progress)
	if err != nil {
		return "", err
	}
	defer unlock()
	return b.dir, b.all(ctx)
}

// checkPrograms says which program a ready directory lacks.
func checkPrograms(dir string) error {
	for _, name := range programNames() {
		if !exists(filepath.Join(dir, name)) {
			return fmt.Errorf("%s=%s: no %s in it; it must hold %s", BinEnv, dir, name, strings.Join(programNames(), ", "))
		}
	}
	return nil
}

// lockFile takes an exclusive lock that other processes respect and returns
// what gives it back.
func lockFile(ctx context.Context, path string, progress io.Writer) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for said := false; ; said = true {
		// The lock goes away with the file descriptor.
		if tryLock(f) {
			return func() { _ = f.Close() }, nil
		}
		if !said {
			fmt.Fprintln(progress, "waiting for another process that builds the control plane's programs")
		}
		select {
		case <-ctx.Done():
			_ = f.Close()
			return nil, fmt.Errorf("wait for %s: %w", path, context.Cause(ctx))
		case <-tick.C:
		}
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, fs.ErrNotExist)
}
