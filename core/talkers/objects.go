package talkers

import (
	"bytes"
	"mime"
	"strings"
)

// Objects counts those of an answer as it passes, without keeping any of it.
type Objects struct {
	// Verb is the request's.
	Verb string
	// N is how many have begun.
	N int64

	scan func([]byte) // chosen at the first byte
}

// Read counts what begins in p. What it cannot read it does not count.
func (o *Objects) Read(contentType string, p []byte) {
	if o.scan == nil {
		mediaType, _, err := mime.ParseMediaType(contentType)
		if err != nil {
			mediaType = ""
		}
		o.scan = o.scanner(mediaType)
	}
	o.scan(p)
}

func (o *Objects) scanner(mediaType string) func([]byte) {
	json := mediaType == "application/json"
	protobuf := strings.HasPrefix(mediaType, "application/vnd.kubernetes.protobuf")
	switch {
	case o.Verb != "list" && o.Verb != "watch":
		o.N = 1
	case json && o.Verb == "watch":
		return (&jsonScan{each: 0, found: &o.N}).read
	case json:
		return (&jsonScan{each: 2, found: &o.N}).read
	case protobuf && o.Verb == "watch":
		return (&frameScan{found: &o.N}).read
	case protobuf:
		return (&listScan{found: &o.N}).read
	}
	return func([]byte) {}
}

// jsonScan counts the JSON objects that begin at one depth: 0 is those of a
// stream, 2 the elements of the outermost object's items.
type jsonScan struct {
	each  int
	found *int64

	depth             int
	in, escaped, over bool   // in a string; over it is more than a name that matters
	name              []byte // the last string of the outermost object
	items             bool   // what begins at depth 2 is one of items
}

func (s *jsonScan) read(p []byte) {
	for _, c := range p {
		if s.in {
			s.inString(c)
			continue
		}
		switch c {
		case '"':
			s.in, s.over, s.name = true, s.depth != 1, s.name[:0]
		case '{', '[':
			s.open(c)
		case '}', ']':
			s.depth--
			s.items = s.items && s.depth > 1
		}
	}
}

func (s *jsonScan) inString(c byte) {
	switch {
	case s.escaped:
		s.escaped = false
	case c == '\\':
		s.escaped, s.over = true, true
	case c == '"':
		s.in = false
	case !s.over && len(s.name) < 8:
		s.name = append(s.name, c)
	}
}

func (s *jsonScan) open(c byte) {
	if c == '{' && s.depth == s.each && (s.each == 0 || s.items) {
		*s.found++
	}
	if c == '[' && s.depth == 1 {
		s.items = string(s.name) == "items"
	}
	s.depth++
}

// frameScan counts the frames of a protobuf watch, each of which is an event and
// has its length before it, in four bytes.
type frameScan struct {
	found *int64

	skip   uint32
	length [4]byte
	got    int
}

func (s *frameScan) read(p []byte) {
	for len(p) > 0 {
		if s.skip > 0 {
			n := min(len(p), int(s.skip))
			p, s.skip = p[n:], s.skip-uint32(n)
			continue
		}
		s.length[s.got] = p[0]
		p = p[1:]
		if s.got++; s.got == len(s.length) {
			s.got = 0
			*s.found++
			s.skip = uint32(s.length[0])<<24 | uint32(s.length[1])<<16 | uint32(s.length[2])<<8 | uint32(s.length[3])
		}
	}
}

// listScan counts the items of a list in protobuf: field 2 of what is in field 2
// of the envelope that begins with four bytes of its own.
type listScan struct {
	found *int64

	magic  int
	inside bool // in the list itself
	skip   uint64
	tag    uint64 // of the field whose length is read; 0 while the tag is
	varint uint64
	shift  uint
	broken bool
}

var magic = []byte("k8s\x00")

func (s *listScan) read(p []byte) {
	for len(p) > 0 && !s.broken {
		switch {
		case s.magic < len(magic):
			s.broken = !bytes.HasPrefix(magic[s.magic:], p[:1])
			s.magic++
			p = p[1:]
		case s.skip > 0:
			n := min(uint64(len(p)), s.skip)
			p, s.skip = p[n:], s.skip-n
		default:
			s.number(p[0])
			p = p[1:]
		}
	}
}

// number reads a byte of a tag or of a length.
func (s *listScan) number(c byte) {
	s.varint |= uint64(c&0x7f) << s.shift
	if s.shift += 7; s.shift > 63 {
		s.broken = true
		return
	}
	if c&0x80 != 0 {
		return
	}
	v := s.varint
	s.varint, s.shift = 0, 0
	if s.tag == 0 {
		s.tag = v
		s.broken = v&7 != 2 // all that comes before and between items has a length
		return
	}
	field := s.tag >> 3
	s.tag = 0
	switch {
	case !s.inside && field == 2:
		s.inside = true
	case s.inside && field == 2:
		*s.found++
		s.skip = v
	default:
		s.skip = v
	}
}
