//go:build !wasip1

package host

import "github.com/portico-proxy/portico/plugins/abi"

// Current is the host of a test, see guesttest.
var Current Host

// Host is what a test plays.
type Host interface {
	Config(pointer string) (abi.Kind, string)
	Attr(id abi.Attr) (abi.Kind, string)
	Header(name string) (abi.Kind, string)
	Param(name string) (abi.Kind, string)
	Object(pointer string) (abi.Kind, string)
	Set(pointer, value string) int32
	Remove(pointer string) int32
	Event() abi.Event
	Respond(code int32, reason, message string, retryAfter int32)
	Warn(text string)
	Fail(text string)
	Log(level uint32, text string)
	End(id abi.End) int64
	Count(key string, delta, ttlMillis int64) int64
	Counted(key string) int64
	Now() int64
	Lookup(resource, namespace, name, pointer string) (abi.Kind, string)
}

// Config is a value of the configuration.
func Config(pointer string) (abi.Kind, string) { return Current.Config(pointer) }

// Attr is an attribute of the request.
func Attr(id abi.Attr) (abi.Kind, string) { return Current.Attr(id) }

// Header is a header of the request.
func Header(name string) (abi.Kind, string) { return Current.Header(name) }

// Param is a parameter of the query.
func Param(name string) (abi.Kind, string) { return Current.Param(name) }

// Object is a value of the object.
func Object(pointer string) (abi.Kind, string) { return Current.Object(pointer) }

// Set puts a JSON value into the object.
func Set(pointer, value string) int32 { return Current.Set(pointer, value) }

// Remove removes a value from the object.
func Remove(pointer string) int32 { return Current.Remove(pointer) }

// Event is what happened to the object.
func Event() abi.Event { return Current.Event() }

// Respond says what the caller will be told.
func Respond(code int32, reason, message string, retryAfter int32) {
	Current.Respond(code, reason, message, retryAfter)
}

// Warn warns the caller.
func Warn(text string) { Current.Warn(text) }

// Fail says why the configuration is refused.
func Fail(text string) { Current.Fail(text) }

// LogEnabled reports whether messages of a level are wanted.
func LogEnabled(uint32) bool { return true }

// Log writes a message.
func Log(level uint32, text string) { Current.Log(level, text) }

// End is a figure about an answered request.
func End(id abi.End) int64 { return Current.End(id) }

// Count adds to a counter.
func Count(key string, delta, ttlMillis int64) int64 { return Current.Count(key, delta, ttlMillis) }

// Counted is the value of a counter.
func Counted(key string) int64 { return Current.Counted(key) }

// Now is the time in milliseconds since 1970.
func Now() int64 { return Current.Now() }

// Lookup is a value of an object that the proxy knows.
func Lookup(resource, namespace, name, pointer string) (abi.Kind, string) {
	return Current.Lookup(resource, namespace, name, pointer)
}
