package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/portico-proxy/portico/core/config"
	"github.com/portico-proxy/portico/core/fetch"
	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
	"github.com/portico-proxy/portico/filters/rego"
)

// evaluation says which policies are asked about which request.
type evaluation struct{ input, settings, bundle, pkg string }

func newPolicyEvalCommand() *cobra.Command {
	o := evaluation{}
	cmd := &cobra.Command{
		Use:   "eval file",
		Short: "Show what a policy says of a request",
		Long: `Show what a policy says of a request: its sets deny, warn, limits and selectors, as
the proxy would take them. The file is a policy (.rego), a bundle (.tar.gz), or has
RegoPolicies (.yaml). A RegoPolicy that is a bundle is evaluated from the file that
it names, or from --bundle: nothing is fetched here.

The input is JSON or YAML. Fields that it leaves out are empty; "portico policy
schema" has them all.`,
		Example: `  portico policy eval quorum_list.rego --settings=settings.yaml --input=request.yaml
  portico policy eval policy.yaml --bundle=bundle.tar.gz --input=request.yaml`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), cmd.OutOrStdout(), args[0]) },
	}
	f := cmd.Flags()
	f.StringVar(&o.input, "input", "", "File of the request. Empty means a request of nothing.")
	f.StringVar(&o.settings, "settings", "", "File of what a policy or a bundle reads as data.settings. A RegoPolicy has its own.")
	f.StringVar(&o.bundle, "bundle", "", "File of the bundle that the RegoPolicy names, where that is not on this machine.")
	f.StringVar(&o.pkg, "package", "", "Package to ask, of a bundle that has several. A RegoPolicy says that itself.")
	return cmd
}

func (o *evaluation) run(ctx context.Context, out io.Writer, name string) error {
	sources, err := o.sources(name)
	if err != nil {
		return err
	}
	input, err := readPage(o.input)
	if err != nil {
		return fmt.Errorf("read --input: %w", err)
	}
	request := map[string]any{}
	if err := input.into(&request); err != nil {
		return fmt.Errorf("read --input: %w", err)
	}
	for _, s := range sources {
		p, err := rego.Compile(s.Source)
		if err != nil {
			return fmt.Errorf("%s, %w", s.of, err)
		}
		said, err := p.Evaluate(ctx, request)
		if wrong := (*rego.InputError)(nil); errors.As(err, &wrong) {
			return fmt.Errorf("%s: %w", input.at(wrong.Path), err)
		}
		if err != nil {
			return err
		}
		if err := printJSON(out, said); err != nil {
			return err
		}
	}
	return nil
}

// A regoSource is a policy, and whose mistakes its mistakes are.
type regoSource struct {
	rego.Source
	of string
}

// sources are the policies of a file.
func (o *evaluation) sources(name string) ([]regoSource, error) {
	isBundle := strings.HasSuffix(name, ".tar.gz")
	if !isBundle && filepath.Ext(name) != ".rego" {
		return o.policies(name)
	}
	if o.bundle != "" || o.pkg != "" && !isBundle {
		return nil, errors.New("--bundle is for a file with RegoPolicies, and --package for a bundle")
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("read policy: %w", err)
	}
	s := regoSource{rego.Source{Name: strings.TrimSuffix(filepath.Base(name), ".rego"), Rego: string(text)}, name}
	if isBundle {
		s.Rego = ""
		if s.Bundle, err = rego.ReadBundle(text, &v1alpha1.RegoSource{Package: o.pkg}); err != nil {
			return nil, fmt.Errorf("%s, %w", name, err)
		}
	}
	return []regoSource{s}, o.set(&s.Source)
}

// set gives a policy its settings.
func (o *evaluation) set(s *rego.Source) error {
	settings, err := readPage(o.settings)
	if err != nil {
		return fmt.Errorf("read --settings: %w", err)
	}
	values := map[string]any{}
	if err := settings.into(&values); err != nil {
		return fmt.Errorf("read --settings: %w", err)
	}
	s.Settings, s.SettingsIn = values, "--settings, which is not given,"
	if o.settings != "" {
		s.SettingsIn = o.settings
	}
	return nil
}

// policies are the RegoPolicies of a file.
func (o *evaluation) policies(name string) ([]regoSource, error) {
	if o.settings != "" || o.pkg != "" {
		return nil, fmt.Errorf("--settings and --package are not for RegoPolicies: %s has spec.settings, and spec.source.package", name)
	}
	loader := config.Loader{Scheme: runtime.NewScheme()}
	if err := v1alpha1.AddToScheme(loader.Scheme); err != nil {
		return nil, fmt.Errorf("register policies: %w", err)
	}
	objects, err := loader.LoadFile(name)
	if err != nil {
		return nil, err
	}
	var all []regoSource
	for _, object := range objects {
		r, ok := object.(*v1alpha1.RegoPolicy)
		if !ok {
			continue
		}
		s := regoSource{rego.SourceOf(r), fmt.Sprintf("%s, RegoPolicy %s, spec.rego", name, r.Name)}
		if r.Spec.Source != nil {
			s.of = fmt.Sprintf("%s, RegoPolicy %s, spec.source", name, r.Name)
			if s.Bundle, err = o.open(r.Spec.Source); err != nil {
				return nil, fmt.Errorf("%s, %w", s.of, err)
			}
		}
		all = append(all, s)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s has no RegoPolicy", name)
	}
	return all, nil
}

var errBundleAway = errors.New("the bundle is not fetched here: get it, and name its file by --bundle")

// open reads a bundle, as the proxy would, from a file of this machine.
func (o *evaluation) open(s *v1alpha1.RegoSource) (*rego.Bundle, error) {
	file := cmp.Or(o.bundle, s.File)
	if file == "" {
		return nil, errBundleAway
	}
	packed, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) && o.bundle == "" {
		return nil, fmt.Errorf("file: the bundle is not on this machine: name its file here by --bundle: %w", err)
	}
	if err != nil {
		return nil, fmt.Errorf("read the bundle: %w", err)
	}
	if is := fetch.DigestOf(packed); s.SHA256 != "" && s.SHA256 != is {
		return nil, fmt.Errorf("sha256: %s has another digest: %s", file, is)
	}
	return rego.ReadBundle(packed, s)
}
