package wire

import (
	"bytes"
	"fmt"
	"io"
)

// A Scanner reads one JSON document as it arrives: arrays that are long element by
// element, all else whole.
type Scanner struct {
	r   io.Reader
	buf []byte // what has been read
	at  int    // of it, what has been taken
	end error  // why there is no more
}

// scanAhead is how much is read at once, in bytes. What does not fit doubles it.
const scanAhead = 128 << 10

// NewScanner reads from r.
func NewScanner(r io.Reader) *Scanner { return &Scanner{r: r, buf: make([]byte, 0, scanAhead)} }

// Next returns the first byte of the next token without taking it.
func (s *Scanner) Next() (byte, error) {
	for {
		if s.at = skipSpace(s.buf, s.at); s.at < len(s.buf) {
			return s.buf[s.at], nil
		}
		if err := s.fill(); err != nil {
			return 0, err
		}
	}
}

// Take takes the delimiter c.
func (s *Scanner) Take(c byte) error {
	got, err := s.Next()
	if err != nil {
		return err
	}
	if got != c {
		return fmt.Errorf("%q for %q: %w", got, c, ErrMalformed)
	}
	s.at++
	return nil
}

// More reports whether another member or element comes before the delimiter end. It
// takes the comma between two, or end. first says that none has come yet.
func (s *Scanner) More(end byte, first bool) (bool, error) {
	c, err := s.Next()
	switch {
	case err != nil:
		return false, err
	case c == end:
		s.at++
		return false, nil
	case first:
		return true, nil
	}
	return true, s.Take(',')
}

// Name takes the name of a member and the colon behind it.
func (s *Scanner) Name() (string, error) {
	raw, err := s.Value()
	if err != nil || raw[0] != '"' {
		return "", malformed("name", err)
	}
	name := text(raw)
	return name, s.Take(':')
}

// Value takes the next value. It is valid until the next call.
func (s *Scanner) Value() ([]byte, error) {
	if _, err := s.Next(); err != nil {
		return nil, err
	}
	for {
		// A number may go on where what has been read ends.
		end := skipValue(s.buf, s.at)
		if end >= 0 && (end < len(s.buf) || s.end != nil || bytes.IndexByte([]byte(`"}]`), s.buf[end-1]) >= 0) {
			raw := s.buf[s.at:end:end]
			s.at = end
			return raw, nil
		}
		if len(s.buf)-s.at > MaxObject {
			return nil, ErrTooLarge
		}
		if err := s.fill(); err != nil {
			return nil, err
		}
	}
}

// fill reads more. What has been taken is gone then.
func (s *Scanner) fill() error {
	if s.end != nil {
		return malformed("document", s.end)
	}
	if s.at > 0 {
		s.buf = s.buf[:copy(s.buf, s.buf[s.at:])]
		s.at = 0
	}
	if len(s.buf) == cap(s.buf) {
		s.buf = append(make([]byte, 0, 2*cap(s.buf)), s.buf...)
	}
	n, err := s.r.Read(s.buf[len(s.buf):cap(s.buf)])
	s.buf = s.buf[:len(s.buf)+n]
	s.end = err
	return nil
}
