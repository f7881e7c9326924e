package guest

// marker says that the module is a guest of portico.v1.
//
//go:wasmexport portico_abi_v1
func marker() {}
