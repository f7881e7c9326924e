package rego

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"
)

// A listener hears what policies are asked and say while their tests run, one after
// another, and notes which of them ask what nobody would, or made one say what the
// proxy would refuse.
type listener struct {
	test    string
	rule    *ast.Rule        // the test's
	input   *ast.Term        // the last that was looked at
	refused map[string]error // by test
}

// Enabled, Config and TraceEvent are those of topdown.QueryTracer.
func (l *listener) Enabled() bool { return true }

// Config asks for nothing but events.
func (l *listener) Config() topdown.TraceConfig { return topdown.TraceConfig{} }

// TraceEvent hears one event.
func (l *listener) TraceEvent(e topdown.Event) {
	l.asked(e.Input())
	rule, ok := e.Node.(*ast.Rule)
	if !ok || rule.Module == nil {
		return
	}
	switch name := string(rule.Head.Name); {
	case e.Op == topdown.EnterOp && strings.HasPrefix(name, "test_"):
		l.test, l.rule = testName(rule.Module.Package.Path.String(), name), rule
	case e.Op == topdown.ExitOp && isSet(rule):
		key, err := ast.JSON(e.Plug(rule.Head.Key).Value)
		if err != nil {
			return // it is not known yet
		}
		if _, err := read("", map[string]any{name: []any{key}}); err != nil && l.refused[l.test] == nil {
			l.refused[l.test] = fmt.Errorf("%sthe proxy would refuse what %s contains: %w", whole(rule.Location), name, err)
		}
	}
}

// asked looks at an input that a test has policies look at.
func (l *listener) asked(input *ast.Term) {
	if input == nil || input == l.input || l.rule == nil {
		return
	}
	l.input = input
	v, err := ast.JSON(input.Value)
	if err != nil || l.refused[l.test] != nil {
		return
	}
	object, isObject := v.(map[string]any)
	if !isObject {
		l.refused[l.test] = fmt.Errorf("%sinput is no object", whole(l.rule.Location))
		return
	}
	if err := checkInput(object); err != nil {
		l.refused[l.test] = fmt.Errorf("%s%w", whole(l.written(err)), err)
	}
}

// written is where the field that an error is about is written: in the test, or in
// what it shares with others. Where that cannot be told, it is the test itself.
func (l *listener) written(err error) (at *ast.Location) {
	var wrong *InputError
	if !errors.As(err, &wrong) {
		return l.rule.Location
	}
	name := ast.String(wrong.Path[len(wrong.Path)-1])
	look := func(t *ast.Term) bool {
		object, ok := t.Value.(ast.Object)
		if !ok || at != nil {
			return at != nil
		}
		object.Foreach(func(key, _ *ast.Term) {
			if at == nil && key.Value.Compare(name) == 0 {
				at = key.Location
			}
		})
		return false
	}
	ast.WalkTerms(l.rule, look)
	if at == nil {
		ast.WalkTerms(l.rule.Module, look)
	}
	return cmp.Or(at, l.rule.Location)
}

// whole is a place with its file.
func whole(l *ast.Location) string {
	return fmt.Sprintf("%s, %s", l.File, place(&ast.Location{Row: l.Row, Col: l.Col}))
}

// isSet reports whether a rule adds to a set that the proxy asks for.
func isSet(rule *ast.Rule) bool {
	pkg := rule.Module.Package.Path
	last, _ := pkg[len(pkg)-1].Value.(ast.String)
	return rule.Head.RuleKind() == ast.MultiValue && rule.Head.Key != nil && len(rule.Head.Ref()) == 1 &&
		slices.Contains([]string{denySet, warnSet, limitsSet, selectorsSet}, string(rule.Head.Name)) && !strings.HasSuffix(string(last), "_test")
}

func testName(pkg, name string) string { return strings.TrimPrefix(pkg, "data.") + "." + name }

var _ topdown.QueryTracer = (*listener)(nil)
