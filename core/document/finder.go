package document

import (
	"strings"
	"unsafe"
)

// A Finder gets values of one document after the other, and remembers where in the
// last one it has found what they are in: who asks for three labels reads what lies
// before them once. The zero value works. It is used by one goroutine at a time.
type Finder struct {
	of    []byte
	known [8]place
	count int
}

// place is where the value at a pointer begins. Pointers are copied, as those that
// are asked with may be gone by the next time.
type place struct {
	pointer [48]byte
	length  int
	at      int
}

func (p *place) is(pointer string) bool {
	return p.length <= len(pointer) && (p.length == len(pointer) || pointer[p.length] == '/') && string(p.pointer[:p.length]) == pointer[:p.length]
}

// Get is the package's Get.
func (f *Finder) Get(b []byte, pointer string) ([]byte, error) {
	if unsafe.SliceData(b) != unsafe.SliceData(f.of) || len(b) != len(f.of) {
		f.of, f.count = b, 0
	}
	known, at := f.nearest(b, pointer)
	for known < len(pointer) {
		if pointer[known] != '/' {
			return nil, errNoPointer
		}
		token := pointer[known+1:]
		if i := strings.IndexByte(token, '/'); i >= 0 {
			token = token[:i]
		}
		if _, at = child(b, at, token); at < 0 {
			return nil, ErrNotThere
		}
		known += 1 + len(token)
		if known < len(pointer) {
			f.remember(pointer[:known], at)
		}
	}
	end := skipValue(b, at)
	if end < 0 {
		return nil, errNoDocument
	}
	return b[at:end], nil
}

// nearest returns how much of a pointer is known, and where that leads.
func (f *Finder) nearest(b []byte, pointer string) (known, at int) {
	at = skipSpace(b, 0)
	for i := range f.known[:f.count] {
		if p := &f.known[i]; p.length > known && p.is(pointer) {
			known, at = p.length, p.at
		}
	}
	return known, at
}

func (f *Finder) remember(pointer string, at int) {
	if f.count == len(f.known) || len(pointer) > len(place{}.pointer) {
		return
	}
	p := &f.known[f.count]
	f.count++
	p.length, p.at = copy(p.pointer[:], pointer), at
}

// Forget lets go of the document.
func (f *Finder) Forget() { f.of, f.count = nil, 0 }
