// Package abi holds the words that a WebAssembly plugin and its host share,
// portico.v1; README.md beside it says what they mean.
package abi

// Module is the import module of all host functions.
const Module = "portico.v1"

// Exports of a guest. The marker and the memory must be there; whichever of the
// others is there is called.
const (
	ExportMarker     = "portico_abi_v1"
	ExportMemory     = "memory"
	ExportInitialize = "_initialize"
	ExportConfigure  = "configure"
	ExportOnRequest  = "on_request"
	ExportOnObject   = "on_object"
	ExportOnEnd      = "on_end"
)

// Functions of the host. Those from KVGet on are there only for guests to which
// the capability was granted.
const (
	ConfigGet     = "config_get"
	LogEnabled    = "log_enabled"
	Log           = "log"
	Fail          = "fail"
	AttrGet       = "attr_get"
	HeaderGet     = "header_get"
	ParamGet      = "param_get"
	Respond       = "respond"
	Warn          = "warn"
	EventType     = "event_type"
	ObjectGet     = "object_get"
	ObjectPrevGet = "object_prev_get"
	ObjectSet     = "object_set"
	ObjectRemove  = "object_remove"
	EndGet        = "end_get"
	KVGet         = "kv_get"
	KVAdd         = "kv_add"
	NowMillis     = "now_ms"
	Lookup        = "lookup"
)

// A Kind says what a getter found. It is the upper half of the getter's result.
type Kind uint32

// The kinds. Strings come as they are, without quotes; objects and arrays as
// JSON, and so do numbers and booleans.
const (
	Absent Kind = iota
	Null
	Bool
	Number
	String
	Object
	Array
)

// Result is what a getter returns: what was found and how long it is in bytes.
// If it is longer than the buffer, nothing was written.
func Result(k Kind, length int) uint64 { return uint64(k)<<32 | uint64(uint32(length)) }

// Split takes a getter's result apart.
func Split(result uint64) (Kind, int) { return Kind(result >> 32), int(uint32(result)) }

// What on_request returns.
const (
	Continue int32 = 0
	Deny     int32 = 1 // after respond
)

// What on_object returns.
const (
	Keep    int32 = 0
	Drop    int32 = 1
	Patched int32 = 2 // after object_set or object_remove
)

// An Event is what happened to an object.
type Event int32

// The events. NoEvent is an object that is read, or that a request carries.
const (
	NoEvent Event = iota
	Added
	Modified
	Deleted
)

// An Attr is an attribute of the request.
type Attr uint32

// The attributes. Groups is a JSON array of strings, Extra a JSON object of
// arrays of strings; all others are strings, and absent where they are empty.
const (
	User Attr = iota + 1
	UID
	Groups
	Extra
	Verb
	APIGroup
	APIVersion
	Resource
	Subresource
	Namespace
	Name
	Path
	UserAgent
	SourceIP
	LabelSelector
	FieldSelector
	AuditID
)

// An End is a figure about an answered request.
type End uint32

// The figures: the HTTP status code, the bytes of the answer's body, and the
// microseconds from the request's arrival to the answer's end.
const (
	EndCode End = iota + 1
	EndBytes
	EndMicros
)

// Levels of log.
const (
	LevelError uint32 = iota
	LevelInfo
	LevelDebug
)

// What object_set and object_remove return.
const (
	PatchOK          int32 = 0
	PatchNotFound    int32 = 1 // nothing there, or a parent that is no object
	PatchInvalid     int32 = 2 // no JSON pointer, or no JSON value
	PatchForbidden   int32 = 3 // not in this call, or not this field
	PatchOverflowing int32 = 4 // the object would become too large
)

// Bounds of what guests may say, in bytes. Longer texts are cut.
const (
	MaxMessage  = 1024
	MaxReason   = 64
	MaxWarning  = 256
	MaxWarnings = 8
	MaxLog      = 1024
)

// A Capability is something that a guest may do only if it was granted.
type Capability string

// The capabilities.
const (
	CapabilityKV     Capability = "kv"
	CapabilityClock  Capability = "clock"
	CapabilityLookup Capability = "lookup"
)

// Sealed reports whether a field is one that says which object it is, or holds
// one: the path, the caller's rights and the answer rest on them, so they
// cannot be changed.
func Sealed(pointer string) bool {
	switch pointer {
	case "", "/kind", "/apiVersion", "/metadata", "/metadata/name", "/metadata/namespace", "/metadata/uid", "/metadata/resourceVersion":
		return true
	}
	return false
}
