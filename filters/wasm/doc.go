// Package wasm runs WebAssembly filters on requests, as FilterBindings say.
package wasm

import "errors"

var (
	errAnswer        = errors.New("the guest returned what portico.v1 does not know")
	errBusy          = errors.New("all instances of the guest are busy")
	errFailed        = errors.New("the guest trapped")
	errTimeout       = errors.New("the guest took too long")
	errNoMarker      = errors.New("the module is no portico.v1 guest: it exports no portico_abi_v1 and memory")
	errNothingToCall = errors.New("it exports none of on_request, on_object and on_end, so nobody would call it")
	errClosed        = errors.New("the module is closed")
	errExited        = errors.New("the guest ends as soon as it has begun, so nobody could call it: build it as a library, not as a command")
	errMissing       = errors.New("there is no WasmFilter of that name")
	errImpure        = errors.New("a module that has capabilities cannot say what is seen: that must depend on the object and the caller alone")
	errTried         = errors.New("a policy looks at what a patch makes, and the API server did not say")
	errHandled       = errors.New("the guest returned what http_handler does not know, or both answered the request and handed it on")
	errForged        = errors.New("the guest answered what only the API server may: it can answer an error alone")
	errKind          = errors.New("there is no such header or body")
	errNoHandler     = errors.New("the module is no http_handler guest: it exports no handle_request, handle_response and memory")
	errLargeAnswer   = errors.New("the answer is larger than 3 MiB: ask for pages, by limit")
	errNoObjects     = errors.New("a module of HTTPWasmV1 cannot say what is seen: it knows no objects")
)
