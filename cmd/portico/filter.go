package main

import "github.com/spf13/cobra"

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
