package wasm

import (
	"fmt"
	"maps"
	"slices"

	"github.com/portico-proxy/portico/plugins/abi"
)

// needed are the capabilities without which a function is not there.
var needed = map[string]abi.Capability{abi.KVGet: abi.CapabilityKV, abi.KVAdd: abi.CapabilityKV, abi.Lookup: abi.CapabilityLookup, abi.NowMillis: abi.CapabilityClock}

// imports is an error if the module imports what there is not, or what it was not
// granted.
func (m *Module) imports() error {
	if m.spec.class().handler {
		return nil // wazero says what is missing
	}
	offered := map[string]signature{}
	for _, f := range hostFunctions(class{kv: true, clock: true, lookup: true}) {
		offered[f.name] = signature{f.params, f.result}
	}
	for _, f := range m.compiled.ImportedFunctions() {
		from, name, _ := f.Import()
		if from != abi.Module {
			continue
		}
		if err := m.offered(offered, name, signature{f.ParamTypes(), f.ResultTypes()}); err != nil {
			return err
		}
	}
	return nil
}

// offered is an error if a guest cannot import a function of ours so.
func (m *Module) offered(all map[string]signature, name string, as signature) error {
	is, known := all[name]
	switch c, gated := needed[name]; {
	case !known:
		near, changes := nearest(name, slices.Collect(maps.Keys(all)))
		hint := ""
		if isNear(near, changes) {
			hint = ": did you mean " + near + "?"
		}
		return fmt.Errorf("it imports %s, which %s does not have%s", name, abi.Module, hint)
	case gated && !slices.Contains(m.spec.Capabilities, c):
		return fmt.Errorf("it imports %s, which it has not been granted: add %q to spec.capabilities", name, c)
	case !is.equal(as):
		return fmt.Errorf("it imports %s as %v, and in %s that is %v", name, as, abi.Module, is)
	}
	return nil
}
