package wire

import (
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"
)

// Field numbers of k8s.io/apimachinery/pkg/apis/meta/v1/generated.proto.
const (
	objectMetadata = 1 // in every object

	metaName            = 1
	metaNamespace       = 3
	metaUID             = 5
	metaResourceVersion = 6
	metaLabels          = 11
	metaAnnotations     = 12

	mapKey   = 1
	mapValue = 2
)

// eachField calls f for every field of the message in b with the offsets of the
// whole field and of its value, until f returns false.
func eachField(b []byte, f func(field protoField) bool) error {
	for at := 0; at < len(b); {
		num, typ, n := protowire.ConsumeTag(b[at:])
		if n < 0 {
			return ErrMalformed
		}
		size := protowire.ConsumeFieldValue(num, typ, b[at+n:])
		if size < 0 {
			return ErrMalformed
		}
		field := protoField{num: num, typ: typ, start: at, value: at + n, end: at + n + size}
		if typ == protowire.BytesType {
			_, prefix := protowire.ConsumeVarint(b[field.value:])
			field.value += prefix
		}
		if !f(field) {
			return nil
		}
		at = field.end
	}
	return nil
}

// protoField is one field of a message: b[start:end] is all of it and
// b[value:end] what it holds.
type protoField struct {
	num               protowire.Number
	typ               protowire.Type
	start, value, end int
}

// find returns the last field num of the message in b, as protobuf has it.
func find(b []byte, num protowire.Number) (protoField, bool) {
	var found protoField
	err := eachField(b, func(f protoField) bool {
		if f.num == num {
			found = f
		}
		return true
	})
	return found, err == nil && found.num == num
}

func (s *Schema) parseProto(raw []byte) (*Object, error) {
	var m meta
	var inner error
	err := eachField(raw, func(f protoField) bool {
		switch {
		case f.num != objectMetadata:
		case f.typ != protowire.BytesType:
			inner = ErrMalformed // as Kubernetes has it
		default:
			inner = m.readProto(raw[f.value:f.end])
		}
		return inner == nil
	})
	if err != nil || inner != nil {
		return nil, ErrMalformed
	}
	fields := make([]string, len(s.Fields))
	for i := range s.Fields {
		fields[i] = s.Fields[i].readProto(raw)
	}
	return s.object(m, fields, raw)
}

func (m *meta) readProto(b []byte) error {
	return eachField(b, func(f protoField) bool {
		if f.typ != protowire.BytesType {
			return true
		}
		value := b[f.value:f.end]
		switch f.num {
		case metaName:
			m.name = string(value)
		case metaNamespace:
			m.namespace = string(value)
		case metaUID:
			m.uid = string(value)
		case metaResourceVersion:
			m.resourceVersion = string(value)
		case metaLabels:
			m.labels = appendEntry(m.labels, value)
		}
		return true
	})
}

// appendEntry reads one entry of a map of strings.
func appendEntry(to []string, b []byte) []string {
	var key, value string
	_ = eachField(b, func(f protoField) bool {
		switch {
		case f.typ != protowire.BytesType:
		case f.num == mapKey:
			key = string(b[f.value:f.end])
		case f.num == mapValue:
			value = string(b[f.value:f.end])
		}
		return true
	})
	return append(to, key, value)
}

// readProto returns the field's value in the object raw.
func (f *Field) readProto(raw []byte) string {
	if len(f.Proto) == 0 {
		return f.Zero
	}
	at := raw
	for _, num := range f.Proto[:len(f.Proto)-1] {
		step, ok := find(at, num)
		if !ok || step.typ != protowire.BytesType {
			return f.Zero
		}
		at = at[step.value:step.end]
	}
	last, ok := find(at, f.Proto[len(f.Proto)-1])
	if !ok {
		return f.Zero
	}
	return f.format(at[last.value:last.end], last.typ)
}

func (f *Field) format(value []byte, typ protowire.Type) string {
	if typ == protowire.BytesType {
		return string(value)
	}
	n, size := protowire.ConsumeVarint(value)
	if typ != protowire.VarintType || size < 0 {
		return f.Zero
	}
	if f.Bool {
		return strconv.FormatBool(n != 0)
	}
	return strconv.FormatInt(int64(n), 10)
}

// editProtoMeta returns a copy of raw whose metadata is what edit makes of it.
func editProtoMeta(raw []byte, edit func(meta []byte) []byte) ([]byte, error) {
	f, ok := find(raw, objectMetadata)
	if !ok || f.typ != protowire.BytesType {
		return nil, ErrMalformed
	}
	meta := edit(raw[f.value:f.end])
	out := make([]byte, 0, len(raw)+len(meta)-(f.end-f.value)+4)
	out = append(out, raw[:f.start]...)
	out = protowire.AppendTag(out, objectMetadata, protowire.BytesType)
	out = protowire.AppendBytes(out, meta)
	return append(out, raw[f.end:]...), nil
}

// setProtoString replaces the string field num of the message in b.
func setProtoString(b []byte, num protowire.Number, value string) []byte {
	f, ok := find(b, num)
	if !ok {
		f.start, f.end = len(b), len(b)
	}
	out := append([]byte(nil), b[:f.start]...)
	out = protowire.AppendTag(out, num, protowire.BytesType)
	out = protowire.AppendString(out, value)
	return append(out, b[f.end:]...)
}

// dropProto removes every field num of the message in b.
func dropProto(b []byte, num protowire.Number) []byte {
	out := make([]byte, 0, len(b))
	_ = eachField(b, func(f protoField) bool {
		if f.num != num {
			out = append(out, b[f.start:f.end]...)
		}
		return true
	})
	return out
}
