package wire

// Look reads what names a JSON object of any resource, whole or as a list's item, and
// its labels. A resourceVersion that is no number is none, and an object that is not
// stored, such as a review, has no name. Fields cannot be told.
func Look(raw []byte) (*Object, error) {
	var m meta
	var inner error
	err := eachMember(raw, func(j jsonMember) bool {
		if string(j.name) == "metadata" && raw[j.value] == '{' {
			m = meta{}
			inner = m.readJSON(raw[j.value:j.end])
		}
		return inner == nil
	})
	if err != nil || inner != nil {
		return nil, ErrMalformed
	}
	rv, err := ParseResourceVersion(m.resourceVersion)
	if err != nil {
		rv = 0
	}
	return &Object{Key: Key(m.namespace, m.name), UID: m.uid, ResourceVersion: rv, Raw: raw, schema: anySchema, labels: m.labels}, nil
}

var anySchema = &Schema{}

// Member returns the value of the member of that name of the JSON object in raw, nil
// if there is none.
func Member(raw []byte, name string) []byte {
	m, ok := member(raw, name)
	if !ok {
		return nil
	}
	return raw[m.value:m.end:m.end]
}

// Text is the string that the JSON value raw holds, or nothing.
func Text(raw []byte) string { return text(raw) }

// WithMember returns a copy of the JSON object in raw whose member of that name, which
// it must have, is value.
func WithMember(raw []byte, name string, value []byte) ([]byte, error) {
	m, ok := member(raw, name)
	if !ok {
		return nil, ErrMalformed
	}
	return splice(raw, m.value, m.end, value), nil
}

// WithoutMember returns a copy of the JSON object in raw without that member.
func WithoutMember(raw []byte, name string) []byte { return dropJSON(raw, name) }

// EachElement calls f for each element of the JSON array in raw.
func EachElement(raw []byte, f func(element []byte)) error {
	at := skipSpace(raw, 0)
	if at >= len(raw) || raw[at] != '[' {
		return ErrMalformed
	}
	at = skipSpace(raw, at+1)
	if at < len(raw) && raw[at] == ']' {
		return nil
	}
	for {
		end := skipValue(raw, at)
		if end < 0 {
			return ErrMalformed
		}
		f(raw[at:end:end])
		at = skipSpace(raw, end)
		switch {
		case at < len(raw) && raw[at] == ']':
			return nil
		case at >= len(raw) || raw[at] != ',':
			return ErrMalformed
		}
		at = skipSpace(raw, at+1)
	}
}
