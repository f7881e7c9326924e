package guest

import (
	"strings"
	"unsafe"

	"github.com/portico-proxy/portico/plugins/abi"
	"github.com/portico-proxy/portico/plugins/guest/internal/host"
)

// Object is the object that the filter is asked about. Fields are named by JSON
// pointers (RFC 6901), as in /spec/containers/0/image, in which ~1 stands for a
// slash and ~0 for a tilde; [Pointer] writes them.
type Object struct{}

func (Object) get(pointer string) (abi.Kind, string) { return host.Object(pointer) }

// changed says that the object was, in the call that runs.
var changed bool

// Kind is the object's.
func (o Object) Kind() string { return o.String("/kind") }

// Name is the object's; it may be empty if the API server is to make one.
func (o Object) Name() string { return o.String("/metadata/name") }

// Namespace is the object's.
func (o Object) Namespace() string { return o.String("/metadata/namespace") }

// Label is the value of a label, or "".
func (o Object) Label(key string) string { return o.String(below("/metadata/labels/", key)) }

// Annotation is the value of an annotation, or "".
func (o Object) Annotation(key string) string {
	return o.String(below("/metadata/annotations/", key))
}

// String is the string at a pointer, or "".
func (o Object) String(pointer string) string { return text(o.get(pointer)) }

// Bool is the boolean at a pointer, or false.
func (o Object) Bool(pointer string) bool {
	kind, s := o.get(pointer)
	return kind == abi.Bool && s == "true"
}

// Value is any value: strings as they are, everything else as JSON. It reports
// false if there is none.
func (o Object) Value(pointer string) (string, bool) { return value(o.get(pointer)) }

// Has reports whether there is a value at a pointer that is not null.
func (o Object) Has(pointer string) bool {
	kind, _ := o.get(pointer)
	return kind != abi.Absent && kind != abi.Null
}

// SetLabel gives the object a label, and SetAnnotation an annotation.
func (o Object) SetLabel(key, s string) bool {
	return o.SetString(Pointer("metadata", "labels", key), s)
}

// SetAnnotation gives the object an annotation.
func (o Object) SetAnnotation(key, s string) bool {
	return o.SetString(Pointer("metadata", "annotations", key), s)
}

// SetString puts a string at a pointer. Objects on the way that are missing are
// made. It reports false if there is no such place, or it must not be changed:
// what names an object cannot be.
func (o Object) SetString(pointer, s string) bool { return o.Set(pointer, Quote(s)) }

// Set puts a JSON value at a pointer, as SetString does.
func (Object) Set(pointer, json string) bool { return done(host.Set(pointer, json)) }

// Remove removes what is at a pointer. It reports false if nothing was.
func (Object) Remove(pointer string) bool { return done(host.Remove(pointer)) }

func done(result int32) bool {
	changed = changed || result == abi.PatchOK
	return result == abi.PatchOK
}

// known are pointers that were written before. A host checks at every loop and
// function whether a guest has run for too long, so what need not be done twice
// is not.
var known [16]struct{ parent, key, pointer string }

// below is the JSON pointer to a member of what is at parent.
func below(parent, key string) string {
	// A string that is remembered here stays where it is: one at the same
	// address, of the same length, is the same.
	k := &known[(uintptr(unsafe.Pointer(unsafe.StringData(key)))>>2+uintptr(len(parent)))%uintptr(len(known))]
	if unsafe.StringData(k.key) != unsafe.StringData(key) || len(k.key) != len(key) || k.parent != parent {
		k.parent, k.key, k.pointer = parent, key, parent+Pointer(key)[1:]
	}
	return k.pointer
}

// Pointer is the JSON pointer to a field.
func Pointer(path ...string) string {
	var b strings.Builder
	for _, token := range path {
		b.WriteByte('/')
		for i := range len(token) {
			switch token[i] {
			case '~':
				b.WriteString("~0")
			case '/':
				b.WriteString("~1")
			default:
				b.WriteByte(token[i])
			}
		}
	}
	return b.String()
}

// Quote is a string as JSON. Text that is not UTF-8 becomes a text that is.
func Quote(s string) string {
	const hex = "0123456789abcdef"
	var b strings.Builder
	b.Grow(len(s) + 2)
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < ' ':
			b.WriteString(`\u00`)
			b.WriteByte(hex[r>>4])
			b.WriteByte(hex[r&15])
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
