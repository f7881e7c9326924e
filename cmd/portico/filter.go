package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/spf13/cobra"
)

func newFilterCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "filter",
		Short: "Write, build and try WebAssembly filters",
		Long: `Write, build and try WebAssembly filters, without a proxy and without a cluster.
docs/write-a-wasm-filter.md goes the whole way.`,
	}
	cmd.AddCommand(newFilterNewCommand(), newFilterBuildCommand(), newFilterTestCommand(), newFilterRunCommand(), newFilterBenchCommand())
	return cmd
}

func newFilterBuildCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "build [directory]",
		Short: "Build filter.wasm from Go or C",
		Long: `Build filter.wasm from the Go or C sources of a directory, by the go command or by
clang and lld, and print its digest for a WasmFilter.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir := "."
			if len(args) > 0 {
				dir = args[0]
			}
			build, err := builder(cmd, dir)
			if err != nil {
				return err
			}
			build.Dir, build.Stdout, build.Stderr = dir, cmd.OutOrStdout(), cmd.ErrOrStderr()
			if err := build.Run(); err != nil {
				return fmt.Errorf("build the filter by %s: %w", build.Args[0], err)
			}
			code, err := os.ReadFile(filepath.Join(dir, "filter.wasm"))
			if err != nil {
				return fmt.Errorf("read the filter: %w", err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "filter.wasm: %d KiB, sha256: %x\n", (len(code)+1023)>>10, sha256.Sum256(code))
			return nil
		},
	}
}

var errNoSources = errors.New("there are no .go and no .c files")

// builder is what builds the sources in dir.
func builder(cmd *cobra.Command, dir string) (*exec.Cmd, error) {
	if names, _ := filepath.Glob(filepath.Join(dir, "*.go")); len(names) > 0 {
		build := exec.CommandContext(cmd.Context(), "go", "build", "-buildmode=c-shared", "-ldflags=-s -w", "-o", "filter.wasm", ".")
		build.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0")
		return build, nil
	}
	names, _ := filepath.Glob(filepath.Join(dir, "*.c"))
	if len(names) == 0 {
		return nil, fmt.Errorf("build %s: %w", dir, errNoSources)
	}
	args := []string{"--target=wasm32", "-nostdlib", "-O2", "-Wl,--no-entry", "-o", "filter.wasm"}
	for _, name := range names {
		args = append(args, filepath.Base(name))
	}
	return exec.CommandContext(cmd.Context(), "clang", args...), nil
}
