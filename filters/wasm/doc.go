// Package wasm runs WebAssembly filters on requests, as FilterBindings say.
package wasm
