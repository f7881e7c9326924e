package wire

import (
	"bytes"
	"encoding/json"
)

// maxDepth bounds nesting; the API server itself refuses what is deeper.
const maxDepth = 1000

// jsonMember is one member of a JSON object: b[start:value] is its name with
// the colon and b[value:end] its value.
type jsonMember struct {
	name              []byte // as written, without quotes
	start, value, end int
}

// eachMember calls f for every member of the JSON object in b until f returns
// false. It finds its way and does not judge: bytes come from an API server
// that wrote them by a JSON library.
func eachMember(b []byte, f func(m jsonMember) bool) error {
	at := skipSpace(b, 0)
	if at >= len(b) || b[at] != '{' {
		return ErrMalformed
	}
	at = skipSpace(b, at+1)
	if at < len(b) && b[at] == '}' {
		return nil
	}
	for {
		m := jsonMember{start: at}
		end := skipString(b, at)
		if end < 0 {
			return ErrMalformed
		}
		m.name = b[at+1 : end-1]
		at = skipSpace(b, end)
		if at >= len(b) || b[at] != ':' {
			return ErrMalformed
		}
		m.value = skipSpace(b, at+1)
		if m.end = skipValue(b, m.value); m.end < 0 {
			return ErrMalformed
		}
		if !f(m) {
			return nil
		}
		at = skipSpace(b, m.end)
		switch {
		case at < len(b) && b[at] == '}':
			return nil
		case at >= len(b) || b[at] != ',':
			return ErrMalformed
		}
		at = skipSpace(b, at+1)
	}
}

func skipSpace(b []byte, at int) int {
	for at < len(b) && (b[at] == ' ' || b[at] == '\t' || b[at] == '\n' || b[at] == '\r') {
		at++
	}
	return at
}

// skipString returns the offset behind the string that begins at at, or -1.
func skipString(b []byte, at int) int {
	if at >= len(b) || b[at] != '"' {
		return -1
	}
	for at++; ; {
		quote := bytes.IndexByte(b[at:], '"')
		if quote < 0 {
			return -1
		}
		escape := bytes.IndexByte(b[at:at+quote], '\\')
		if escape < 0 {
			return at + quote + 1
		}
		at += escape + 2
		if at > len(b) {
			return -1
		}
	}
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

func skipNested(b []byte, at int) int {
	for depth := 0; at < len(b); {
		switch b[at] {
		case '"':
			if at = skipString(b, at); at < 0 {
				return -1
			}
			continue
		case '{', '[':
			if depth++; depth > maxDepth {
				return -1
			}
		case '}', ']':
			if depth--; depth == 0 {
				return at + 1
			}
		}
		at++
	}
	return -1
}

// member returns the last member of that name of the JSON object in b.
func member(b []byte, name string) (jsonMember, bool) {
	var found jsonMember
	err := eachMember(b, func(m jsonMember) bool {
		if string(m.name) == name {
			found = m
		}
		return true
	})
	return found, err == nil && found.end > 0
}

// text is the string that the JSON value b holds, or nothing.
func text(b []byte) string {
	if len(b) >= 2 && b[0] == '"' && bytes.IndexByte(b, '\\') < 0 {
		return string(b[1 : len(b)-1])
	}
	var v string
	if json.Unmarshal(b, &v) != nil {
		return ""
	}
	return v
}

func (s *Schema) parseJSON(raw []byte) (*Object, error) {
	var m meta
	var inner error
	err := eachMember(raw, func(j jsonMember) bool {
		if string(j.name) == "metadata" {
			inner = m.readJSON(raw[j.value:j.end])
		}
		return inner == nil
	})
	if err != nil || inner != nil {
		return nil, ErrMalformed
	}
	fields := make([]string, len(s.Fields))
	for i := range s.Fields {
		fields[i] = s.Fields[i].readJSON(raw)
	}
	return s.object(m, fields, raw)
}

func (m *meta) readJSON(b []byte) error {
	var inner error
	err := eachMember(b, func(j jsonMember) bool {
		value := b[j.value:j.end]
		switch string(j.name) {
		case "name":
			m.name = text(value)
		case "namespace":
			m.namespace = text(value)
		case "uid":
			m.uid = text(value)
		case "resourceVersion":
			m.resourceVersion = text(value)
		case "labels":
			inner = m.readLabels(value)
		}
		return inner == nil
	})
	if err != nil {
		return err
	}
	return inner
}

func (m *meta) readLabels(b []byte) error {
	if string(b) == "null" {
		return nil
	}
	return eachMember(b, func(j jsonMember) bool {
		m.labels = append(m.labels, text(b[j.start:j.start+len(j.name)+2]), text(b[j.value:j.end]))
		return true
	})
}

// readJSON returns the field's value in the object raw.
func (f *Field) readJSON(raw []byte) string {
	at := raw
	for _, name := range f.JSON {
		m, ok := member(at, name)
		if !ok {
			return f.Zero
		}
		at = at[m.value:m.end]
	}
	switch {
	case string(at) == "null", len(f.JSON) == 0:
		return f.Zero
	case at[0] == '"':
		return text(at)
	}
	return string(at)
}

// editJSONMeta returns a copy of raw whose metadata is what edit makes of it.
func editJSONMeta(raw []byte, edit func(meta []byte) ([]byte, error)) ([]byte, error) {
	m, ok := member(raw, "metadata")
	if !ok {
		return nil, ErrMalformed
	}
	meta, err := edit(raw[m.value:m.end])
	if err != nil {
		return nil, err
	}
	return splice(raw, m.value, m.end, meta), nil
}

// setJSONString replaces the string member name of the JSON object in b.
func setJSONString(b []byte, name, value string) ([]byte, error) {
	m, ok := member(b, name)
	if !ok {
		return nil, ErrMalformed
	}
	return splice(b, m.value, m.end, []byte(quote(value))), nil
}

// dropJSON removes a member and the comma that parts it from its neighbour.
func dropJSON(b []byte, name string) []byte {
	m, ok := member(b, name)
	if !ok {
		return b
	}
	start, end := m.start, skipSpace(b, m.end)
	if end < len(b) && b[end] == ',' {
		end++
	} else if comma := bytes.LastIndexByte(b[:start], ','); comma >= 0 {
		start = comma
	}
	return splice(b, start, end, nil)
}

// splice returns a copy of b with b[from:to] replaced.
func splice(b []byte, from, to int, with []byte) []byte {
	out := make([]byte, 0, len(b)-(to-from)+len(with))
	out = append(out, b[:from]...)
	out = append(out, with...)
	return append(out, b[to:]...)
}
