package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/portico-proxy/portico/filters/rego"
)

func newPolicyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Write and try policies in Rego",
		Long: `Write and try policies in Rego, without a proxy and without a cluster.
docs/write-a-rate-policy.md goes the whole way.`,
	}
	cmd.AddCommand(newPolicyTestCommand(), newPolicyEvalCommand(), newPolicySchemaCommand(), newPolicyReplayCommand())
	return cmd
}

func newPolicySchemaCommand() *cobra.Command {
	schemas := map[string]func() map[string]any{"request": rego.Schema, "caller": rego.CallerSchema}
	return &cobra.Command{
		Use:   "schema [request|caller]",
		Short: "Print the schema of what policies know of a request, or of a caller",
		Long: `Print the JSON Schema of what policies know of a request, or the part of it that
selectors may depend on, which is what is known of a caller, for OPA's own tools:

  mkdir -p schemas/view
  portico policy schema > schemas/request.json
  portico policy schema caller > schemas/view/caller.json
  opa check --strict --schema schemas .`,
		Args:      cobra.MatchAll(cobra.MaximumNArgs(1), cobra.OnlyValidArgs),
		ValidArgs: []string{"request", "caller"},
		RunE: func(cmd *cobra.Command, args []string) error {
			return printJSON(cmd.OutOrStdout(), schemas[append(args, "request")[0]]())
		},
	}
}

func printJSON(out io.Writer, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("print JSON: %w", err)
	}
	_, err = fmt.Fprintf(out, "%s\n", text)
	return err
}

func newPolicyTestCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "test [file or directory]...",
		Short: "Run the tests of policies",
		Long: `Run the tests of policies: the rules whose names begin with test_, in all .rego files
that are named or lie in or below a directory that is.

As opa test does, but only with what policies may use in the proxy, and with
the schema of their input: a misspelt field is an error, in tests' own inputs too,
and so is a limit that the proxy would refuse.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				args = []string{"."}
			}
			files, err := readRego(args)
			if err != nil {
				return err
			}
			results, err := rego.Test(cmd.Context(), files)
			if err != nil {
				return err
			}
			return printTests(cmd.OutOrStdout(), results)
		},
	}
}

var errTests = errors.New("tests of policies fail")

func printTests(out io.Writer, results []rego.TestResult) error {
	var err error
	for _, r := range results {
		if r.Err != nil {
			err = errTests
			fmt.Fprintf(out, "FAIL  %s: %v\n", r.Name, r.Err)
			continue
		}
		fmt.Fprintf(out, "ok    %s\n", r.Name)
	}
	if len(results) == 0 {
		return errors.New("there are no tests: rules whose names begin with test_, in .rego files")
	}
	return err
}

// readRego reads the .rego files that paths name, or that are in or below them.
func readRego(paths []string) (map[string]string, error) {
	files := map[string]string{}
	for _, path := range paths {
		err := filepath.WalkDir(path, func(name string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || filepath.Ext(name) != ".rego" {
				return err
			}
			text, err := os.ReadFile(name)
			files[name] = string(text)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("read policies: %w", err)
		}
	}
	return files, nil
}
