// Package wasm runs WebAssembly filters on requests, as FilterBindings say.
package wasm

import "errors"

var (
	errAnswer   = errors.New("the guest returned what portico.v1 does not know")
	errBusy     = errors.New("all instances of the guest are busy")
	errFailed   = errors.New("the guest trapped")
	errTimeout  = errors.New("the guest took too long")
	errNoMarker = errors.New("the module is no portico.v1 guest: it exports no portico_abi_v1 and memory")
	errClosed   = errors.New("the module is closed")
	errMissing  = errors.New("there is no WasmFilter of that name")
	errImpure   = errors.New("a module that has capabilities cannot say what is seen: that must depend on the object and the caller alone")
	errTried    = errors.New("a policy looks at what a patch makes, and the API server did not say")
)
