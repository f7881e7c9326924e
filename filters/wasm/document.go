package wasm

import (
	"bytes"
	"encoding/json"
	"errors"
	"strconv"
	"strings"

	"github.com/portico-proxy/portico/plugins/abi"
)

var (
	errNotThere   = errors.New("nothing is there")
	errNoPointer  = errors.New("no JSON pointer")
	errNoDocument = errors.New("no JSON")
)

// maxDepth bounds nesting, in documents and in pointers.
const maxDepth = 100

// span is a value's place in a document: b[start:end]. For a member of an
// object, whole is where its name begins.
type span struct{ whole, start, end int }

// locate finds the value at an RFC 6901 pointer. The document is valid JSON
// whose objects name no member twice.
func locate(b []byte, pointer string) (span, error) {
	at := skipSpace(b, 0)
	end := skipValue(b, at)
	if end < 0 {
		return span{}, errNoDocument
	}
	found := span{at, at, end}
	for pointer != "" {
		if pointer[0] != '/' {
			return span{}, errNoPointer
		}
		token, rest := pointer[1:], ""
		if i := strings.IndexByte(token, '/'); i >= 0 {
			token, rest = token[:i], token[i:]
		}
		pointer = rest
		var ok bool
		if found, ok = child(b, found, token); !ok {
			return span{}, errNotThere
		}
	}
	return found, nil
}

var unescape = strings.NewReplacer("~1", "/", "~0", "~")

// child finds a member of an object, or an element of an array.
func child(b []byte, in span, token string) (span, bool) {
	if strings.IndexByte(token, '~') >= 0 {
		token = unescape.Replace(token)
	}
	switch b[in.start] {
	case '{':
		return member(b, in, token)
	case '[':
		n, err := strconv.Atoi(token)
		if err != nil || n < 0 || strconv.Itoa(n) != token {
			return span{}, false
		}
		return element(b, in, n)
	}
	return span{}, false
}

func member(b []byte, in span, name string) (span, bool) {
	for at := skipSpace(b, in.start+1); at < in.end && b[at] == '"'; {
		whole, after := at, skipValue(b, at)
		if after < 0 {
			return span{}, false
		}
		value := skipSpace(b, skipSpace(b, after)+1)
		end := skipValue(b, value)
		if end < 0 {
			return span{}, false
		}
		if sameText(b[whole:after], name) {
			return span{whole, value, end}, true
		}
		at = skipSpace(b, end)
		if at >= in.end || b[at] != ',' {
			break
		}
		at = skipSpace(b, at+1)
	}
	return span{}, false
}

func element(b []byte, in span, n int) (span, bool) {
	for at := skipSpace(b, in.start+1); at < in.end && b[at] != ']'; n-- {
		end := skipValue(b, at)
		if end < 0 {
			return span{}, false
		}
		if n == 0 {
			return span{at, at, end}, true
		}
		at = skipSpace(b, end)
		if at >= in.end || b[at] != ',' {
			break
		}
		at = skipSpace(b, at+1)
	}
	return span{}, false
}

// sameText compares a JSON string, quotes and all, with what it may say.
func sameText(quoted []byte, text string) bool {
	if bytes.IndexByte(quoted, '\\') < 0 {
		return string(quoted[1:len(quoted)-1]) == text
	}
	var said string
	return json.Unmarshal(quoted, &said) == nil && said == text
}

func skipSpace(b []byte, at int) int {
	for at < len(b) && (b[at] == ' ' || b[at] == '\t' || b[at] == '\n' || b[at] == '\r') {
		at++
	}
	return at
}

// skipValue returns the offset behind the value that begins at at, or -1.
func skipValue(b []byte, at int) int {
	if at >= len(b) {
		return -1
	}
	switch b[at] {
	case '"':
		return skipString(b, at)
	case '{', '[':
		return skipNested(b, at)
	case ',', '}', ']', ':':
		return -1
	}
	for at < len(b) && bytes.IndexByte([]byte(",}] \t\r\n"), b[at]) < 0 {
		at++
	}
	return at
}

func skipString(b []byte, at int) int {
	for at++; at < len(b); at++ {
		switch b[at] {
		case '\\':
			at++
		case '"':
			return at + 1
		}
	}
	return -1
}

func skipNested(b []byte, at int) int {
	for depth := 0; at < len(b); {
		switch b[at] {
		case '"':
			if at = skipString(b, at); at < 0 {
				return -1
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return at + 1
			}
		}
		at++
	}
	return -1
}

// read is what a guest is told of the value at a pointer: its kind, and its
// bytes, strings without quotes.
func read(b []byte, pointer string) (abi.Kind, []byte) {
	if len(b) == 0 {
		return abi.Absent, nil
	}
	at, err := locate(b, pointer)
	if err != nil {
		return abi.Absent, nil
	}
	value := b[at.start:at.end]
	switch value[0] {
	case '"':
		return abi.String, unquote(value)
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

func unquote(quoted []byte) []byte {
	if bytes.IndexByte(quoted, '\\') < 0 {
		return quoted[1 : len(quoted)-1]
	}
	var text string
	if json.Unmarshal(quoted, &text) != nil {
		return nil
	}
	return []byte(text)
}

// set returns the document with value at a pointer; b itself is left alone.
// Objects on the way that are missing are made.
func set(b []byte, pointer string, value []byte) ([]byte, error) {
	if strings.Count(pointer, "/") > maxDepth {
		return nil, errNoPointer
	}
	at, err := locate(b, pointer)
	if err == nil {
		return splice(b, at.start, at.end, value), nil
	}
	if !errors.Is(err, errNotThere) {
		return nil, err
	}
	i := strings.LastIndexByte(pointer, '/')
	parent, token := pointer[:i], unescape.Replace(pointer[i+1:])
	name, err := json.Marshal(token)
	if err != nil {
		return nil, errNoPointer
	}
	added := append(append(name, ':'), value...)
	in, err := locate(b, parent)
	if errors.Is(err, errNotThere) || err == nil && b[in.start] == 'n' {
		return set(b, parent, append(append([]byte{'{'}, added...), '}'))
	}
	if err != nil {
		return nil, err
	}
	if b[in.start] != '{' {
		return nil, errNotThere
	}
	if b[skipSpace(b, in.start+1)] != '}' {
		added = append(added, ',')
	}
	return splice(b, in.start+1, in.start+1, added), nil
}

// remove returns the document without the member or element at a pointer; b
// itself is left alone.
func remove(b []byte, pointer string) ([]byte, error) {
	at, err := locate(b, pointer)
	if err != nil {
		return nil, err
	}
	if pointer == "" {
		return nil, errNoPointer
	}
	start, end := at.whole, skipSpace(b, at.end)
	if b[end] == ',' {
		return splice(b, start, skipSpace(b, end+1), nil), nil
	}
	for start--; b[start] != ',' && b[start] != '{' && b[start] != '['; start-- {
	}
	if b[start] != ',' {
		start++
	}
	return splice(b, start, at.end, nil), nil
}

// splice returns b with b[from:to] exchanged.
func splice(b []byte, from, to int, middle []byte) []byte {
	out := make([]byte, 0, from+len(middle)+len(b)-to)
	return append(append(append(out, b[:from]...), middle...), b[to:]...)
}
