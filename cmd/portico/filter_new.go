package main

import (
	"embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/template"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/portico-proxy/portico/plugins/abi/languages"
)

// templates are the files of a new filter, by language; those beside the
// directories are for all.
//
//go:embed templates
var templates embed.FS

// newFilter is what the files of a new filter speak of.
type newFilter struct {
	Name, Dir   string
	Go, Version string // of the language, and of this module
	Replace     string // where this module is instead
	Warning     string // what the filter says first

	language string
}

// An authorship is what there is of a language besides its templates.
type authorship struct {
	warning string
	host    string // the file of what guests import, if it is copied
}

var authorships = map[string]authorship{
	"go":             {warning: "Careful, jane: this cannot be undone"},
	"c":              {"Careful", "portico.h"},
	"rust":           {"Careful", "portico.rs"},
	"assemblyscript": {"Careful", "portico.ts"},
}

func newFilterNewCommand() *cobra.Command {
	f := newFilter{}
	cmd := &cobra.Command{
		Use:   "new directory",
		Short: "Write a filter to begin with",
		Long: `Write a filter to begin with into a directory that is not there yet: the source, a
test, the cases of "portico filter test", and the policy that runs it.`,
		Example: `  portico filter new labels && cd labels
  go mod tidy && go test ./...
  portico filter build && portico filter test

  portico filter new labels --language=rust && cd labels
  portico filter build && portico filter test`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.describe(args[0]); err != nil {
				return err
			}
			return f.write(cmd)
		},
	}
	cmd.Flags().StringVar(&f.language, "language", "go", "Language of the filter: go, c, rust or assemblyscript.")
	cmd.Flags().StringVar(&f.Replace, "replace", "", "Checkout of Portico to take the Go SDK from, instead of the released one.")
	return cmd
}

var errLanguage = errors.New("--language is go, c, rust or assemblyscript")

func (f *newFilter) describe(dir string) (err error) {
	if f.Dir, err = filepath.Abs(dir); err != nil {
		return fmt.Errorf("find the directory: %w", err)
	}
	if f.Replace != "" {
		if f.Replace, err = filepath.Abs(f.Replace); err != nil {
			return fmt.Errorf("find --replace: %w", err)
		}
	}
	f.Name, f.Go, f.Version = filepath.Base(f.Dir), "1.26", "v0.0.0"
	if wrong := validation.IsDNS1123Subdomain(f.Name); len(wrong) > 0 {
		return fmt.Errorf("the directory's name is the WasmFilter's, and %q cannot be: %s", f.Name, wrong[0])
	}
	if v, _, _ := strings.Cut(version(), "+"); strings.HasPrefix(v, "v") {
		f.Version = v
	}
	a, known := authorships[f.language]
	if f.Warning = a.warning; !known {
		return errLanguage
	}
	return nil
}

// write fills the directory, which must be new: nobody's work is overwritten.
func (f *newFilter) write(cmd *cobra.Command) error {
	if err := os.Mkdir(f.Dir, 0o755); err != nil {
		return fmt.Errorf("make the directory: %w", err)
	}
	all, err := template.ParseFS(templates, "templates/*.txt", "templates/"+f.language+"/*.txt")
	if err != nil {
		return fmt.Errorf("read the templates: %w", err)
	}
	for _, t := range all.Templates() {
		if err := f.file(t); err != nil {
			return err
		}
	}
	if err := f.copyHost(authorships[f.language].host); err != nil {
		return err
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%s has a filter to begin with\n", f.Dir)
	return nil
}

// copyHost puts beside the filter what it imports. "" is nothing.
func (f *newFilter) copyHost(name string) error {
	if name == "" {
		return nil
	}
	text, err := languages.Files.ReadFile(name)
	if err != nil {
		return fmt.Errorf("read what guests import: %w", err)
	}
	if err := os.WriteFile(filepath.Join(f.Dir, name), text, 0o644); err != nil { //nolint:gosec // it is no secret
		return fmt.Errorf("write the filter: %w", err)
	}
	return nil
}

func (f *newFilter) file(t *template.Template) error {
	out, err := os.Create(filepath.Join(f.Dir, strings.TrimSuffix(t.Name(), ".txt")))
	if err != nil {
		return fmt.Errorf("write the filter: %w", err)
	}
	if err := errors.Join(t.Execute(out, f), out.Close()); err != nil {
		return fmt.Errorf("write the filter: %w", err)
	}
	return nil
}
