// Package wire reads objects, lists and watch events out of the API server's
// bytes and puts them together again, without decoding what lies between.
//
// It rests on a property of kube-apiserver that its tests check against a real
// one: the bytes of an object in a protobuf LIST equal those in a WATCH frame,
// and in JSON they are equal once the frame's leading kind and apiVersion are
// taken off, which built-in types carry in frames and not in list items
// (custom resources carry them in both). So bytes from either source serve both.
package wire

import (
	"encoding/json"
	"errors"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// MaxObject bounds the bytes of one object. The API server refuses requests
// above 3 MiB and etcd transactions above 1.5 MiB.
const MaxObject = 16 << 20

var (
	// ErrMalformed says that bytes are not what an API server sends.
	ErrMalformed = errors.New("malformed bytes from the API server")
	// ErrTooLarge says that an object exceeds [MaxObject].
	ErrTooLarge = errors.New("object exceeds the size limit")
)

// Format is how objects are written.
type Format uint8

// The formats.
const (
	JSON Format = iota
	Protobuf
)

// MediaType is the format's name in Accept and Content-Type.
func (f Format) MediaType() string {
	if f == Protobuf {
		return "application/vnd.kubernetes.protobuf"
	}
	return "application/json"
}

func (f Format) String() string {
	if f == Protobuf {
		return "protobuf"
	}
	return "json"
}

// A Schema is what must be known of a resource to read and write its objects.
type Schema struct {
	Resource schema.GroupVersionResource
	Kind     string
	ListKind string
	// Namespaced says that objects live in namespaces.
	Namespaced bool
	// Custom resources are written by other code in the API server: items
	// carry kind and apiVersion, and members are sorted.
	Custom bool
	// Fields can be selected by, besides metadata.name and metadata.namespace.
	Fields []Field
	// Renamed maps what clients may call a field to its name in Fields.
	Renamed map[string]string
	// NoNamespaceField says that the API server refuses to select by
	// metadata.namespace.
	NoNamespaceField bool
}

// A Field is one that clients can select objects by.
type Field struct {
	Name string
	// JSON and Proto are the ways to it.
	JSON  []string
	Proto []protowire.Number
	// Zero is its value where the object does not carry it.
	Zero string
	// Bool says that protobuf's 0 and 1 mean false and true.
	Bool bool
}

// APIVersion is the group and version as objects carry it.
func (s *Schema) APIVersion() string { return s.Resource.GroupVersion().String() }

// Canonical returns the name in Fields of what a client calls name, and whether
// objects can be selected by it here.
func (s *Schema) Canonical(name string) (string, bool) {
	switch name {
	case "metadata.name":
		return name, true
	case "metadata.namespace":
		return name, !s.NoNamespaceField
	}
	if to, ok := s.Renamed[name]; ok {
		name = to
	}
	return name, s.fieldIndex(name) >= 0
}

func (s *Schema) fieldIndex(name string) int {
	for i := range s.Fields {
		if s.Fields[i].Name == name {
			return i
		}
	}
	return -1
}

// jsonHead is what built-in types carry in front of their first member.
func (s *Schema) jsonHead() string {
	return `"kind":` + quote(s.Kind) + `,"apiVersion":` + quote(s.APIVersion()) + `,`
}

func quote(v string) string {
	out, err := json.Marshal(v)
	if err != nil {
		return `""`
	}
	return string(out)
}

// An Object is one object's bytes and what is needed to find it. It is never
// changed once made.
type Object struct {
	// Key is "<namespace>/<name>", or "<name>" outside namespaces. Lists are in
	// the byte order of keys.
	Key string
	// UID tells apart objects that bear one name after another.
	UID             string
	ResourceVersion uint64
	// Raw is the object as a list's item. It is shared: never write to it.
	Raw []byte

	schema *Schema
	labels []string // key, value, key, value
	fields []string // values of schema.Fields
	pack   *Pack    // where Raw lies; nil if it has memory of its own
}

// Namespace is empty outside namespaces.
func (o *Object) Namespace() string {
	namespace, _ := SplitKey(o.Key)
	return namespace
}

// Name is the object's name.
func (o *Object) Name() string { return o.Key[strings.IndexByte(o.Key, '/')+1:] }

// objectOverhead is about what an Object costs besides Raw and its strings.
const objectOverhead = 200

// Size is the memory that o keeps, in bytes.
func (o *Object) Size() int {
	n := objectOverhead + cap(o.Raw) + len(o.Key) + len(o.UID) + 16*(len(o.labels)+len(o.fields))
	for _, v := range o.labels {
		n += len(v)
	}
	return n
}

// Labels are o's labels as selectors want them.
func (o *Object) Labels() ObjectLabels { return ObjectLabels{o} }

// ObjectLabels are an object's labels.
type ObjectLabels struct{ o *Object }

// Has reports whether o bears the label.
func (l ObjectLabels) Has(label string) bool {
	_, ok := l.Lookup(label)
	return ok
}

// Get returns the label's value or nothing.
func (l ObjectLabels) Get(label string) string {
	v, _ := l.Lookup(label)
	return v
}

// Lookup returns the label's value and whether o bears it.
func (l ObjectLabels) Lookup(label string) (string, bool) {
	for i := 0; i+1 < len(l.o.labels); i += 2 {
		if l.o.labels[i] == label {
			return l.o.labels[i+1], true
		}
	}
	return "", false
}

// Fields are o's selectable fields as selectors want them.
func (o *Object) Fields() ObjectFields { return ObjectFields{o} }

// ObjectFields are an object's selectable fields.
type ObjectFields struct{ o *Object }

// Has reports whether objects of this kind have the field.
func (f ObjectFields) Has(field string) bool {
	_, ok := f.o.schema.Canonical(field)
	return ok
}

// Get returns the field's value or nothing.
func (f ObjectFields) Get(field string) string {
	switch field {
	case "metadata.name":
		return f.o.Name()
	case "metadata.namespace":
		return f.o.Namespace()
	}
	if i := f.o.schema.fieldIndex(field); i >= 0 && i < len(f.o.fields) {
		return f.o.fields[i]
	}
	return ""
}

// meta is what is read of an object's metadata.
type meta struct {
	name, namespace, uid, resourceVersion string
	labels                                []string
}

// object makes an Object of what was read.
func (s *Schema) object(m meta, fields []string, raw []byte) (*Object, error) {
	rv, err := ParseResourceVersion(m.resourceVersion)
	if err != nil || m.name == "" {
		return nil, ErrMalformed
	}
	o := &Object{Key: Key(m.namespace, m.name), UID: m.uid, ResourceVersion: rv, Raw: raw, schema: s, labels: m.labels, fields: fields}
	return o, nil
}

// Key is the place of an object in lists.
func Key(namespace, name string) string {
	if namespace == "" {
		return name
	}
	return namespace + "/" + name
}

// SplitKey takes apart what Key has put together.
func SplitKey(key string) (namespace, name string) {
	slash := strings.IndexByte(key, '/')
	return key[:max(slash, 0)], key[slash+1:]
}

// Parse reads one object in the form of a list's item. It keeps raw.
func (s *Schema) Parse(f Format, raw []byte) (*Object, error) {
	if len(raw) > MaxObject {
		return nil, ErrTooLarge
	}
	if f == Protobuf {
		return s.parseProto(raw)
	}
	return s.parseJSON(raw)
}

// ParseResourceVersion reads a revision of etcd. Zero and nothing are none.
func ParseResourceVersion(v string) (uint64, error) {
	if v == "" || len(v) > 20 {
		return 0, ErrMalformed
	}
	var n uint64
	for i := range len(v) {
		d := v[i] - '0'
		next := n*10 + uint64(d)
		if d > 9 || next < n || n > 1<<60 {
			return 0, ErrMalformed
		}
		n = next
	}
	return n, nil
}
