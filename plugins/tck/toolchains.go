package tck

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// Languages are those that guests of the cases are written in here.
var Languages = []string{"assemblyscript", "c", "go", "rust"}

// Guest builds the guest in a language, or skips the test where there is no
// toolchain for it.
func Guest(tb testing.TB, language string) []byte {
	tb.Helper()
	return build(tb, language, "guest")
}

// LookupGuest builds the guest of the cases about lookup in a language, or skips
// the test.
func LookupGuest(tb testing.TB, language string) []byte {
	tb.Helper()
	return build(tb, language, "lookup")
}

func build(tb testing.TB, language, guest string) []byte {
	tb.Helper()
	_, here, _, _ := runtime.Caller(0)
	dir := filepath.Join(filepath.Dir(here), "guests", language)
	switch language {
	case "assemblyscript":
		return fromAssemblyScript(tb, dir, guest+".ts")
	case "c":
		return FromC(tb, filepath.Join(dir, guest+".c"))
	case "rust":
		return FromRust(tb, filepath.Join(dir, guest+".rs"))
	}
	if guest != "guest" {
		dir = filepath.Join(dir, guest)
	}
	return FromGo(tb, dir)
}

// FromC builds a guest from a file, or skips the test where there is no clang.
func FromC(tb testing.TB, source string) []byte {
	tb.Helper()
	for _, tool := range []string{"clang", "wasm-ld"} {
		if _, err := exec.LookPath(tool); err != nil {
			tb.Skipf("guests in C need clang and lld: %v", err)
		}
	}
	return built(tb, func(out string) *exec.Cmd {
		return exec.Command("clang", "--target=wasm32", "-nostdlib", "-O2", "-Wl,--no-entry", "-I", headers(), "-o", out, source)
	})
}

// headers is where guests in C find portico.h.
func headers() string {
	_, here, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(here), "..", "abi", "languages")
}

// FromGo builds a guest from a directory.
func FromGo(tb testing.TB, dir string) []byte {
	tb.Helper()
	return built(tb, func(out string) *exec.Cmd {
		cmd := exec.Command("go", "build", "-buildmode=c-shared", "-ldflags=-s -w", "-o", out, ".")
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0", "GOFLAGS=")
		return cmd
	})
}

const rustTarget = "wasm32-unknown-unknown"

var errNoRust = errors.New("guests in Rust need a rustc with the target " + rustTarget)

// FromRust builds a guest from a file, or skips the test where no rustc has the
// target.
func FromRust(tb testing.TB, source string) []byte {
	tb.Helper()
	compiler, err := rustc()
	if err != nil {
		tb.Skip(err)
	}
	return built(tb, func(out string) *exec.Cmd {
		return exec.Command(compiler, "--target="+rustTarget, "--crate-type=cdylib", "--edition=2021", "-C", "opt-level=2", "-C", "panic=abort", "-C", "strip=symbols", "-o", out, source)
	})
}

// rustc is a compiler that has the target of guests. There may be one of rustup's
// that has it not, and one of the distribution's that has.
func rustc() (string, error) {
	for _, name := range []string{"rustc", "/usr/bin/rustc"} {
		compiler, err := exec.LookPath(name)
		if err != nil {
			continue
		}
		out, err := exec.Command(compiler, "--print", "sysroot").Output()
		if err != nil {
			continue
		}
		if _, err := os.Stat(filepath.Join(strings.TrimSpace(string(out)), "lib", "rustlib", rustTarget)); err == nil {
			return compiler, nil
		}
	}
	return "", errNoRust
}

// fromAssemblyScript builds a guest from a file of a directory that pins its
// compiler, or skips the test where there is no node, or the compiler cannot be had.
func fromAssemblyScript(tb testing.TB, dir, source string) []byte {
	tb.Helper()
	for _, tool := range []string{"node", "npm"} {
		if _, err := exec.LookPath(tool); err != nil {
			tb.Skipf("guests in AssemblyScript need node and npm: %v", err)
		}
	}
	tools, err := npmInstall(tb.Context(), dir)
	if err != nil {
		tb.Skipf("guests in AssemblyScript need its compiler: %v", err)
	}
	return built(tb, func(out string) *exec.Cmd {
		cmd := exec.Command("node", filepath.Join(tools, "node_modules", "assemblyscript", "bin", "asc.js"), source,
			"-O3", "--runtime", "stub", "--use", "abort=", "-o", out)
		cmd.Dir = dir
		return cmd
	})
}

// npmInstall installs what a directory's lock file names, once per machine, and
// returns where.
func npmInstall(ctx context.Context, dir string) (string, error) {
	lock, err := os.ReadFile(filepath.Join(dir, "package-lock.json"))
	if err != nil {
		return "", err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	digest := sha256.Sum256(lock)
	tools := filepath.Join(cache, "portico", "npm", hex.EncodeToString(digest[:8]))
	if _, err := os.Stat(tools); err == nil {
		return tools, nil
	}
	if err := os.MkdirAll(filepath.Dir(tools), 0o755); err != nil {
		return "", err
	}
	part, err := os.MkdirTemp(filepath.Dir(tools), "part-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(part)
	for _, name := range []string{"package.json", "package-lock.json"} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return "", err
		}
		if err := os.WriteFile(filepath.Join(part, name), text, 0o600); err != nil {
			return "", err
		}
	}
	// A registry that says nothing must not hold the tests up.
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	install := exec.CommandContext(ctx, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline", "--fetch-retries=1", "--fetch-timeout=30000")
	install.Dir = part
	if out, err := install.CombinedOutput(); err != nil {
		return "", fmt.Errorf("npm ci: %w: %s", err, out)
	}
	if err := os.Rename(part, tools); err != nil {
		_, err = os.Stat(tools) // somebody else may have been faster
		return tools, err
	}
	return tools, nil
}

func built(tb testing.TB, command func(out string) *exec.Cmd) []byte {
	tb.Helper()
	out := filepath.Join(tb.TempDir(), "guest.wasm")
	cmd := command(out)
	if log, err := cmd.CombinedOutput(); err != nil {
		tb.Fatalf("%s: %v\n%s", cmd, err, log)
	}
	code, err := os.ReadFile(out)
	if err != nil {
		tb.Fatal(err)
	}
	return code
}
