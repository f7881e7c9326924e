package body

import (
	"bytes"
	"encoding/json"
	"errors"

	"google.golang.org/protobuf/encoding/protowire"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/client-go/kubernetes/scheme"
)

// maxDepth bounds the nesting of messages.
const maxDepth = 100

var errUnknownFields = errors.New("the object has fields that this proxy does not know")

// fromProtobuf returns a built-in object as JSON. An object with fields that
// this build does not know is refused: who judges would not see them, and a change
// would lose them.
func fromProtobuf(raw []byte) ([]byte, error) {
	s := protobuf.NewSerializer(scheme.Scheme, scheme.Scheme)
	object, _, err := s.Decode(raw, nil, nil)
	if err != nil {
		return nil, err
	}
	var again bytes.Buffer
	if err := s.Encode(object, &again); err != nil {
		return nil, err
	}
	if again.Len() < len(raw) || !holds(again.Bytes()[protobufPrefix:], raw[protobufPrefix:], 0) {
		return nil, errUnknownFields
	}
	return json.Marshal(object)
}

// protobufPrefix is what Kubernetes begins protobuf with, in bytes.
const protobufPrefix = 4

// holds reports whether a message has every field of another, in its order, that
// an older client has encoded: what is new in between is not there. Of bytes it
// cannot be known whether they are a message, so both are tried.
func holds(message, part []byte, depth int) bool {
	if bytes.Equal(message, part) {
		return true
	}
	for depth < maxDepth && len(part) > 0 {
		tag, wire, field := cut(part)
		if field == 0 {
			return false
		}
		for {
			other, otherWire, size := cut(message)
			if size == 0 {
				return false
			}
			same := other == tag && otherWire == wire && sameField(message[:size], part[:field], wire, depth)
			message = message[size:]
			if same {
				break
			}
		}
		part = part[field:]
	}
	return len(part) == 0
}

// cut returns the first field's number, type and size, which is 0 if there is
// none.
func cut(b []byte) (number protowire.Number, kind protowire.Type, size int) {
	number, kind, size = protowire.ConsumeField(b)
	return number, kind, max(size, 0)
}

func sameField(a, b []byte, kind protowire.Type, depth int) bool {
	if bytes.Equal(a, b) {
		return true
	}
	return kind == protowire.BytesType && holds(valueOf(a), valueOf(b), depth+1)
}

func valueOf(field []byte) []byte {
	_, _, tag := protowire.ConsumeTag(field)
	value, size := protowire.ConsumeBytes(field[tag:])
	if size < 0 {
		return nil
	}
	return value
}
