package meter

// A shape is how an instruction goes on behind its first byte.
type shape byte

const (
	unknown   shape = iota
	plain           // by nothing
	begins          // by the type of a block, which begins
	ends            // by nothing; a block ends
	function        // by the number of a function
	prefix          // by more of its name
	number          // by one unsigned integer
	numbers         // by two
	global          // by the number of a global
	branches        // by a list of unsigned integers, and one more
	zero            // by a zero
	signed32        // by an integer
	signed64        // by a long one
	four            // by four bytes
	eight           // by eight
	chosen          // by one type
	reference       // by the type of a reference
	vector          // by more of its name
)

// shapes are those of all instructions of WebAssembly 2.0.
var shapes = func() (s [256]shape) {
	set := func(first, last int, is shape) {
		for op := first; op <= last; op++ {
			s[op] = is
		}
	}
	set(0x00, 0x01, plain)  // unreachable, nop
	set(0x02, 0x04, begins) // block, loop, if
	set(0x05, 0x05, plain)  // else
	set(opEnd, opEnd, ends) //
	set(0x0c, 0x0d, number) // br, br_if
	set(0x0e, 0x0e, branches)
	set(0x0f, 0x0f, plain) // return
	set(opCall, opCall, function)
	set(0x11, 0x11, numbers) // call_indirect
	set(0x1a, 0x1b, plain)   // drop, select
	set(0x1c, 0x1c, chosen)
	set(0x20, 0x22, number) // locals
	set(0x23, 0x24, global)
	set(0x25, 0x26, number)  // tables
	set(0x28, 0x3e, numbers) // loads and stores
	set(0x3f, 0x40, zero)    // size and growth of the memory
	set(0x41, 0x41, signed32)
	set(0x42, 0x42, signed64)
	set(0x43, 0x43, four)
	set(0x44, 0x44, eight)
	set(0x45, 0xc4, plain) // arithmetic
	set(0xd0, 0xd0, reference)
	set(0xd1, 0xd1, plain) // ref.is_null
	set(0xd2, 0xd2, function)
	set(0xfc, 0xfc, prefix)
	set(0xfd, 0xfd, vector)
	return s
}()

// immediates reads what stands behind the first byte.
func (e *expression) immediates(is shape) {
	switch is {
	case number:
		e.u32()
	case numbers:
		e.u32()
		e.u32()
	case global:
		if e.u32() >= e.globals {
			e.fail(errIndex)
		}
	case branches:
		e.each(func() { e.u32() })
		e.u32()
	case zero:
		if e.byte() != 0 {
			e.fail(errInstruction)
		}
	case signed32:
		e.integer(5)
	case signed64:
		e.integer(10)
	case four:
		e.take(4)
	case eight:
		e.take(8)
	case chosen:
		if e.byte() != 1 || !isValue(e.byte()) {
			e.fail(errType)
		}
	case reference:
		e.reader.reference()
	case vector:
		e.vector()
	}
}

// misc copies an instruction behind 0xfc. Those that write as much as they are told
// to are charged for it.
func (e *expression) misc(start int) {
	const bytes, references = 6, 3 // shifts: a unit is 64 of the ones, and 8 of the others
	op, many := e.u32(), byte(0)
	switch op {
	case 0, 1, 2, 3, 4, 5, 6, 7: // conversions
	case 8, 10: // memory.init, memory.copy
		e.u32()
		e.immediates(zero)
		many = bytes
	case 11: // memory.fill
		e.immediates(zero)
		many = bytes
	case 12, 14: // table.init, table.copy
		e.immediates(numbers)
		many = references
	case 15, 17: // table.grow, table.fill
		e.u32()
		many = references
	case 9, 13, 16: // data.drop, elem.drop, table.size
		e.u32()
	default:
		e.refuse("0xfc %#x: %w", op, errInstruction)
	}
	if many > 0 && e.metered {
		e.useMany(many)
	}
	e.out = append(e.out, e.b[start:e.at]...)
}

// vector reads an instruction behind 0xfd. wazero reads the second byte alone, and
// takes a third, which is 1, for one that does nothing.
func (e *expression) vector() {
	op := e.byte()
	switch {
	case op >= 0x80:
		if e.byte() != 1 {
			e.fail(errInstruction)
		}
	case op <= 0x0b, op == 0x5c, op == 0x5d: // loads and stores
		e.immediates(numbers)
	case op == 0x0c, op == 0x0d: // a constant, a shuffle
		e.take(16)
	case op >= 0x15 && op <= 0x22: // a lane
		e.byte()
	case op >= 0x54 && op <= 0x5b: // loads and stores of a lane
		e.immediates(numbers)
		e.byte()
	}
}
