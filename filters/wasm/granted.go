package wasm

import (
	"fmt"
	"maps"
	"slices"

	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/portico-proxy/portico/filters/wasm/meter"
	"github.com/portico-proxy/portico/plugins/abi"
)

// needed are the capabilities without which a function is not there.
var needed = map[string]abi.Capability{abi.KVGet: abi.CapabilityKV, abi.KVAdd: abi.CapabilityKV, abi.Lookup: abi.CapabilityLookup, abi.NowMillis: abi.CapabilityClock}

// imports is an error if the module imports what there is not, or what it was not
// granted.
func (m *Module) imports() error {
	if memories := m.compiled.ImportedMemories(); len(memories) > 0 {
		from, name, _ := memories[0].Import()
		return fmt.Errorf("it imports its memory as %s from %s: have it export one of its own instead, as %s", name, from, abi.ExportMemory)
	}
	ours, functions := abi.Module, hostFunctions(class{kv: true, clock: true, lookup: true})
	if m.spec.class().handler {
		ours, functions = handlerModule, handlerFunctions()
	}
	offered := map[string]signature{}
	for _, f := range functions {
		offered[f.name] = signature{f.params, f.result}
	}
	wasi := map[string]signature{}
	for name, f := range m.runtime.Module(wasi_snapshot_preview1.ModuleName).ExportedFunctionDefinitions() {
		wasi[name] = signature{f.ParamTypes(), f.ResultTypes()}
	}
	for _, f := range m.compiled.ImportedFunctions() {
		from, name, _ := f.Import()
		all := offered
		switch from {
		case meter.Module: // by whoever metered it
			continue
		case wasi_snapshot_preview1.ModuleName:
			all = wasi
		case ours:
		default:
			return fmt.Errorf("it imports %s from %s, and there is nothing but %s and %s to import from", name, from, ours, wasi_snapshot_preview1.ModuleName)
		}
		if err := m.offered(from, all, name, signature{f.ParamTypes(), f.ResultTypes()}); err != nil {
			return err
		}
	}
	return nil
}

// offered is an error if a guest cannot import a function of all that there are so.
func (m *Module) offered(from string, all map[string]signature, name string, as signature) error {
	is, known := all[name]
	switch c, gated := needed[name]; {
	case !known:
		near, changes := nearest(name, slices.Collect(maps.Keys(all)))
		hint := ""
		if isNear(near, changes) {
			hint = ": did you mean " + near + "?"
		}
		return fmt.Errorf("it imports %s, which %s does not have%s", name, from, hint)
	case gated && from == abi.Module && !slices.Contains(m.spec.Capabilities, c):
		return fmt.Errorf("it imports %s, which it has not been granted: add %q to spec.capabilities", name, c)
	case !is.equal(as):
		return fmt.Errorf("it imports %s as %v, and in %s that is %v", name, as, from, is)
	}
	return nil
}
