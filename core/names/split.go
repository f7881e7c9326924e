package names

import (
	"errors"

	"github.com/portico-proxy/portico/core/cache/wire"
	"github.com/portico-proxy/portico/core/document"
)

var errUnreadable = errors.New("the answer is not in a form in which names can be exchanged")

// maxPart bounds what is held of an answer until it can be read, in bytes: one object
// of a list, or of a watch, or one answer that is neither.
const maxPart = wire.MaxObject

// maxPage bounds what people read, in bytes: containers write it, and it is held
// without anybody's having made room for it.
const maxPage = 1 << 20

// A splitter cuts JSON that comes piece by piece into values that can be read, and
// hands each on once it is whole.
type splitter struct {
	// list is a document whose items are handed on one by one; otherwise whole
	// documents are.
	list bool
	// read returns a whole value as it goes on: a document, a member of one, or an
	// element of one of its arrays, which are named.
	read func(in, name string, value []byte) ([]byte, error)
	// most is how long a value may be, in bytes.
	most int

	in   []byte // what has come and was not handed on
	out  []byte
	step step
	name string // of the member, or of the array, that is read
	scan scan
}

// A step is what comes next.
type step int

const (
	start step = iota
	member
	value
	element
	end
)

// write takes a piece and returns what goes on. It is valid until the next call.
func (s *splitter) write(p []byte) ([]byte, error) {
	s.in, s.out = append(s.in, p...), s.out[:0]
	for at := 0; ; {
		n, err := s.next(s.in[at:])
		if err != nil {
			return nil, err
		}
		at += n
		if n == 0 {
			if len(s.in)-at > s.most {
				return nil, wire.ErrTooLarge
			}
			if at > 0 {
				s.in = append(s.in[:0], s.in[at:]...)
			}
			return s.out, nil
		}
	}
}

// close says that nothing comes any more.
func (s *splitter) close() error {
	if s.list && s.step != end || len(s.in) > 0 {
		return errUnreadable
	}
	return nil
}

// next reads what b begins with and returns how much that was: 0 if more has to
// come first.
func (s *splitter) next(b []byte) (int, error) {
	if space := document.Space(b); space > 0 && s.scan.at == 0 {
		return space, nil
	}
	if len(b) == 0 {
		return 0, nil
	}
	switch {
	case !s.list:
		return s.value(b, "", "")
	case s.step == start && b[0] == '{', s.step == element && b[0] == ',', s.step == member && b[0] == ',':
		s.step = max(s.step, member)
		s.out = append(s.out, b[0])
		return 1, nil
	case s.step == member && b[0] == '}':
		s.step = end
		s.out = append(s.out, '}', '\n')
		return 1, nil
	case s.step == member && b[0] == '"':
		return s.memberName(b)
	case s.step == element && b[0] == ']':
		s.step = member
		s.out = append(s.out, ']')
		return 1, nil
	case s.step == value:
		return s.value(b, "", s.name)
	case s.step == element:
		return s.value(b, s.name, "")
	}
	return 0, errUnreadable
}

// memberName reads the name of a member, and whether its value is an array whose
// elements are read one by one.
func (s *splitter) memberName(b []byte) (int, error) {
	n, whole := s.scan.value(b)
	if !whole {
		return 0, nil
	}
	s.scan = scan{}
	colon := n + document.Space(b[n:])
	at := min(colon+1, len(b))
	at += document.Space(b[at:])
	if at >= len(b) {
		return 0, nil
	}
	if b[colon] != ':' {
		return 0, errUnreadable
	}
	s.name, s.step = string(document.Unquote(b[:n])), value
	s.out = append(append(s.out, b[:n]...), ':')
	if (s.name == "items" || s.name == "rows") && b[at] == '[' {
		s.step = element
		s.out = append(s.out, '[')
		at++
	}
	return at, nil
}

// value reads a whole value, and hands on what is made of it.
func (s *splitter) value(b []byte, in, name string) (int, error) {
	n, whole := s.scan.value(b)
	if !whole {
		return 0, nil
	}
	if n == 0 {
		return 0, errUnreadable
	}
	s.scan = scan{}
	out, err := s.read(in, name, b[:n])
	if err != nil {
		return 0, err
	}
	s.out = append(s.out, out...)
	if s.step == value {
		s.step = member
	}
	if !s.list {
		s.out = append(s.out, '\n')
	}
	return n, nil
}

// A scan is how far a value has been looked at that has not come whole.
type scan struct {
	at, depth int
	text      bool // within a string
}

// value goes on with b, which has grown, and returns where the value ends that b
// begins with, once it is known.
func (s *scan) value(b []byte) (end int, whole bool) {
	for ; s.at < len(b); s.at++ {
		switch c := b[s.at]; {
		case s.text && c == '\\':
			if s.at+1 == len(b) {
				return 0, false // what is escaped is still to come
			}
			s.at++
		case s.text && c == '"':
			s.text = false
			if s.depth == 0 {
				return s.at + 1, true
			}
		case s.text:
		case c == '"':
			s.text = true
		case c == '{' || c == '[':
			s.depth++
		case (c == '}' || c == ']') && s.depth > 0:
			if s.depth--; s.depth == 0 {
				return s.at + 1, true
			}
		case s.depth == 0 && (c == ',' || c == '}' || c == ']' || c <= ' '):
			return s.at, true
		}
	}
	return 0, false
}
