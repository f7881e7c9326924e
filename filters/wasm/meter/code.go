package meter

import "errors"

var (
	errInstruction = errors.New("there is an instruction that is not supported")
	errLocals      = errors.New("a function has more than 50000 local variables")
	errBodies      = errors.New("there are not as many bodies as functions")
)

// maxLocals bounds variables of a function, as browsers do. wazero makes room for
// them before it looks at the function.
const maxLocals = 50000

// Instructions that are written, or looked at.
const (
	opLoop      = 0x03
	opIf        = 0x04
	opEnd       = 0x0b
	opCall      = 0x10
	opLocalGet  = 0x20
	opLocalTee  = 0x22
	opGlobalGet = 0x23
	opGlobalSet = 0x24
	opI32Const  = 0x41
	opI32LtS    = 0x48
	opI32Sub    = 0x6b
	opI32ShrU   = 0x76
	nothing     = 0x40 // the type of a block
)

func (m *module) rewriteCode(r *reader) []byte {
	bodies := 0
	out := copied(r, 1+uint32(len(m.wasi)), func(out []byte) []byte {
		inner := &reader{b: r.take(r.u32())}
		if bodies == len(m.functions) {
			r.fail(errBodies)
			return out
		}
		body := m.body(inner, m.types[m.functions[bodies]])
		if inner.err != nil {
			r.refuse("function %d, at its byte %d: %w", len(m.imported)+bodies, inner.at, inner.err)
		}
		bodies++
		out = sized(out, body)
		m.fits(r, out)
		return out
	})
	if r.err == nil && bodies != len(m.functions) {
		r.fail(errBodies)
	}
	if r.err != nil {
		return nil
	}
	out = sized(out, m.refuels())
	for _, n := range m.wasi {
		out = sized(out, m.asks(n))
	}
	return out
}

func sized(out, body []byte) []byte { return append(u32(out, uint32(len(body))), body...) }

// refuels is the body of refuel.
func (m *module) refuels() []byte {
	out := u32([]byte{0, opCall}, m.ask())
	return append(u32(append(out, opGlobalSet), m.fuel()), opEnd)
}

// asks is the body of a function that asks, and then calls one of WASI's.
func (m *module) asks(function uint32) []byte {
	out := u32([]byte{0, opCall}, m.refuel())
	for i := range m.types[m.imported[function]] {
		out = u32(append(out, opLocalGet), i)
	}
	return append(u32(append(out, opCall), function), opEnd)
}

// body rewrites one of a function that has so many parameters.
func (m *module) body(r *reader, parameters uint32) []byte {
	groups, locals, start := uint32(0), uint64(parameters), 0
	count := r.u32()
	start = r.at
	for ; groups < count && r.err == nil; groups++ {
		if locals += uint64(r.u32()); locals > maxLocals {
			r.fail(errLocals)
		}
		if !isValue(r.byte()) {
			r.fail(errType)
		}
	}
	declared := r.b[start:r.at]
	e := &expression{module: m, reader: r, metered: true, spare: uint32(locals)}
	e.out = make([]byte, 0, 2*len(r.b))
	e.use(uint32(1 + len(r.b)/unit))
	e.run()
	if r.err == nil && !r.done() {
		r.fail(errTrailing)
	}
	if !e.spared {
		return append(append(u32(nil, groups), declared...), e.out...)
	}
	out := append(u32(nil, groups+1), declared...)
	return append(append(out, 1, 0x7f), e.out...)
}

// expression is instructions that are copied, and have fuel used up on the way if
// they are metered.
type expression struct {
	*module
	*reader
	out     []byte
	metered bool
	open    []block
	spare   uint32 // the number of a variable of ours, an i32
	spared  bool   // it is used
}

// block is one that has not ended. A loop is charged for all of its code, each time
// that it begins anew; how much that is is known at its end.
type block struct {
	loop bool
	from int // where it begins
	cost int // where in what is written its cost stands
}

// use has fuel used up, and returns where the cost stands.
func (e *expression) use(cost uint32) (at int) {
	e.out = u32(append(e.out, opGlobalGet), e.fuel())
	e.out = append(e.out, opI32Const)
	at = len(e.out)
	e.out = append(e.out, 0, 0, 0, 0, 0)
	e.put(at, cost)
	e.burn()
	return at
}

// put writes an integer of at most 28 bits in five bytes.
func (e *expression) put(at int, n uint32) {
	for i := range 4 {
		e.out[at+i] = byte(n>>(7*i))&0x7f | 0x80
	}
	e.out[at+4] = 0
}

// burn takes what is on the stack from the fuel below it, and asks if there is too
// little.
func (e *expression) burn() {
	e.out = u32(append(e.out, opI32Sub, opGlobalSet), e.fuel())
	e.out = u32(append(e.out, opGlobalGet), e.fuel())
	e.out = append(e.out, opI32Const, 0, opI32LtS, opIf, nothing, opCall)
	e.out = append(u32(e.out, e.refuel()), opEnd)
	e.fits(e.reader, e.out)
}

// useMany has fuel used up for as many things as the stack says, which it leaves as
// it is: a unit has 1 << shift of them.
func (e *expression) useMany(shift byte) {
	e.spared = true
	e.out = u32(append(e.out, opLocalTee), e.spare)
	e.out = u32(append(e.out, opGlobalGet), e.fuel())
	e.out = u32(append(e.out, opLocalGet), e.spare)
	e.out = append(e.out, opI32Const, shift, opI32ShrU)
	e.burn()
}

// run copies all instructions up to the end of the outermost block.
func (e *expression) run() {
	for depth := 0; depth >= 0 && e.err == nil; {
		start := e.at
		op := e.byte()
		switch shape := shapes[op]; shape {
		case unknown:
			e.refuse("%#x: %w", op, errInstruction)
		case begins:
			depth++
			e.begin(op, start)
		case ends:
			depth--
			e.end()
		case function:
			e.out = u32(append(e.out, op), e.module.function(e.reader, e.u32()))
		case prefix:
			e.misc(start)
		default:
			e.immediates(shape)
			e.out = append(e.out, e.b[start:e.at]...)
		}
	}
}

func (e *expression) begin(op byte, start int) {
	e.blockType()
	e.out = append(e.out, e.b[start:e.at]...)
	b := block{loop: op == opLoop && e.metered, from: start}
	if b.loop {
		b.cost = e.use(0)
	}
	e.open = append(e.open, b)
}

func (e *expression) end() {
	e.out = append(e.out, opEnd)
	if len(e.open) == 0 {
		return
	}
	b := e.open[len(e.open)-1]
	e.open = e.open[:len(e.open)-1]
	if b.loop {
		e.put(b.cost, uint32(1+(e.at-b.from)/unit))
	}
}

// blockType is the number of a type, or a negative one of one byte.
func (e *expression) blockType() {
	b := e.integer(5)
	if len(b) == 0 {
		return
	}
	if last := b[len(b)-1]; last&0x40 != 0 && (len(b) > 1 || b[0] != nothing && !isValue(b[0])) {
		e.fail(errType)
	}
}
