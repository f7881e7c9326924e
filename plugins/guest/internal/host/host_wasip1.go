package host

import (
	"unsafe"

	"github.com/portico-proxy/portico/plugins/abi"
)

//go:wasmimport portico.v1 config_get
func configGet(pointer string, buf unsafe.Pointer, limit uint32) uint64

//go:wasmimport portico.v1 attr_get
func attrGet(id uint32, buf unsafe.Pointer, limit uint32) uint64

//go:wasmimport portico.v1 header_get
func headerGet(name string, buf unsafe.Pointer, limit uint32) uint64

//go:wasmimport portico.v1 param_get
func paramGet(name string, buf unsafe.Pointer, limit uint32) uint64

//go:wasmimport portico.v1 object_get
func objectGet(pointer string, buf unsafe.Pointer, limit uint32) uint64

//go:wasmimport portico.v1 object_set
func objectSet(pointer, value string) int32

//go:wasmimport portico.v1 object_remove
func objectRemove(pointer string) int32

//go:wasmimport portico.v1 event_type
func eventType() int32

//go:wasmimport portico.v1 respond
func respond(code int32, reason, message string, retryAfter int32)

//go:wasmimport portico.v1 warn
func warn(text string)

//go:wasmimport portico.v1 fail
func fail(text string)

//go:wasmimport portico.v1 log_enabled
func logEnabled(level uint32) int32

//go:wasmimport portico.v1 log
func log(level uint32, text string)

//go:wasmimport portico.v1 end_get
func endGet(id uint32) int64

// buffer takes what getters find. A guest runs one call at a time.
var buffer = make([]byte, 1024)

// fits reports whether a getter's result is in the buffer, and makes it larger
// if not.
func fits(result uint64) bool {
	if uint32(result) <= uint32(len(buffer)) {
		return true
	}
	buffer = make([]byte, uint32(result))
	return false
}

// names are texts that were given before. Most come again and again, and then
// need no memory, which a guest has to collect in the middle of some call.
var names [256]string

func found(result uint64) (abi.Kind, string) {
	b := buffer[:uint32(result)]
	if len(b) == 0 || len(b) > 64 {
		return abi.Kind(result >> 32), string(b)
	}
	name := &names[uint8(len(b)*31)^b[0]^b[len(b)-1]<<3^b[len(b)/2]<<1]
	if *name != string(b) {
		*name = string(b)
	}
	return abi.Kind(result >> 32), *name
}

// Config is a value of the configuration.
func Config(pointer string) (abi.Kind, string) {
	r := configGet(pointer, unsafe.Pointer(unsafe.SliceData(buffer)), uint32(len(buffer)))
	if uint32(r) == 0 {
		return abi.Kind(r >> 32), ""
	}
	if !fits(r) {
		return Config(pointer)
	}
	return found(r)
}

// Attr is an attribute of the request.
func Attr(id abi.Attr) (abi.Kind, string) {
	r := attrGet(uint32(id), unsafe.Pointer(unsafe.SliceData(buffer)), uint32(len(buffer)))
	if uint32(r) == 0 {
		return abi.Kind(r >> 32), ""
	}
	if !fits(r) {
		return Attr(id)
	}
	return found(r)
}

// Header is a header of the request.
func Header(name string) (abi.Kind, string) {
	r := headerGet(name, unsafe.Pointer(unsafe.SliceData(buffer)), uint32(len(buffer)))
	if uint32(r) == 0 {
		return abi.Kind(r >> 32), ""
	}
	if !fits(r) {
		return Header(name)
	}
	return found(r)
}

// Param is a parameter of the query.
func Param(name string) (abi.Kind, string) {
	r := paramGet(name, unsafe.Pointer(unsafe.SliceData(buffer)), uint32(len(buffer)))
	if uint32(r) == 0 {
		return abi.Kind(r >> 32), ""
	}
	if !fits(r) {
		return Param(name)
	}
	return found(r)
}

// Object is a value of the object.
func Object(pointer string) (abi.Kind, string) {
	r := objectGet(pointer, unsafe.Pointer(unsafe.SliceData(buffer)), uint32(len(buffer)))
	if uint32(r) == 0 {
		return abi.Kind(r >> 32), ""
	}
	if !fits(r) {
		return Object(pointer)
	}
	return found(r)
}

// Set puts a JSON value into the object.
func Set(pointer, value string) int32 { return objectSet(pointer, value) }

// Remove removes a value from the object.
func Remove(pointer string) int32 { return objectRemove(pointer) }

// Event is what happened to the object.
func Event() abi.Event { return abi.Event(eventType()) }

// Respond says what the caller will be told.
func Respond(code int32, reason, message string, retryAfter int32) {
	respond(code, reason, message, retryAfter)
}

// Warn warns the caller.
func Warn(text string) { warn(text) }

// Fail says why the configuration is refused.
func Fail(text string) { fail(text) }

// LogEnabled reports whether messages of a level are wanted.
func LogEnabled(level uint32) bool { return logEnabled(level) != 0 }

// Log writes a message.
func Log(level uint32, text string) { log(level, text) }

// End is a figure about an answered request.
func End(id abi.End) int64 { return endGet(uint32(id)) }

// The linker leaves out what a guest does not call, and with it what it would
// have to be granted.

//go:wasmimport portico.v1 kv_add
func kvAdd(key string, delta, ttlMillis int64) int64

//go:wasmimport portico.v1 kv_get
func kvGet(key string) int64

//go:wasmimport portico.v1 now_ms
func nowMillis() int64

//go:wasmimport portico.v1 lookup
func lookup(resource, namespace, name, pointer string, buf unsafe.Pointer, limit uint32) uint64

// Lookup is a value of an object that the proxy knows.
func Lookup(resource, namespace, name, pointer string) (abi.Kind, string) {
	r := lookup(resource, namespace, name, pointer, unsafe.Pointer(unsafe.SliceData(buffer)), uint32(len(buffer)))
	if uint32(r) == 0 {
		return abi.Kind(r >> 32), ""
	}
	if !fits(r) {
		return Lookup(resource, namespace, name, pointer)
	}
	return found(r)
}

// Count adds to a counter.
func Count(key string, delta, ttlMillis int64) int64 { return kvAdd(key, delta, ttlMillis) }

// Counted is the value of a counter.
func Counted(key string) int64 { return kvGet(key) }

// Now is the time in milliseconds since 1970.
func Now() int64 { return nowMillis() }
