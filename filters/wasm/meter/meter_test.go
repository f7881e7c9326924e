package meter

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
)

// made is a module of these sections, each of which begins with its number.
func made(all ...[]byte) []byte {
	out := []byte("\x00asm\x01\x00\x00\x00")
	for _, s := range all {
		out = append(u32(append(out, s[0]), uint32(len(s)-1)), s[1:]...)
	}
	return out
}

// function is a module with one function, of this body.
func functionOf(body ...byte) []byte {
	return made(
		[]byte{typesSection, 1, 0x60, 0, 0}, []byte{functionSection, 1, 0},
		sized([]byte{codeSection, 1}, body))
}

func imports(module string) []byte {
	return append(text(text([]byte{importSection, 1}, module), "f"), 0, 0)
}

// wide is a type with so many parameters and results.
func wide(parameters, results int) []byte {
	out := u32([]byte{typesSection, 1, 0x60}, uint32(parameters))
	out = u32(append(out, slices.Repeat([]byte{0x7f}, parameters)...), uint32(results))
	return append(out, slices.Repeat([]byte{0x7f}, results)...)
}

// manyImports is the import of one function, so often.
func manyImports(n int) []byte {
	return append(u32([]byte{importSection}, uint32(n)), bytes.Repeat(imports(wasi)[2:], n)...)
}

// manyFunctions is a module with so many functions, all of this body.
func manyFunctions(n int, body ...byte) []byte {
	all := slices.Concat(u32([]byte{codeSection}, uint32(n)), bytes.Repeat(sized(nil, body), n))
	return made(
		[]byte{typesSection, 1, 0x60, 0, 0}, append(u32([]byte{functionSection}, uint32(n)), make([]byte, n)...), all)
}

// TestSmallModulesBecomeNoHugeOnes has as much as there may be of what is more when it
// is metered.
func TestSmallModulesBecomeNoHugeOnes(t *testing.T) {
	for name, code := range map[string][]byte{
		"nothing": made(),
		"wide":    made(wide(maxValues, maxValues), manyImports(maxWASI)),
		"small":   manyFunctions(10000, 0, opEnd),
		"common":  manyFunctions(50000, append(append([]byte{0}, bytes.Repeat([]byte{opI32Const, 1, 0x1a}, 8)...), opEnd)...),
	} {
		metered, err := Rewrite(code)
		if err != nil || len(metered) > maxOf(len(code)) {
			t.Errorf("%s: %d bytes become %d, %v", name, len(code), len(metered), err)
		}
	}
}

func TestWhatCannotBeMeteredIsRefused(t *testing.T) {
	types := []byte{typesSection, 1, 0x60, 0, 0}
	tests := map[string]struct {
		code []byte
		want error
	}{
		"text":             {[]byte("hello, world"), errMagic},
		"cut":              {functionOf(0, opEnd)[:20], errEnd},
		"order":            {made([]byte{functionSection, 0}, []byte{typesSection, 0}), errOrder},
		"twice":            {made([]byte{typesSection, 0}, []byte{typesSection, 0}), errOrder},
		"trailing":         {made([]byte{typesSection, 0, 0}), errTrailing},
		"locals":           {functionOf(1, 0xff, 0xff, 0xff, 0xff, 0x0f, 0x7f, opEnd), errLocals},
		"tables":           {made([]byte{tableSection, 1, 0x70, 0, 0x81, 0x80, 0x40}), errTables},
		"many-tables":      {made([]byte{tableSection, 2, 0x70, 0, 0x81, 0x80, 0x20, 0x70, 0, 0}), errTables},
		"parameters":       {made(wide(maxValues+1, 0)), errValues},
		"results":          {made(wide(0, maxValues+1)), errValues},
		"wide-imports":     {made(wide(30000, 0), manyImports(1100)), errValues},
		"much-of-wasi":     {made(types, manyImports(maxWASI+1)), errWASI},
		"small-functions":  {manyFunctions(400000, 0, opEnd), errLarge},
		"small-loops":      {functionOf(slices.Concat([]byte{0}, bytes.Repeat([]byte{opLoop, nothing, opEnd}, 400000), []byte{opEnd})...), errLarge},
		"asks-itself":      {made(types, imports(Module)), errImport},
		"calls-refuel":     {functionOf(0, opCall, 1, opEnd), errIndex},
		"reads-fuel":       {functionOf(0, opGlobalGet, 0, 0x1a, opEnd), errIndex},
		"fills-up":         {functionOf(0, opI32Const, 9, opGlobalSet, 0, opEnd), errIndex},
		"exports-fuel":     {made([]byte{exportSection, 1, 1, 'f', 3, 0}), errIndex},
		"exports-refuel":   {made([]byte{exportSection, 1, 1, 'f', 0, 0}), errIndex},
		"begins-with-it":   {made([]byte{startSection, 0}), errIndex},
		"holds-it":         {made([]byte{elementSection, 1, 0, opI32Const, 0, opEnd, 1, 0}), errIndex},
		"refers-to-it":     {functionOf(0, 0xd2, 1, 0x1a, opEnd), errIndex},
		"atomics":          {functionOf(0, 0xfe, 3, 0, opEnd), errInstruction},
		"tail-calls":       {functionOf(0, 0x12, 0, opEnd), errInstruction},
		"exceptions":       {functionOf(0, 0x06, 0x40, opEnd, opEnd), errInstruction},
		"long-name":        {functionOf(0, 0xfd, 0x8c, 0, opEnd), errInstruction},
		"unknown-name":     {functionOf(0, 0xfc, 18, opEnd), errInstruction},
		"typed-references": {functionOf(0, 0x02, 0x63, 0x70, opEnd, opEnd), errType},
		"long-type":        {functionOf(0, 0x02, 0xc0, 0x7f, opEnd, opEnd), errType},
		"long-integer":     {functionOf(0, 0x0c, 0x80, 0x80, 0x80, 0x80, 0x10, opEnd), errInteger},
		"longer-integer":   {functionOf(0, 0x0c, 0x80, 0x80, 0x80, 0x80, 0x80, 0, opEnd), errInteger},
		"no-body":          {made(types, []byte{functionSection, 1, 0}), errBodies},
		"more-bodies":      {made(types, []byte{codeSection, 1, 2, 0, opEnd}), errBodies},
		"behind-the-end":   {functionOf(0, opEnd, opEnd), errTrailing},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := Rewrite(tt.code); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

// TestWhatRunsLongAsks counts how often.
func TestWhatRunsLongAsks(t *testing.T) {
	memory := []byte{memorySection, 1, 0, 16}
	table := []byte{tableSection, 1, 0x6f, 0, 0}
	types := []byte{typesSection, 2, 0x60, 0, 0, 0x60, 1, 0x7f, 0}
	run := []byte{exportSection, 1, 3, 'r', 'u', 'n', 0, 0}
	of := func(body ...byte) []byte {
		code := append([]byte{codeSection, 1, byte(len(body) + 1), 0}, body...)
		return made(types, []byte{functionSection, 1, 1}, table, memory, run, code)
	}
	again := []byte{opLocalGet, 0, opI32Const, 1, opI32Sub, opLocalTee, 0, 0x0d, 0, opEnd, opEnd} // the loop, as often as it is said
	tests := map[string]struct {
		code  []byte
		n     uint64
		least int // how often it asks, with fuel for 4 units
	}{
		"once":    {of(opEnd), 0, 1},
		"loops":   {of(append([]byte{opLoop, nothing}, again...)...), 1000, 200},
		"calls":   {of(append([]byte{opLocalGet, 0, opIf, nothing, opLocalGet, 0, opI32Const, 1, opI32Sub, opCall, 0, opEnd}, opEnd)...), 1000, 200},
		"fills":   {of(opI32Const, 0, opI32Const, 0, opLocalGet, 0, 0xfc, 11, 0, opEnd), 1 << 20, 2},
		"copies":  {of(opI32Const, 0, opI32Const, 0, opLocalGet, 0, 0xfc, 10, 0, 0, opEnd), 1 << 20, 2},
		"grows":   {of(0xd0, 0x6f, opLocalGet, 0, 0xfc, 15, 0, 0x1a, opEnd), 1000, 2},
		"long":    {of(append(slices.Repeat([]byte{opLocalGet, 0, 0x1a}, 20), opEnd)...), 0, 1},
		"unended": {of(append([]byte{opLoop, nothing, opLoop, nothing}, append(again[:10], opEnd, opEnd)...)...), 1000, 200},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, Rewrite)
			m, err := w.begin(tt.code)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := m.ExportedFunction("run").Call(t.Context(), tt.n); err != nil {
				t.Fatal(err)
			}
			if w.asked < tt.least {
				t.Errorf("it asked %d times", w.asked)
			}
		})
	}
}

// TestFunctionsKeepTheirNames has them in what is said of a trap.
func TestFunctionsKeepTheirNames(t *testing.T) {
	code := made(
		[]byte{typesSection, 1, 0x60, 0, 0}, []byte{functionSection, 1, 0}, []byte{exportSection, 1, 3, 'r', 'u', 'n', 0, 0},
		[]byte{codeSection, 1, 3, 0, 0, opEnd}, append(text([]byte{custom}, "name"), 1, 7, 1, 0, 4, 'f', 'a', 'l', 'l'))
	m, err := newWorld(t, Rewrite).begin(code)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.ExportedFunction("run").Call(t.Context()); err == nil || !strings.Contains(err.Error(), ".fall()") {
		t.Errorf("got %v", err)
	}
}
