// Package meter rewrites WebAssembly modules so that limits hold for them: what they
// become asks now and then whether it may go on.
package meter

import (
	"errors"
	"fmt"
)

// What a metered module imports besides: a function that it calls when its fuel
// is used up. It takes nothing and returns an i32, how much there is until it asks
// again; or it traps, and the module has ended. An instance begins without fuel.
const (
	Module = "portico.meter"
	Ask    = "ask"
)

// Tank is a good answer. One is used up for each [unit] bytes of code, or of memory
// that one instruction writes: it lasts for a tenth of a millisecond in a
// loop, and for some milliseconds in the slowest code that there is.
const Tank = 1 << 16

// unit is how many bytes of code, or of memory, one is used up for.
const unit = 64

// wasi is the module of functions that may take long, if they are asked to. Whoever
// calls one asks first.
const wasi = "wasi_snapshot_preview1"

var errMagic = errors.New("it is no WebAssembly module")

// Sections of a module, in their order but for the last.
const (
	custom = iota
	typesSection
	importSection
	functionSection
	tableSection
	memorySection
	globalSection
	exportSection
	startSection
	elementSection
	codeSection
	dataSection
	dataCountSection
	sections
)

// order is the one that sections stand in.
var order = []int{
	typesSection, importSection, functionSection, tableSection, memorySection, globalSection,
	exportSection, startSection, elementSection, dataCountSection, codeSection, dataSection,
}

// Rewrite returns a module that does what code does, and asks, and has tables of no more
// than a million elements. It refuses what it cannot read, and what would become more
// than four times as large, and a MiB; what it returns need not be valid. Of custom
// sections it keeps the names of functions.
func Rewrite(code []byte) ([]byte, error) {
	m := &module{asking: map[uint32]uint32{}, most: maxOf(len(code))}
	r := &reader{b: code}
	if string(r.take(8)) != "\x00asm\x01\x00\x00\x00" {
		return nil, errMagic
	}
	m.split(r)
	if r.err != nil {
		return nil, fmt.Errorf("read the module: %w", r.err)
	}
	out := append(make([]byte, 0, len(code)+len(code)/2), code[:8]...)
	for _, id := range order {
		r := &reader{b: m.sections[id]}
		section := m.rewrite(id, r)
		if r.err == nil && !r.done() {
			r.fail(errTrailing)
		}
		if r.err != nil {
			return nil, fmt.Errorf("read section %d of the module, at its byte %d: %w", id, r.at, r.err)
		}
		if section != nil {
			out = append(u32(append(out, byte(id)), uint32(len(section))), section...)
		}
	}
	if out = append(out, m.named()...); len(out) > m.most {
		return nil, fmt.Errorf("meter the module: %w", errLarge)
	}
	return out, nil
}

var (
	errTrailing = errors.New("there is more than is said")
	errOrder    = errors.New("sections are not in their order")
)

// split finds sections.
func (m *module) split(r *reader) {
	last := -1
	for !r.done() {
		id := int(r.byte())
		content := r.take(r.u32())
		if id == custom {
			inner := &reader{b: content}
			if inner.name() == "name" && inner.err == nil {
				m.names = inner.b[inner.at:]
			}
			r.fail(inner.err)
			continue
		}
		place := -1
		for i, one := range order {
			if one == id {
				place = i
			}
		}
		if place <= last {
			r.fail(errOrder)
			return
		}
		last, m.sections[id] = place, content
	}
}

// rewrite returns a section as it shall be, or nil if it is none.
func (m *module) rewrite(id int, r *reader) []byte {
	switch id {
	case typesSection:
		return m.rewriteTypes(r)
	case importSection:
		return m.rewriteImports(r)
	case functionSection:
		return m.rewriteFunctions(r)
	case globalSection:
		return m.rewriteGlobals(r)
	case codeSection:
		return m.rewriteCode(r)
	}
	if m.sections[id] == nil {
		return nil
	}
	switch id {
	case tableSection:
		return rewriteTables(r)
	case exportSection:
		return m.rewriteExports(r)
	case startSection:
		return u32(nil, m.function(r, r.u32()))
	case elementSection:
		return m.rewriteElements(r)
	}
	r.at = len(r.b)
	return r.b
}
