package rego

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	opa "github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/tester"
)

// Evaluate asks for all of a policy's sets about an input as its author writes
// it: the fields that are left out are empty, and there are no others. An
// [InputError] says so.
func (p *Policy) Evaluate(ctx context.Context, input map[string]any) (map[string]any, error) {
	whole, err := complete(input)
	if err != nil {
		return nil, err
	}
	value, err := ast.InterfaceToValue(whole)
	if err != nil {
		return nil, fmt.Errorf("read the input: %w", err)
	}
	sets := map[string]any{}
	for _, q := range []*question{p.decision, p.limits, p.selectors} {
		if q == nil {
			continue
		}
		results, err := q.query.Eval(ctx, opa.EvalParsedInput(value), opa.EvalSortSets(true))
		if err != nil {
			return nil, fmt.Errorf("evaluate %s: %w", p.pkg, err)
		}
		answer := results[0].Bindings["answer"].(map[string]any)
		if _, err := read(p.name, answer); err != nil {
			return nil, err
		}
		maps.Copy(sets, answer)
	}
	return sets, nil
}

// complete adds the fields that input leaves out.
func complete(input map[string]any) (map[string]any, error) {
	if err := checkInput(input); err != nil {
		return nil, err
	}
	whole := map[string]any{}
	for i := range fields {
		f := &fields[i]
		parent, name := f.parent()
		from, to := input, whole
		if parent != "" {
			from, _ = input[parent].(map[string]any)
			if whole[parent] == nil {
				whole[parent] = map[string]any{}
			}
			to = whole[parent].(map[string]any)
		}
		if v, ok := from[name]; ok {
			to[name] = v
		} else {
			to[name] = f.empty()
		}
	}
	return whole, nil
}

func (f *field) empty() any {
	switch {
	case f.text != nil:
		return ""
	case f.number != nil:
		return json.Number("0")
	case f.flag != nil:
		return false
	case f.list != nil:
		return []any{}
	}
	return map[string]any{}
}

// A TestResult is what became of one rule whose name begins with test_.
type TestResult struct {
	Name string
	// Err is nil if it holds.
	Err error
}

var errNotHeld = errors.New("it does not hold")

// Test runs the tests in files, which are texts by name, as opa test does, but with
// the builtins that policies have here, and with their input's schema. A test fails as
// well if a policy says something that the proxy would refuse.
func Test(ctx context.Context, files map[string]string) ([]TestResult, error) {
	options := ast.ParserOptions{Capabilities: capabilities(), ProcessAnnotation: true, RegoVersion: ast.RegoV1}
	modules := map[string]*ast.Module{}
	for name, text := range files {
		m, err := ast.ParseModuleWithOpts(name, text, options)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, located(err))
		}
		modules[name] = m
	}
	compiler := ast.NewCompiler().WithCapabilities(options.Capabilities).WithStrict(true).
		WithDefaultRegoVersion(ast.RegoV1).WithSchemas(schemas()).WithUseTypeCheckAnnotations(true)
	heard := &listener{refused: map[string]error{}}
	results, err := tester.NewRunner().SetParallel(1).SetCoverageQueryTracer(heard).SetCompiler(compiler).RaiseBuiltinErrors(true).SetDefaultRegoVersion(ast.RegoV1).SetModules(modules).RunTests(ctx, nil)
	if err != nil {
		return nil, located(err)
	}
	var all []TestResult
	for r := range results {
		all = append(all, TestResult{Name: testName(r.Package, r.Name), Err: outcome(r)})
	}
	for i := range all {
		if err := heard.refused[all[i].Name]; err != nil {
			all[i].Err = err
		}
	}
	slices.SortFunc(all, func(a, b TestResult) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

func outcome(r *tester.Result) error {
	switch {
	case r.Error != nil:
		return r.Error
	case r.Fail:
		return errNotHeld
	}
	return nil
}
