package wasm

import (
	"github.com/portico-proxy/portico/core/document"
	"github.com/portico-proxy/portico/plugins/abi"
)

// read is what a guest is told of the value at a pointer: its kind, and its
// bytes, strings without quotes.
func read(b []byte, pointer string) (abi.Kind, []byte) {
	if len(b) == 0 {
		return abi.Absent, nil
	}
	return kindOf(document.Get(b, pointer))
}

func kindOf(value []byte, err error) (abi.Kind, []byte) {
	if err != nil {
		return abi.Absent, nil
	}
	switch value[0] {
	case '"':
		return abi.String, document.Unquote(value)
	case '{':
		return abi.Object, value
	case '[':
		return abi.Array, value
	case 'n':
		return abi.Null, nil
	case 't', 'f':
		return abi.Bool, value
	}
	return abi.Number, value
}
