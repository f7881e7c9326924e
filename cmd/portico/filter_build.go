package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/portico-proxy/portico/filters/wasm"
)

func newFilterBuildCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "build [directory]",
		Short: "Build filter.wasm from Go, C, Rust or AssemblyScript",
		Long: `Build filter.wasm from what a directory has: .go files by the go command, .c files by
clang and lld, filter.rs by rustc, or filter.ts by the AssemblyScript compiler that its
package-lock.json names, which npm installs first. See that a proxy would take it, and
print its digest for a WasmFilter.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir := "."
			if len(args) > 0 {
				dir = args[0]
			}
			builds, err := builders(cmd.Context(), dir)
			if err != nil {
				return err
			}
			for _, build := range builds {
				build.Dir, build.Stdout, build.Stderr = dir, cmd.OutOrStdout(), cmd.ErrOrStderr()
				if err := build.Run(); err != nil {
					return fmt.Errorf("build the filter by %s: %w", strings.Join(build.Args, " "), err)
				}
			}
			return reportBuilt(cmd, filepath.Join(dir, "filter.wasm"))
		},
	}
}

// reportBuilt says what was built, and whether a proxy would take it.
func reportBuilt(cmd *cobra.Command, name string) error {
	code, err := os.ReadFile(name)
	if err != nil {
		return fmt.Errorf("read the filter: %w", err)
	}
	fmt.Fprintf(cmd.OutOrStdout(), "filter.wasm: %d KiB, sha256: %x\n", (len(code)+1023)>>10, sha256.Sum256(code))
	if err := wasm.Check(cmd.Context(), code); err != nil {
		return fmt.Errorf("filter.wasm is built, but no proxy would take it: %w", err)
	}
	return nil
}

var errNoSources = errors.New("there are no .go files, no .c files, no filter.rs and no filter.ts")

// builders are the commands that build the sources in dir, one after the other.
func builders(ctx context.Context, dir string) ([]*exec.Cmd, error) {
	for _, one := range []struct {
		sources string
		build   func(ctx context.Context, dir string, names []string) ([]*exec.Cmd, error)
	}{{"*.go", buildGo}, {"*.c", buildC}, {"filter.rs", buildRust}, {"filter.ts", buildAssemblyScript}} {
		if names, _ := filepath.Glob(filepath.Join(dir, one.sources)); len(names) > 0 {
			return one.build(ctx, dir, names)
		}
	}
	return nil, fmt.Errorf("build %s: %w", dir, errNoSources)
}

// need says which of the programs that a language needs is not there.
func need(what string, programs ...string) error {
	for _, program := range programs {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("filters in %s: %w", what, err)
		}
	}
	return nil
}

func buildGo(ctx context.Context, _ string, _ []string) ([]*exec.Cmd, error) {
	build := exec.CommandContext(ctx, "go", "build", "-buildmode=c-shared", "-ldflags=-s -w", "-o", "filter.wasm", ".")
	build.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0")
	return []*exec.Cmd{build}, need("Go need go", "go")
}

func buildC(ctx context.Context, _ string, names []string) ([]*exec.Cmd, error) {
	args := []string{"--target=wasm32", "-nostdlib", "-O2", "-Wl,--no-entry", "-o", "filter.wasm"}
	for _, name := range names {
		args = append(args, filepath.Base(name))
	}
	return []*exec.Cmd{exec.CommandContext(ctx, "clang", args...)}, need("C need clang and lld", "clang", "wasm-ld")
}

const rustTarget = "wasm32-unknown-unknown"

var errNoRust = errors.New("filters in Rust need a rustc that has the target " + rustTarget + ": rustup target add " + rustTarget + ", or Debian's rustc and libstd-rust-dev-wasm32")

func buildRust(ctx context.Context, _ string, _ []string) ([]*exec.Cmd, error) {
	// There may be one of rustup's that has not the target, and one of the
	// distribution's that has.
	for _, name := range []string{"rustc", "/usr/bin/rustc"} {
		sysroot, err := exec.CommandContext(ctx, name, "--print", "sysroot").Output()
		if err != nil {
			continue
		}
		if _, err := os.Stat(filepath.Join(strings.TrimSpace(string(sysroot)), "lib", "rustlib", rustTarget)); err != nil {
			continue
		}
		return []*exec.Cmd{exec.CommandContext(ctx, name, "--target="+rustTarget, "--crate-type=cdylib", "--edition=2021",
			"-C", "opt-level=2", "-C", "panic=abort", "-C", "strip=symbols", "-o", "filter.wasm", "filter.rs")}, nil
	}
	return nil, errNoRust
}

func buildAssemblyScript(ctx context.Context, dir string, _ []string) ([]*exec.Cmd, error) {
	compiler := filepath.Join("node_modules", "assemblyscript", "bin", "asc.js")
	build := exec.CommandContext(ctx, "node", compiler, "filter.ts", "-O3", "--runtime", "incremental", "--use", "abort=", "-o", "filter.wasm")
	commands := []*exec.Cmd{build}
	if _, err := os.Stat(filepath.Join(dir, compiler)); err != nil {
		commands = []*exec.Cmd{exec.CommandContext(ctx, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"), build}
	}
	return commands, need("AssemblyScript need node and npm", "node", "npm")
}
