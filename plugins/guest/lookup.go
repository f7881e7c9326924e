package guest

import (
	"github.com/portico-proxy/portico/plugins/abi"
	"github.com/portico-proxy/portico/plugins/guest/internal/host"
)

// Known is an object of the cluster as the proxy knows it, which may be a moment
// old. Each of its methods asks the host once.
type Known struct{ resource, namespace, name string }

// Lookup is an object of a resource of the WasmFilter's contextResources. The
// resource is its plural name, with its group behind a dot if it has one
// (deployments.apps); the namespace is empty for what is in none. It needs the
// capability lookup. To ask for another resource, or in configure, is a failure
// of the filter.
func Lookup(resource, namespace, name string) Known { return Known{resource, namespace, name} }

func (k Known) get(pointer string) (abi.Kind, string) {
	return host.Lookup(k.resource, k.namespace, k.name, pointer)
}

// Exists reports whether there is such an object.
func (k Known) Exists() bool { return k.Has("/metadata/name") }

// Label is the value of a label, or "".
func (k Known) Label(key string) string { return k.String(below("/metadata/labels/", key)) }

// Annotation is the value of an annotation, or "".
func (k Known) Annotation(key string) string {
	return k.String(below("/metadata/annotations/", key))
}

// String is the string at a JSON pointer, or "".
func (k Known) String(pointer string) string { return text(k.get(pointer)) }

// Bool is the boolean at a pointer, or false.
func (k Known) Bool(pointer string) bool {
	kind, s := k.get(pointer)
	return kind == abi.Bool && s == "true"
}

// Value is any value: strings as they are, everything else as JSON. It reports
// false if there is none.
func (k Known) Value(pointer string) (string, bool) { return value(k.get(pointer)) }

// Has reports whether there is a value at a pointer that is not null.
func (k Known) Has(pointer string) bool {
	kind, _ := k.get(pointer)
	return kind != abi.Absent && kind != abi.Null
}
