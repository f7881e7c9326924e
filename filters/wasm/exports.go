package wasm

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/agnivade/levenshtein"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
	"github.com/portico-proxy/portico/filters/wasm/meter"
	"github.com/portico-proxy/portico/plugins/abi"
)

// A signature is what a function takes and returns.
type signature struct{ params, results []api.ValueType }

var (
	bare   = signature{}
	status = signature{nil, []api.ValueType{i32}}
)

// exported are the functions that guests may have, by name.
var exported = map[string]signature{
	abi.ExportMarker: bare, abi.ExportInitialize: bare,
	abi.ExportConfigure: status, abi.ExportOnRequest: status, abi.ExportOnObject: status, abi.ExportOnEnd: bare,
}

// String writes it as WebAssembly's specification does.
func (s signature) String() string {
	return "(" + names(s.params) + ") -> (" + names(s.results) + ")"
}

func names(all []api.ValueType) string {
	texts := make([]string, len(all))
	for i, t := range all {
		texts[i] = api.ValueTypeName(t)
	}
	return strings.Join(texts, ", ")
}

func (s signature) equal(o signature) bool {
	return slices.Equal(s.params, o.params) && slices.Equal(s.results, o.results)
}

// check compares a function of a guest with what is called under its name.
func (s signature) check(contract, name string, f api.FunctionDefinition) error {
	is := signature{f.ParamTypes(), f.ResultTypes()}
	if is.equal(s) {
		return nil
	}
	return fmt.Errorf("export %s is a function %v, and %s calls it as %v: mend what it takes and returns", name, is, contract, s)
}

// exports looks at what the module offers.
func (m *Module) exports() error {
	if m.spec.class().handler {
		return m.handles()
	}
	functions := m.compiled.ExportedFunctions()
	if functions[abi.ExportMarker] == nil || m.compiled.ExportedMemories()[abi.ExportMemory] == nil {
		return errNoMarker
	}
	for _, name := range slices.Sorted(maps.Keys(functions)) {
		want, known := exported[name]
		if !known {
			if err := misspelt(name); err != nil {
				return err
			}
			continue
		}
		if err := want.check(abi.Module, name, functions[name]); err != nil {
			return err
		}
	}
	m.onRequest, m.onObject, m.onEnd = functions[abi.ExportOnRequest] != nil, functions[abi.ExportOnObject] != nil, functions[abi.ExportOnEnd] != nil
	if !m.onRequest && !m.onObject && !m.onEnd {
		return errNothingToCall
	}
	return nil
}

// misspelt is an error if an export looks as if it were to be called, and never
// would be: a filter that does nothing looks like one that finds nothing wrong.
func misspelt(name string) error {
	called := slices.DeleteFunc(slices.Collect(maps.Keys(exported)), func(n string) bool { return n == abi.ExportMarker })
	near, changes := nearest(name, called)
	if !strings.HasPrefix(spelling(name), "on_") && !isNear(near, changes) {
		return nil // some function of the guest's own
	}
	return fmt.Errorf("it exports %s, which %s does not have, so nobody would call it: did you mean %s?", name, abi.Module, near)
}

// spelling is equal for names that differ in how their words are told apart.
func spelling(name string) string {
	var b strings.Builder
	for i, r := range name {
		switch {
		case r >= 'A' && r <= 'Z':
			if i > 0 && !strings.HasSuffix(b.String(), "_") {
				b.WriteByte('_')
			}
			b.WriteRune(r + 'a' - 'A')
		case r == '-':
			b.WriteByte('_')
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// nearest is the name that takes the fewest changes to make of another, and how
// many these are.
func nearest(name string, of []string) (near string, changes int) {
	name = spelling(name)
	near = slices.MinFunc(of, func(a, b string) int {
		return cmp.Or(cmp.Compare(levenshtein.ComputeDistance(name, a), levenshtein.ComputeDistance(name, b)), cmp.Compare(a, b))
	})
	return near, levenshtein.ComputeDistance(name, near)
}

// isNear reports whether so many changes may be a slip of the pen.
func isNear(name string, changes int) bool { return changes*4 <= len(name) }

// Check says what is wrong with what a module imports and exports, for whoever has
// just built it, and whether it can be metered: what it would have to be granted, it is.
// Nothing of it runs.
func Check(ctx context.Context, code []byte) error {
	r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter())
	defer func() { _ = r.Close(ctx) }() // it has no instances
	if _, err := wasi_snapshot_preview1.Instantiate(ctx, r); err != nil {
		return fmt.Errorf("provide WASI: %w", err)
	}
	metered, err := meter.Rewrite(code)
	if err != nil {
		return err
	}
	compiled, err := r.CompileModule(ctx, metered)
	if err != nil {
		return fmt.Errorf("read the module: %w", err)
	}
	m := &Module{runtime: r, compiled: compiled, spec: Spec{Capabilities: slices.Collect(maps.Values(needed))}}
	if compiled.ExportedFunctions()[exportHandleRequest] != nil {
		m.spec.ABI = v1alpha1.WasmHTTPWasmV1
	}
	if err := m.imports(); err != nil {
		return err
	}
	return m.exports()
}
