// Package document finds and changes values in JSON without decoding it.
// Documents are valid JSON whose objects name no member twice.
package document

import (
	"bytes"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
)

// ErrNotThere says that nothing is where a pointer leads.
var ErrNotThere = errors.New("nothing is there")

var (
	errNoPointer  = errors.New("no JSON pointer")
	errNoDocument = errors.New("no JSON")
)

// maxDepth bounds nesting, in documents and in pointers.
const maxDepth = 100

// span is a value's place in a document: b[start:end]. For a member of an
// object, whole is where its name begins.
type span struct{ whole, start, end int }

// Get returns the value at an RFC 6901 pointer.
func Get(b []byte, pointer string) ([]byte, error) {
	at, err := locate(b, pointer)
	if err != nil {
		return nil, err
	}
	return b[at.start:at.end], nil
}

// Text returns what the string at a pointer says; empty if there is none.
func Text(b []byte, pointer string) string {
	value, err := Get(b, pointer)
	if err != nil || value[0] != '"' {
		return ""
	}
	return string(Unquote(value))
}

// Children returns pointers to all members or elements of the value at a pointer.
func Children(b []byte, pointer string) []string {
	in, err := locate(b, pointer)
	if err != nil || b[in.start] != '{' && b[in.start] != '[' {
		return nil
	}
	var all []string
	at := skipSpace(b, in.start+1)
	for n := 0; at >= 0 && at < in.end-1; n++ {
		token := strconv.Itoa(n)
		if b[in.start] == '{' {
			after := skipString(b, at)
			if after < 0 {
				return all
			}
			token = escape.Replace(string(Unquote(b[at:after])))
			at = skipSpace(b, skipSpace(b, after)+1)
		}
		all = append(all, pointer+"/"+token)
		at = next(b, at)
	}
	return all
}

// locate finds the value at an RFC 6901 pointer. Of what lies before the value everything
// is read once, and of what lies behind it nothing.
func locate(b []byte, pointer string) (span, error) {
	at := skipSpace(b, 0)
	whole := at
	for pointer != "" {
		if pointer[0] != '/' {
			return span{}, errNoPointer
		}
		token, rest := pointer[1:], ""
		if i := strings.IndexByte(token, '/'); i >= 0 {
			token, rest = token[:i], token[i:]
		}
		pointer = rest
		if whole, at = child(b, at, token); at < 0 {
			return span{}, ErrNotThere
		}
	}
	end := skipValue(b, at)
	if end < 0 {
		return span{}, errNoDocument
	}
	return span{whole, at, end}, nil
}

var (
	escape   = strings.NewReplacer("~", "~0", "/", "~1")
	unescape = strings.NewReplacer("~1", "/", "~0", "~")
)

// Token makes a name fit for a pointer.
func Token(name string) string { return escape.Replace(name) }

// Name is what a pointer's token stands for.
func Name(token string) string { return unescape.Replace(token) }

// IsPointer reports whether text is a pointer: empty, or one that begins with a slash.
// Who applies JSON patches for the API server drops what stands before the first
// slash (gopkg.in/evanphx/json-patch.v4), so others mean another place by it.
func IsPointer(text string) bool { return text == "" || text[0] == '/' }

// child finds a member of the object, or an element of the array, that begins at
// at, and returns where it begins with and without its name, or -1.
func child(b []byte, at int, token string) (whole, value int) {
	if strings.IndexByte(token, '~') >= 0 {
		token = unescape.Replace(token)
	}
	if at >= len(b) {
		return -1, -1
	}
	switch b[at] {
	case '{':
		return member(b, at, token)
	case '[':
		n, err := strconv.Atoi(token)
		if err != nil || n < 0 || strconv.Itoa(n) != token {
			return -1, -1
		}
		return element(b, at, n)
	}
	return -1, -1
}

func member(b []byte, at int, name string) (whole, value int) {
	for at = skipSpace(b, at+1); at < len(b) && b[at] == '"'; {
		after := skipString(b, at)
		if after < 0 {
			return -1, -1
		}
		value := skipSpace(b, skipSpace(b, after)+1)
		if sameText(b[at:after], name) {
			return at, value
		}
		if at = next(b, value); at < 0 {
			break
		}
	}
	return -1, -1
}

func element(b []byte, at, n int) (whole, value int) {
	for at = skipSpace(b, at+1); at < len(b) && b[at] != ']'; n-- {
		if n == 0 {
			return at, at
		}
		if at = next(b, at); at < 0 {
			break
		}
	}
	return -1, -1
}

// next returns where the member or element begins that comes after the value at
// at, or -1.
func next(b []byte, at int) int {
	end := skipValue(b, at)
	if end < 0 {
		return -1
	}
	if at = skipSpace(b, end); at >= len(b) || b[at] != ',' {
		return -1
	}
	return skipSpace(b, at+1)
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
	for at < len(b) && !endsLiteral(b[at]) {
		at++
	}
	return at
}

func endsLiteral(c byte) bool {
	switch c {
	case ',', '}', ']', ' ', '\t', '\r', '\n':
		return true
	}
	return false
}

func skipString(b []byte, at int) int {
	for at++; at < len(b); {
		i := bytes.IndexByte(b[at:], '"')
		if i < 0 {
			return -1
		}
		escape := bytes.IndexByte(b[at:at+i], '\\')
		if escape < 0 {
			return at + i + 1
		}
		at += escape + 2
	}
	return -1
}

// skipNested skips nesting of any depth, as core/cache/wire's does not: who judges
// takes what is not found for absent, so nobody must hide it behind depth.
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

// Set returns the document with value at a pointer; b itself is left alone.
// Objects on the way that are missing are made.
func Set(b []byte, pointer string, value []byte) ([]byte, error) {
	if strings.Count(pointer, "/") > maxDepth {
		return nil, errNoPointer
	}
	at, err := locate(b, pointer)
	if err == nil {
		return splice(b, at.start, at.end, value), nil
	}
	if !errors.Is(err, ErrNotThere) {
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
	if errors.Is(err, ErrNotThere) || err == nil && b[in.start] == 'n' {
		return Set(b, parent, append(append([]byte{'{'}, added...), '}'))
	}
	if err != nil {
		return nil, err
	}
	if b[in.start] != '{' {
		return nil, ErrNotThere
	}
	if b[skipSpace(b, in.start+1)] != '}' {
		added = append(added, ',')
	}
	return splice(b, in.start+1, in.start+1, added), nil
}

// Remove returns the document without the member or element at a pointer; b
// itself is left alone.
func Remove(b []byte, pointer string) ([]byte, error) {
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

// Unquote returns what a JSON string says.
func Unquote(quoted []byte) []byte {
	if bytes.IndexByte(quoted, '\\') < 0 {
		return quoted[1 : len(quoted)-1]
	}
	var text string
	if json.Unmarshal(quoted, &text) != nil {
		return nil
	}
	return []byte(text)
}

// splice returns b with b[from:to] exchanged.
func splice(b []byte, from, to int, middle []byte) []byte {
	out := make([]byte, 0, from+len(middle)+len(b)-to)
	return append(append(append(out, b[:from]...), middle...), b[to:]...)
}

// Space is how many bytes of white space b begins with.
func Space(b []byte) int { return skipSpace(b, 0) }
