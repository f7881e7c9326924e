package rego

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	opa "github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"

	"github.com/portico-proxy/portico/core/attention"
	"github.com/portico-proxy/portico/core/limit"
)

// The sets that a policy may have.
const (
	denySet      = "deny"
	warnSet      = "warn"
	limitsSet    = "limits"
	selectorsSet = "selectors"
)

// defaultDeadline bounds one evaluation. It takes microseconds; this is for
// policies that never end, and not for machines that are busy.
const defaultDeadline = 100 * time.Millisecond

// maxCompileErrors is how many mistakes an author is told of at once.
const maxCompileErrors = 5

var (
	errDeadline = errors.New("the evaluation took longer than its deadline")
	errNoBundle = errors.New("it is a bundle, which is not at hand")

	errNoSelectors = errors.New("the policy has no selectors")
)

// Source is what a policy is made of.
type Source struct {
	Name string
	// Rego is one module. Without one there is a bundle.
	Rego   string
	Bundle *Bundle
	// Settings are what it reads as data.settings, and SettingsIn is where they
	// stand, for whoever looks for one that is missing; empty is spec.settings.
	Settings   any
	SettingsIn string
	// Deadline bounds one evaluation; 0 means 100ms.
	Deadline time.Duration
}

// A Policy is a module that is ready to be asked.
type Policy struct {
	name      string
	settings  string // where they stand
	deadline  time.Duration
	compiler  *ast.Compiler
	pkg       ast.Ref
	revision  string    // of the bundle, as whoever built it calls it
	decision  *question // of deny and warn; nil if it has neither
	limits    *question // nil if it has none
	selectors *question // nil if it has none
	faults    faults
	chosen    choices
}

// A question is some of a policy's sets, and what they depend on.
type question struct {
	query opa.PreparedEvalQuery
	input *inputPlan
	cache answers
}

// Compile reads a policy. Its errors name the line and the column.
func Compile(s Source) (*Policy, error) {
	if s.Rego == "" && s.Bundle == nil {
		return nil, errNoBundle
	}
	from := cmp.Or(s.Bundle, &Bundle{modules: map[string]string{s.Name: s.Rego}})
	modules, err := parse(from.modules)
	if err != nil {
		return nil, err
	}
	pkg, err := packageOf(modules, from.pkg)
	if err != nil {
		return nil, err
	}
	data := map[string]any{"settings": map[string]any{}}
	maps.Copy(data, from.data)
	if s.Settings != nil {
		data["settings"] = s.Settings
	}
	compiler := ast.NewCompiler().WithCapabilities(capabilities()).WithStrict(true).WithPathConflictsCheck(taken(data)).
		WithDefaultRegoVersion(ast.RegoV1).WithSchemas(schemas()).WithUseTypeCheckAnnotations(true)
	if compiler.Compile(modules); compiler.Failed() {
		return nil, located(compiler.Errors)
	}
	p := &Policy{name: s.Name, settings: cmp.Or(s.SettingsIn, "spec.settings"), deadline: s.Deadline, compiler: compiler, pkg: pkg, revision: from.revision}
	if p.deadline <= 0 {
		p.deadline = defaultDeadline
	}
	return p, p.prepare(data)
}

// parse reads modules, which are texts by name.
func parse(texts map[string]string) (map[string]*ast.Module, error) {
	options := ast.ParserOptions{Capabilities: capabilities(), ProcessAnnotation: true, RegoVersion: ast.RegoV1}
	modules := map[string]*ast.Module{}
	for _, name := range slices.Sorted(maps.Keys(texts)) {
		m, err := ast.ParseModuleWithOpts(name, texts[name], options)
		if err != nil {
			return nil, located(err)
		}
		modules[name] = m
	}
	return modules, nil
}

// packageOf is the package that is asked for: the one of that name, or the only one.
func packageOf(modules map[string]*ast.Module, name string) (ast.Ref, error) {
	packages := map[string]ast.Ref{}
	for _, m := range modules {
		packages[strings.TrimPrefix(m.Package.Path.String(), "data.")] = m.Package.Path
	}
	if pkg := packages[name]; pkg != nil {
		return pkg, nil
	}
	names := slices.Sorted(maps.Keys(packages))
	if name == "" && len(names) == 1 {
		return packages[names[0]], nil
	}
	return nil, fmt.Errorf("package must be one of those of the bundle: %s", strings.Join(names, ", "))
}

// taken reports whether there is data where a rule would be: it would hide the
// rule, or the rule would hide it.
func taken(data map[string]any) func(path []string) (bool, error) {
	return func(path []string) (bool, error) {
		return has(data, path), nil
	}
}

// has reports whether there is something at a path in data that is not null.
func has(data any, path []string) bool {
	for _, part := range path {
		inside, ok := data.(map[string]any)
		if !ok || inside[part] == nil {
			return false
		}
		data = inside[part]
	}
	return true
}

// capabilities are those of OPA without what may answer differently to the same
// question: two requests that look alike must be decided alike.
func capabilities() *ast.Capabilities {
	c := ast.CapabilitiesForThisVersion()
	c.Builtins = slices.DeleteFunc(c.Builtins, func(b *ast.Builtin) bool { return b.Nondeterministic })
	c.AllowNet = []string{}
	return c
}

// schemas make a misspelt field an error, where Rego would take it for a
// condition that is never met.
func schemas() *ast.SchemaSet {
	set, schema := ast.NewSchemaSet(), any(Schema())
	set.Put(ast.SchemaRootRef, schema)
	set.Put(ast.MustParseRef("schema.request"), schema)
	set.Put(ast.MustParseRef("schema.view.caller"), any(CallerSchema()))
	return set
}

// located is err in the words of whoever wrote the policy.
func located(err error) error {
	var all ast.Errors
	if !errors.As(err, &all) {
		return err
	}
	slices.SortStableFunc(all, func(a, b *ast.Error) int { return a.Location.Compare(b.Location) })
	texts := make([]string, 0, maxCompileErrors)
	for _, e := range all[:min(len(all), maxCompileErrors)] {
		texts = append(texts, place(e.Location)+strings.Join(strings.Fields(e.Message+" "+details(e)), " "))
	}
	return errors.New(strings.Join(texts, "; "))
}

func details(e *ast.Error) string {
	if e.Details == nil {
		return ""
	}
	lines := e.Details.Lines()
	if len(lines) > 0 && strings.Contains(e.Message, lines[0]) {
		lines = lines[1:]
	}
	return strings.Join(lines, " ")
}

// place says where it is in a policy: in which file, if it has several.
func place(l *ast.Location) string {
	if l == nil {
		return ""
	}
	file := ""
	if strings.HasSuffix(l.File, ".rego") {
		file = l.File + ", "
	}
	return fmt.Sprintf("%sline %d, column %d: ", file, l.Row, l.Col)
}

// path is the package's, as OPA writes it in URLs.
func (p *Policy) path() string {
	path, _ := p.pkg.Ptr() // it is a package's: all its parts are constant
	return path
}

func (p *Policy) prepare(data map[string]any) (err error) {
	store := inmem.NewFromObjectWithOpts(data, inmem.OptReturnASTValuesOnRead(true))
	for _, one := range []struct {
		of   **question
		sets []string
	}{{&p.decision, []string{denySet, warnSet}}, {&p.limits, []string{limitsSet}}, {&p.selectors, []string{selectorsSet}}} {
		if *one.of, err = p.ask(store, data, one.sets...); err != nil {
			return err
		}
	}
	if p.decision == nil && p.limits == nil && p.selectors == nil {
		return fmt.Errorf("%s has none of the sets deny, warn, limits and selectors", p.pkg)
	}
	return nil
}

// ask prepares a question for those of the sets that the policy has.
func (p *Policy) ask(store storage.Store, data map[string]any, sets ...string) (*question, error) {
	var rules []*ast.Rule
	var parts []string
	for _, set := range sets {
		ref := p.pkg.Append(ast.StringTerm(set))
		of := p.compiler.GetRulesExact(ref)
		for _, r := range of {
			if r.Head.RuleKind() != ast.MultiValue {
				return nil, fmt.Errorf("%s%s must be a set: write %q", place(r.Location), set, set+" contains … if { … }")
			}
		}
		if len(of) > 0 {
			parts = append(parts, fmt.Sprintf("%q: %s", set, ref))
			rules = append(rules, of...)
		}
	}
	if len(rules) == 0 {
		return nil, nil
	}
	refs, err := p.dependencies(rules, data)
	if err != nil {
		return nil, err
	}
	inputs, err := pathsOf(refs, slices.Contains(sets, selectorsSet))
	if err != nil {
		return nil, err
	}
	query, err := opa.New(
		opa.Query("answer = {"+strings.Join(parts, ", ")+"}"), opa.Compiler(p.compiler), opa.Store(store), opa.StrictBuiltinErrors(true),
	).PrepareForEval(context.Background()) //nolint:forbidigo // nothing is waited for
	if err != nil {
		return nil, fmt.Errorf("prepare %s: %w", p.pkg, err)
	}
	return &question{query: query, input: planInput(inputs)}, nil
}

// dependencies are what rules, and all that they lead to, read of input. What they
// read of data must be there.
func (p *Policy) dependencies(rules []*ast.Rule, data map[string]any) (inputs []ast.Ref, err error) {
	seen := map[*ast.Rule]bool{}
	for len(rules) > 0 {
		r := rules[0]
		rules = rules[1:]
		if seen[r] {
			continue
		}
		seen[r] = true
		for other := range p.compiler.Graph.Dependencies(r) {
			rules = append(rules, other.(*ast.Rule))
		}
		ast.WalkRefs(r, func(ref ast.Ref) bool {
			switch head := ref[0]; {
			case head.Equal(ast.InputRootDocument):
				inputs = append(inputs, ref)
			case head.Equal(ast.DefaultRootDocument) && err == nil:
				err = p.checkData(ref, data)
			}
			return false
		})
	}
	return inputs, err
}

// constants are the parts of a ref after its head, up to the first that is not
// constant.
func constants(ref ast.Ref) (parts []string) {
	for _, term := range ref.ConstantPrefix()[1:] {
		s, ok := term.Value.(ast.String)
		if !ok {
			break
		}
		parts = append(parts, string(s))
	}
	return parts
}

// checkData refuses what nothing stands behind: a limit that compares with it
// would be none.
func (p *Policy) checkData(ref ast.Ref, data map[string]any) error {
	constant := ref.ConstantPrefix()
	if len(p.compiler.GetRules(constant)) > 0 {
		return nil
	}
	path := constants(constant)
	if len(path) > 0 && has(data, path) {
		return nil
	}
	if len(path) > 1 && path[0] == "settings" {
		return fmt.Errorf("%s%s has no %s", place(ref[0].Location), p.settings, strings.Join(path[1:], "."))
	}
	return fmt.Errorf("%sthere is no %s: a policy has its own package, data.settings, and what its bundle has", place(ref[0].Location), constant)
}

// pathsOf are the fields that refs to input read: those of the caller, if no others
// may be read.
func pathsOf(refs []ast.Ref, ofCaller bool) (paths []string, err error) {
	for _, ref := range refs {
		path := constants(ref)
		if ofCaller && !isOfCaller(path) {
			return nil, fmt.Errorf("%sselectors may not depend on %s, but on input.%s only: what exists for a caller must be the same in all that he asks for",
				place(ref[0].Location), ref.ConstantPrefix(), strings.Join(callerFields, ", input."))
		}
		paths = append(paths, strings.Join(path, "."))
	}
	return paths, nil
}

// Answer is what a policy says of a request.
type Answer struct {
	Deny, Warn []string
	Limits     []limit.Limit
	Selectors  []Selector
	Worlds     []World // what exists by all of Selectors
}

// Decide asks for deny and warn.
func (p *Policy) Decide(ctx context.Context, facts *Facts) (Answer, error) {
	return p.answer(ctx, p.decision, facts)
}

// Selectors asks what exists for the caller.
func (p *Policy) Selectors(ctx context.Context, facts *Facts) (Answer, error) {
	if p.selectors == nil {
		return Answer{}, errNoSelectors
	}
	return p.answer(ctx, p.selectors, facts)
}

// Limits asks for limits.
func (p *Policy) Limits(ctx context.Context, facts *Facts) (Answer, error) {
	return p.answer(ctx, p.limits, facts)
}

func (p *Policy) answer(ctx context.Context, q *question, facts *Facts) (Answer, error) {
	if q == nil {
		return Answer{}, nil
	}
	var space [256]byte
	key := q.input.key(space[:0], facts)
	if a, ok := q.cache.get(key); ok {
		return a, nil
	}
	a, err := p.evaluate(ctx, q, q.input.value(facts))
	p.chosen.add(a.Selectors)
	if err == nil && len(key) <= maxKey {
		q.cache.put(string(key), a)
	}
	return a, err
}

// maxKey is how long what a request is decided by may be to be remembered, in
// bytes.
const maxKey = 4 << 10

func (p *Policy) evaluate(ctx context.Context, q *question, input ast.Value) (Answer, error) {
	within, cancel := context.WithTimeout(ctx, p.deadline)
	defer cancel()
	attention.Pay() // to the deadline
	results, err := q.query.Eval(within, opa.EvalParsedInput(input), opa.EvalSortSets(true))
	switch {
	case err != nil && within.Err() != nil && ctx.Err() == nil:
		return Answer{}, errDeadline
	case err != nil:
		return Answer{}, fmt.Errorf("evaluate: %w", err)
	case len(results) != 1:
		return Answer{}, fmt.Errorf("evaluate: %d results", len(results))
	}
	sets, _ := results[0].Bindings["answer"].(map[string]any)
	return read(p.name, sets)
}

// read takes a policy at its word, or not at all: what is no limit is an error.
func read(policy string, sets map[string]any) (a Answer, err error) {
	for name, set := range sets {
		if name == selectorsSet {
			if a.Selectors, a.Worlds, err = readSelectors(set.([]any)); err != nil {
				return Answer{}, err
			}
			continue
		}
		for _, element := range set.([]any) {
			if name == limitsSet {
				l, err := limit.Decode(element)
				if err != nil {
					return Answer{}, err
				}
				l.Policy = policy
				a.Limits = append(a.Limits, l)
				continue
			}
			text, ok := element.(string)
			if !ok || text == "" {
				return Answer{}, fmt.Errorf("%s contains %v: it must contain texts that say why", name, element)
			}
			if name == denySet {
				a.Deny = append(a.Deny, text)
			} else {
				a.Warn = append(a.Warn, text)
			}
		}
	}
	return a, nil
}
