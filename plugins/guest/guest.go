// Package guest is what the author of a WebAssembly filter in Go imports.
//
// A filter is a package main with an empty main function. Each of its functions
// that is exported to WebAssembly under a name of portico.v1 is called:
//
//	//go:wasmexport configure
//	func configure() int32 { return guest.Configure(func() error { ... }) }
//
//	//go:wasmexport on_request
//	func onRequest() int32 { return guest.OnRequest(func(r guest.Request) guest.Decision { ... }) }
//
//	//go:wasmexport on_object
//	func onObject() int32 { return guest.OnObject(func(r guest.Request, o guest.Object) guest.Decision { ... }) }
//
//	//go:wasmexport on_end
//	func onEnd() { guest.OnEnd(func(r guest.Request, e guest.End) { ... }) }
//
// It is built by
//
//	GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -ldflags='-s -w' -o filter.wasm .
//
// and tested without WebAssembly, see guesttest. Nothing of one call may be
// expected in the next: there are several instances, and any may be thrown away.
// Leave encoding/json and the Kubernetes packages out: ask the host for single
// fields instead, which is a hundred times faster.
package guest

import (
	"github.com/portico-proxy/portico/plugins/abi"
	"github.com/portico-proxy/portico/plugins/guest/internal/host"
)

// A Decision is what a filter says of a request or an object.
type Decision int32

// Decisions about a request. A denial is made by [Deny] or [Refuse].
const (
	// Continue lets a request pass.
	Continue = Decision(abi.Continue)
	// Keep leaves an object as it is, or as it was changed.
	Keep = Decision(abi.Keep)
	// Drop hides an object of an answer: it does not exist for the caller. Of a
	// request it refuses the object.
	Drop = Decision(abi.Drop)
)

// deny is both what on_request and what on_object return to refuse.
const deny = Decision(abi.Deny)

// Deny refuses with 403 and a message of at most 1024 bytes.
func Deny(message string) Decision {
	return Refuse(Refusal{Code: 403, Reason: "Forbidden", Message: message})
}

// A Refusal is what the caller is told.
type Refusal struct {
	// Code is HTTP's, from 400 to 599, and Reason one of Kubernetes' words for
	// it (Forbidden, TooManyRequests), of at most 64 bytes.
	Code    int
	Reason  string
	Message string // at most 1024 bytes
	// RetryAfter is after how many seconds clients may try again; 0 says nothing.
	RetryAfter int
}

// Refuse refuses in other words than [Deny].
func Refuse(r Refusal) Decision {
	host.Respond(int32(r.Code), r.Reason, r.Message, int32(r.RetryAfter))
	return deny
}

// Warn tells the caller something, of at most 256 bytes; kubectl shows it.
func Warn(text string) { host.Warn(text) }

// Log writes a line to the proxy's log.
func Log(text string) { host.Log(abi.LevelInfo, text) }

// Debug writes a line that is wanted only by who looks for something.
func Debug(text string) {
	if host.LogEnabled(abi.LevelDebug) {
		host.Log(abi.LevelDebug, text)
	}
}

// Configure is what the export configure returns. An error refuses the filter;
// its text is in the WasmFilter's status.
func Configure(f func() error) int32 {
	if err := f(); err != nil {
		host.Fail(err.Error())
		return 1
	}
	return 0
}

// OnRequest is what the export on_request returns.
func OnRequest(f func(Request) Decision) int32 { return int32(f(Request{})) }

// OnObject is what the export on_object returns. An object that was changed and
// is kept goes on as it was changed.
func OnObject(f func(Request, Object) Decision) int32 {
	changed = false
	d := f(Request{}, Object{})
	if d == Keep && changed {
		return abi.Patched
	}
	return int32(d)
}

// OnEnd is what the export on_end does.
func OnEnd(f func(Request, End)) {
	f(Request{}, End{
		Code: int(host.End(abi.EndCode)), Bytes: host.End(abi.EndBytes), Micros: host.End(abi.EndMicros),
	})
}

// End is how a request was answered.
type End struct {
	Code   int   // HTTP
	Bytes  int64 // of the answer's body
	Micros int64 // from the request's arrival to the answer's end
}

// Config is a string of the configuration at a JSON pointer ("/label"), or "".
func Config(pointer string) string { return text(host.Config(pointer)) }

// ConfigValue is any value of the configuration at a JSON pointer: strings as
// they are, everything else as JSON. It reports false if there is none.
func ConfigValue(pointer string) (string, bool) { return value(host.Config(pointer)) }

// Count adds to a counter that all instances share and a restart forgets, and
// returns its new value. It begins anew after ttlMillis. It needs the capability
// kv.
func Count(key string, delta, ttlMillis int64) int64 { return host.Count(key, delta, ttlMillis) }

// Counted is a counter's value. It needs the capability kv.
func Counted(key string) int64 { return host.Counted(key) }

// NowMillis is the time in milliseconds since 1970. It needs the capability
// clock.
func NowMillis() int64 { return host.Now() }

func text(kind abi.Kind, s string) string {
	if kind != abi.String {
		return ""
	}
	return s
}

func value(kind abi.Kind, s string) (string, bool) {
	return s, kind != abi.Absent && kind != abi.Null
}
