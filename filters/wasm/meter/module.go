package meter

import "errors"

// module is one that is rewritten. Its functions are numbered anew: behind those
// that it imports comes the one that asks, and behind its own come refuel, which
// has it ask, and those that call functions of WASI in place of whoever called them.
type module struct {
	sections [sections][]byte
	names    []byte

	types     []uint32          // how many parameters they have
	imported  []uint32          // types of the functions that are imported
	wasi      []uint32          // of those, the numbers of WASI's
	asking    map[uint32]uint32 // which of wasi has such a number
	functions []uint32          // types of its own
	globals   uint32            // how many there are; the next one is the fuel
	most      int               // how long it may become, in bytes
}

// Limits of what is done for each of a module's elements: without them a small one
// would become a huge one.
const (
	maxValues = 1000 // as browsers have it
	maxWASI   = 64   // WASI has fewer functions
)

var (
	errIndex  = errors.New("a number of a function, a type or a global is that of none")
	errType   = errors.New("a type is none that is supported")
	errKind   = errors.New("an import, export or segment is of no kind that is supported")
	errTables = errors.New("its tables have more than a million elements")
	errImport = errors.New("it imports " + Module + ", which is not for it")
	errValues = errors.New("a function has more than 1000 parameters or results")
	errWASI   = errors.New("it imports more than 64 functions from " + wasi + ", which has fewer: import each once")
	errLarge  = errors.New("it has too many loops or small functions for its size: metered, it would become more than four times as large")
)

// maxOf is how long a module of so many bytes may become.
func maxOf(bytes int) int { return 4*bytes + 1<<20 }

// fits refuses what has become too long.
func (m *module) fits(r *reader, out []byte) {
	if len(out) > m.most {
		r.fail(errLarge)
	}
}

// ask, refuel and fuel are the numbers of what is added.
func (m *module) ask() uint32    { return uint32(len(m.imported)) }
func (m *module) refuel() uint32 { return m.ask() + 1 + uint32(len(m.functions)) }
func (m *module) fuel() uint32   { return m.globals }

// function is the new number of a function.
func (m *module) function(r *reader, n uint32) uint32 {
	imports := uint32(len(m.imported))
	if n >= imports+uint32(len(m.functions)) {
		r.fail(errIndex)
		return 0
	}
	if n >= imports {
		return n + 1
	}
	if i, ok := m.asking[n]; ok {
		return m.refuel() + 1 + i
	}
	return n
}

// copied is a section, of which is read by element what is there, with more elements
// behind them.
func copied(r *reader, more uint32, element func(out []byte) []byte) (out []byte) {
	n := uint32(0)
	if r.b != nil {
		n = r.u32()
	}
	if uint64(n) > uint64(len(r.b)) {
		r.fail(errEnd)
		return nil
	}
	out = u32(nil, n+more)
	for ; n > 0 && r.err == nil; n-- {
		out = element(out)
	}
	return out
}

func isValue(t byte) bool { return t >= 0x7b && t <= 0x7f || isReference(t) }

func isReference(t byte) bool { return t == 0x70 || t == 0x6f }

func (r *reader) values() (n uint32) {
	r.each(func() {
		n++
		if !isValue(r.byte()) {
			r.fail(errType)
		}
		if n > maxValues {
			r.fail(errValues)
		}
	})
	return n
}

func (m *module) rewriteTypes(r *reader) []byte {
	out := copied(r, 2, func(out []byte) []byte {
		start := r.at
		if r.byte() != 0x60 {
			r.fail(errType)
		}
		m.types = append(m.types, r.values())
		r.values()
		return append(out, r.b[start:r.at]...)
	})
	return append(out, 0x60, 0, 1, 0x7f, 0x60, 0, 0) // of ask, and of refuel
}

// kind reads the type of a function.
func (m *module) kind(r *reader) uint32 {
	t := r.u32()
	if t >= uint32(len(m.types)) {
		r.fail(errIndex)
	}
	return t
}

func (m *module) rewriteImports(r *reader) []byte {
	out := copied(r, 1, func(out []byte) []byte {
		start := r.at
		from := r.name()
		r.name()
		switch r.byte() {
		case 0:
			if from == Module {
				r.fail(errImport)
			}
			if from == wasi {
				m.wraps(r, uint32(len(m.imported)))
			}
			m.imported = append(m.imported, m.kind(r))
		case 1:
			r.reference()
			r.limits()
		case 2:
			r.limits()
		case 3:
			m.globals++
			r.take(2)
		default:
			r.fail(errKind)
		}
		return append(out, r.b[start:r.at]...)
	})
	out = append(text(text(out, Module), Ask), 0)
	return u32(out, uint32(len(m.types)))
}

// wraps has a function of WASI's called by one that asks.
func (m *module) wraps(r *reader, function uint32) {
	if len(m.wasi) == maxWASI {
		r.fail(errWASI)
		return
	}
	m.asking[function] = uint32(len(m.wasi))
	m.wasi = append(m.wasi, function)
}

func (r *reader) reference() {
	if !isReference(r.byte()) {
		r.fail(errType)
	}
}

// limits reads how large a memory or a table may be.
func (r *reader) limits() {
	switch r.byte() {
	case 0:
		r.u32()
	case 1:
		r.u32()
		r.u32()
	default:
		r.fail(errKind)
	}
}

// maxElements bounds the tables of a module together: they are no part of its memory.
const maxElements = 1 << 20

func rewriteTables(r *reader) []byte {
	room := maxElements / max(1, (&reader{b: r.b}).u32())
	return copied(r, 0, func(out []byte) []byte {
		out = append(out, r.byte())
		if !isReference(out[len(out)-1]) {
			r.fail(errType)
		}
		kind := r.byte()
		least, most := r.u32(), room
		if kind == 1 {
			most = r.u32()
		}
		switch {
		case kind > 1:
			r.fail(errKind)
		case least > room:
			r.fail(errTables)
		case most < least:
			r.fail(errKind)
		}
		return u32(u32(append(out, 1), least), min(most, room))
	})
}

func (m *module) rewriteFunctions(r *reader) []byte {
	out := copied(r, 1+uint32(len(m.wasi)), func(out []byte) []byte {
		m.functions = append(m.functions, m.kind(r))
		return u32(out, m.functions[len(m.functions)-1])
	})
	out = u32(out, uint32(len(m.types)+1))
	for _, n := range m.wasi {
		out = u32(out, m.imported[n])
	}
	return out
}

func (m *module) rewriteGlobals(r *reader) []byte {
	if r.b != nil { // they may not look at the fuel
		m.globals += (&reader{b: r.b}).u32()
	}
	out := copied(r, 1, func(out []byte) []byte {
		return m.constant(r, append(out, r.take(2)...))
	})
	return append(out, 0x7f, 1, 0x41, 0, 0x0b) // an i32 that changes, and begins as 0
}

// constant copies an expression of which the value does not change.
func (m *module) constant(r *reader, out []byte) []byte {
	e := &expression{module: m, reader: r, out: out}
	e.run()
	return e.out
}

func (m *module) rewriteExports(r *reader) []byte {
	return copied(r, 0, func(out []byte) []byte {
		start := r.at
		r.name()
		kind := r.byte()
		out = append(out, r.b[start:r.at]...)
		n := r.u32()
		switch {
		case kind == 0:
			n = m.function(r, n)
		case kind > 3:
			r.fail(errKind)
		case kind == 3 && n >= m.globals:
			r.fail(errIndex)
		}
		return u32(out, n)
	})
}

// rewriteElements rewrites what tables hold. A segment begins with what it is: bit 0
// says that it is in no table at first, or with bit 1 in none ever; else bit 1 says that
// the table's number follows. With bit 2 it holds expressions, and not numbers.
func (m *module) rewriteElements(r *reader) []byte {
	return copied(r, 0, func(out []byte) []byte {
		what := r.u32()
		if what > 7 {
			r.fail(errKind)
		}
		out = u32(out, what)
		if what&1 == 0 {
			if what&2 != 0 {
				out = u32(out, r.u32())
			}
			out = m.constant(r, out)
		}
		if what&3 != 0 {
			t := r.byte()
			if what&4 == 0 && t != 0 || what&4 != 0 && !isReference(t) {
				r.fail(errType)
			}
			out = append(out, t)
		}
		n := r.u32()
		out = u32(out, n)
		for ; n > 0 && r.err == nil; n-- {
			if what&4 != 0 {
				out = m.constant(r, out)
			} else {
				out = u32(out, m.function(r, r.u32()))
			}
		}
		return out
	})
}

// named is the custom section that names functions, if there is one that can be
// read: who looks into a trap reads them.
func (m *module) named() []byte {
	for r := (&reader{b: m.names}); !r.done(); {
		const functionNames = 1
		id := r.byte()
		inner := &reader{b: r.take(r.u32())}
		if id != functionNames {
			continue
		}
		names := copied(inner, 0, func(out []byte) []byte {
			n := inner.u32()
			if n >= m.ask() {
				n++
			}
			return text(u32(out, n), inner.name())
		})
		if inner.err != nil || !inner.done() {
			return nil
		}
		content := append(u32(append(text(nil, "name"), functionNames), uint32(len(names))), names...)
		return append(u32([]byte{custom}, uint32(len(content))), content...)
	}
	return nil
}
