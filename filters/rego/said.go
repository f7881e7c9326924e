package rego

import (
	"fmt"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"
)

// A listener hears what policies say while their tests run, one after another, and
// notes which of them made one say what the proxy would refuse.
type listener struct {
	test    string
	refused map[string]error // by test
}

// Enabled, Config and TraceEvent are those of topdown.QueryTracer.
func (l *listener) Enabled() bool { return true }

// Config asks for nothing but events.
func (l *listener) Config() topdown.TraceConfig { return topdown.TraceConfig{} }

// TraceEvent hears one event.
func (l *listener) TraceEvent(e topdown.Event) {
	rule, ok := e.Node.(*ast.Rule)
	if !ok || rule.Module == nil {
		return
	}
	switch name := string(rule.Head.Name); {
	case e.Op == topdown.EnterOp && strings.HasPrefix(name, "test_"):
		l.test = testName(rule.Module.Package.Path.String(), name)
	case e.Op == topdown.ExitOp && isSet(rule):
		key, err := ast.JSON(e.Plug(rule.Head.Key).Value)
		if err != nil {
			return // it is not known yet
		}
		if _, err := read("", map[string]any{name: []any{key}}); err != nil && l.refused[l.test] == nil {
			l.refused[l.test] = fmt.Errorf("%s, %sthe proxy would refuse what %s contains: %w", rule.Location.File, place(&ast.Location{Row: rule.Location.Row, Col: rule.Location.Col}), name, err)
		}
	}
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
