package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"github.com/portico-proxy/portico/core/config"
	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
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
the schema of their input: a misspelt field is an error, and so is a limit that
the proxy would refuse.`,
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

func newPolicyEvalCommand() *cobra.Command {
	var input, settings string
	cmd := &cobra.Command{
		Use:   "eval file",
		Short: "Show what a policy says of a request",
		Long: `Show what a policy says of a request: its sets deny, warn, limits and selectors, as
the proxy would take them. The file is a policy (.rego), or has RegoPolicies (.yaml).

The input is JSON or YAML. Fields that it leaves out are empty; "portico policy
schema" has them all.`,
		Example: `  portico policy eval quorum_list.rego --settings=settings.yaml --input=request.yaml`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			policies, err := readPolicies(args[0], settings)
			if err != nil {
				return err
			}
			var request map[string]any
			if err := readYAML(input, &request); err != nil {
				return fmt.Errorf("read --input: %w", err)
			}
			for _, p := range policies {
				sets, err := p.Evaluate(cmd.Context(), request)
				if err != nil {
					return err
				}
				if err := printJSON(cmd.OutOrStdout(), sets); err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&input, "input", "", "File of the request. Empty means a request of nothing.")
	cmd.Flags().StringVar(&settings, "settings", "", "File of what a .rego file reads as data.settings. A RegoPolicy has its own.")
	return cmd
}

// readYAML reads JSON as well. No name is an empty file.
func readYAML(name string, into any) error {
	if name == "" {
		return nil
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	return yaml.Unmarshal(text, into)
}

// readPolicies reads a policy, or all RegoPolicies, of a file.
func readPolicies(name, settings string) ([]*rego.Policy, error) {
	if filepath.Ext(name) == ".rego" {
		return readPolicy(name, settings)
	}
	loader := config.Loader{Scheme: runtime.NewScheme()}
	if err := v1alpha1.AddToScheme(loader.Scheme); err != nil {
		return nil, fmt.Errorf("register policies: %w", err)
	}
	objects, err := loader.LoadFile(name)
	if err != nil {
		return nil, err
	}
	var policies []*rego.Policy
	for _, o := range objects {
		r, ok := o.(*v1alpha1.RegoPolicy)
		if !ok {
			continue
		}
		p, err := rego.Compile(rego.SourceOf(r))
		if err != nil {
			return nil, fmt.Errorf("%s, RegoPolicy %s, spec.rego, %w", name, r.Name, err)
		}
		policies = append(policies, p)
	}
	if len(policies) == 0 {
		return nil, fmt.Errorf("%s has no RegoPolicy", name)
	}
	return policies, nil
}

func readPolicy(name, settings string) ([]*rego.Policy, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("read policy: %w", err)
	}
	s := rego.Source{Name: strings.TrimSuffix(filepath.Base(name), ".rego"), Rego: string(text)}
	var values map[string]any
	if err := readYAML(settings, &values); err != nil {
		return nil, fmt.Errorf("read --settings: %w", err)
	}
	if values != nil {
		s.Settings = values
	}
	p, err := rego.Compile(s)
	if err != nil {
		return nil, fmt.Errorf("%s, %w", name, err)
	}
	return []*rego.Policy{p}, nil
}
