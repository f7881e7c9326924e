package wasm

import (
	"fmt"
	"slices"

	"github.com/portico-proxy/portico/plugins/abi"
)

// needed are the capabilities without which a function is not there.
var needed = map[string]abi.Capability{abi.KVGet: abi.CapabilityKV, abi.KVAdd: abi.CapabilityKV, abi.Lookup: abi.CapabilityLookup, abi.NowMillis: abi.CapabilityClock}

// ungranted is an error if the module imports what it was not granted.
func (m *Module) ungranted() error {
	for _, f := range m.compiled.ImportedFunctions() {
		from, name, _ := f.Import()
		if c, ok := needed[name]; ok && from == abi.Module && !slices.Contains(m.spec.Capabilities, c) {
			return fmt.Errorf("it imports %s, which it has not been granted: add %q to spec.capabilities", name, c)
		}
	}
	return nil
}
