package document

import "strconv"

// Edit returns the value b with what leave makes of each of its members or elements,
// which it names unescaped: the same, another, or nil to take it out. Everything is
// read once. Where nothing is changed b itself is returned, and so is what has
// neither; b is left alone.
func Edit(b []byte, leave func(name, value []byte) ([]byte, error)) ([]byte, error) {
	start := skipSpace(b, 0)
	if start >= len(b) || b[start] != '{' && b[start] != '[' {
		return b, nil
	}
	e := edit{b: b, before: start + 1}
	at := skipSpace(b, start+1)
	if isAt(b, at, closing(b[start])) {
		return b, nil
	}
	for n := 0; ; n++ {
		name, in := nameAt(b, at, b[start], n)
		if in.end < 0 {
			return nil, errNoDocument
		}
		left, err := leave(name, b[in.start:in.end])
		if err != nil {
			return nil, err
		}
		e.add(in, left)
		at = skipSpace(b, in.end)
		if !isAt(b, at, ',') {
			break
		}
		at = skipSpace(b, at+1)
	}
	if !isAt(b, at, closing(b[start])) {
		return nil, errNoDocument
	}
	if e.out == nil {
		return b, nil
	}
	return append(e.out, b[at:]...), nil
}

// edit is a value of which some members have been read.
type edit struct {
	b, out []byte // out is nil until something is changed
	before int    // where the last member ended
	some   bool   // whether one is left
}

// add adds what is left of the member at in.
func (e *edit) add(in span, left []byte) {
	same := len(left) == in.end-in.start && len(left) > 0 && &left[0] == &e.b[in.start]
	if !same && e.out == nil {
		e.out = append(make([]byte, 0, len(e.b)), e.b[:e.before]...)
	}
	if left != nil && e.out != nil {
		if e.some {
			e.out = append(e.out, ',')
		}
		e.out = append(append(e.out, e.b[in.whole:in.start]...), left...)
	}
	e.some = e.some || left != nil
	e.before = in.end
}

// nameAt reads the member, or the nth element, that begins at at. Its end is -1
// where there is none.
func nameAt(b []byte, at int, open byte, n int) (name []byte, in span) {
	in = span{at, at, -1}
	if open == '[' {
		name = strconv.AppendInt(nil, int64(n), 10)
	} else {
		after := -1
		if isAt(b, at, '"') {
			after = skipString(b, at)
		}
		if after < 0 {
			return nil, in
		}
		name = Unquote(b[at:after])
		colon := skipSpace(b, after)
		if !isAt(b, colon, ':') {
			return nil, in
		}
		in.start = skipSpace(b, colon+1)
	}
	in.end = skipValue(b, in.start)
	return name, in
}

func isAt(b []byte, at int, c byte) bool { return at < len(b) && b[at] == c }

func closing(open byte) byte { return open + 2 } // in ASCII, of { and of [
