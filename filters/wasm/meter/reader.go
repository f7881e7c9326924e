package meter

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unicode/utf8"
)

var (
	errEnd     = errors.New("it ends too early")
	errInteger = errors.New("an integer is too long")
	errName    = errors.New("a name is not UTF-8")
)

// reader reads the binary format. Once it has an error it reads zeros.
type reader struct {
	b   []byte
	at  int
	err error
}

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

func (r *reader) refuse(format string, a ...any) { r.fail(fmt.Errorf(format, a...)) }

func (r *reader) done() bool { return r.err != nil || r.at == len(r.b) }

func (r *reader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

// take reads n bytes, which it returns, or nil.
func (r *reader) take(n uint32) []byte {
	if r.err != nil || uint64(n) > uint64(len(r.b)-r.at) {
		r.fail(errEnd)
		return nil
	}
	r.at += int(n)
	return r.b[r.at-int(n) : r.at]
}

// u32 reads an unsigned integer of 32 bits. What WebAssembly does not allow is
// refused: wazero must find the same instructions as we do.
func (r *reader) u32() uint32 {
	b := r.integer(5)
	if len(b) == 5 && b[4] > 0x0f {
		r.fail(errInteger)
		return 0
	}
	n := uint32(0)
	for i, c := range b {
		n |= uint32(c&0x7f) << (7 * i)
	}
	return n
}

// integer reads the bytes of an integer in LEB128.
func (r *reader) integer(most int) []byte {
	start := r.at
	for range most {
		if r.byte() < 0x80 && r.err == nil {
			return r.b[start:r.at]
		}
	}
	r.fail(errInteger)
	return nil
}

// name reads a string.
func (r *reader) name() string {
	b := r.take(r.u32())
	if !utf8.Valid(b) {
		r.fail(errName)
	}
	return string(b)
}

// each reads a vector.
func (r *reader) each(element func()) {
	for n := r.u32(); n > 0 && r.err == nil; n-- {
		element()
	}
}

func u32(out []byte, n uint32) []byte { return binary.AppendUvarint(out, uint64(n)) }

func text(out []byte, s string) []byte { return append(u32(out, uint32(len(s))), s...) }
