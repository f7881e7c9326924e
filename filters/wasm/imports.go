package wasm

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"time"
	"unsafe"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/portico-proxy/portico/core/body"
	"github.com/portico-proxy/portico/core/document"
	"github.com/portico-proxy/portico/plugins/abi"
)

const (
	i32 = api.ValueTypeI32
	i64 = api.ValueTypeI64
)

// maxKey bounds names and keys that guests hand in, in bytes.
const maxKey = 4096

// exchange is one call of a host function: the stack holds its parameters, and
// then its result.
type exchange struct {
	*call
	instance *instance
	memory   api.Memory
	stack    []uint64
}

// A hostFunction is what a guest can import.
type hostFunction struct {
	name   string
	params []api.ValueType
	result []api.ValueType
	do     func(x *exchange)
}

func types(n int) []api.ValueType {
	all := make([]api.ValueType, n)
	for i := range all {
		all[i] = i32
	}
	return all
}

// hostModule is portico.v1 for a class of modules. What a class may not do is
// not there: a guest that imports it is refused before it runs.
func hostModule(r wazero.Runtime, c class) wazero.HostModuleBuilder {
	return export(r.NewHostModuleBuilder(abi.Module), hostFunctions(c))
}

// export adds functions to a module.
func export(b wazero.HostModuleBuilder, functions []hostFunction) wazero.HostModuleBuilder {
	for _, f := range functions {
		b.NewFunctionBuilder().WithGoModuleFunction(f.bind(), f.params, f.result).Export(f.name)
	}
	return b
}

func hostFunctions(c class) []hostFunction {
	getter, status := []api.ValueType{i64}, []api.ValueType{i32}
	functions := []hostFunction{
		{abi.ConfigGet, types(4), getter, configGet},
		{abi.LogEnabled, types(1), status, logEnabled},
		{abi.Log, types(3), nil, log},
		{abi.Fail, types(2), nil, func(x *exchange) { x.failure = x.text(0, abi.MaxMessage) }},
		{abi.AttrGet, types(3), getter, attrGet},
		{abi.HeaderGet, types(4), getter, func(x *exchange) { x.named(x.facts.header) }},
		{abi.ParamGet, types(4), getter, func(x *exchange) { x.named(x.facts.param) }},
		{abi.Respond, types(6), nil, respond},
		{abi.Warn, types(2), nil, warn},
		{abi.EventType, nil, status, eventType},
		{abi.ObjectGet, types(4), getter, func(x *exchange) { x.objectGet(func(o *objects) []byte { return o.current }) }},
		{abi.ObjectPrevGet, types(4), getter, func(x *exchange) { x.objectGet(func(o *objects) []byte { return o.previous }) }},
		{abi.ObjectSet, types(4), status, objectSet},
		{abi.ObjectRemove, types(2), status, objectRemove},
		{abi.EndGet, types(1), getter, endGet},
	}
	if c.kv {
		functions = append(functions,
			hostFunction{abi.KVGet, types(2), getter, func(x *exchange) { x.stack[0] = uint64(x.instance.module.counters.get(x.text(0, maxKey))) }},
			hostFunction{abi.KVAdd, []api.ValueType{i32, i32, i64, i64}, getter, kvAdd})
	}
	if c.clock {
		functions = append(functions, hostFunction{abi.NowMillis, nil, getter, func(x *exchange) { x.stack[0] = uint64(time.Now().UnixMilli()) }})
	}
	if c.lookup {
		functions = append(functions, hostFunction{abi.Lookup, types(10), getter, lookup})
	}
	return functions
}

func (f hostFunction) bind() api.GoModuleFunc {
	return func(ctx context.Context, guest api.Module, stack []uint64) {
		i := ctx.Value(instanceKey{}).(*instance)
		if i.call == nil { // never: guests run in calls only
			panic(errClosed)
		}
		i.clock.check() // some functions take long for what they cost in fuel
		// One call at a time: one exchange is enough for an instance's life.
		i.exchange = exchange{call: i.call, instance: i, memory: guest.Memory(), stack: stack}
		f.do(&i.exchange)
	}
}

// bytes are the guest's, at the pointer and of the length that are parameters n
// and n+1. They are gone when the host function returns. Out of bounds traps.
func (x *exchange) bytes(n int) []byte {
	b, ok := x.memory.Read(uint32(x.stack[n]), uint32(x.stack[n+1]))
	if !ok {
		panic(errBounds)
	}
	return b
}

var (
	errBounds = errors.New("out of bounds memory access")
	errLong   = errors.New("name or key too long")
)

// text is what the guest says at parameter n; the limit is on what is copied.
func (x *exchange) text(n, limit int) string {
	b := x.bytes(n)
	return string(b[:min(len(b), limit)])
}

// key is the name that parameters 0 and 1 are.
func (x *exchange) key() string { return x.word(0) }

// word is the name that parameters n and n+1 are. It must be whole. It is the
// guest's memory: whoever keeps it clones it, and reads it before anything is
// written.
func (x *exchange) word(n int) string {
	b := x.bytes(n)
	if len(b) > maxKey {
		panic(errLong)
	}
	return unsafe.String(unsafe.SliceData(b), len(b))
}

// give writes a value into the buffer that parameters n and n+1 are, if it fits,
// and returns its kind and length.
func (x *exchange) give(n int, k abi.Kind, value []byte) {
	if uint32(len(value)) <= uint32(x.stack[n+1]) && len(value) > 0 {
		if !x.memory.Write(uint32(x.stack[n]), value) {
			panic(errBounds)
		}
	}
	x.stack[0] = abi.Result(k, len(value))
}

func (x *exchange) giveText(n int, value string) {
	if value == "" {
		x.stack[0] = abi.Result(abi.Absent, 0)
		return
	}
	if uint32(len(value)) <= uint32(x.stack[n+1]) && !x.memory.WriteString(uint32(x.stack[n]), value) {
		panic(errBounds)
	}
	x.stack[0] = abi.Result(abi.String, len(value))
}

// named gives what get finds for the name that is parameters 0 and 1.
func (x *exchange) named(get func(string) (string, bool)) {
	value, ok := get(x.key())
	if !ok {
		x.stack[0] = abi.Result(abi.Absent, 0)
		return
	}
	if uint32(len(value)) <= uint32(x.stack[3]) && !x.memory.WriteString(uint32(x.stack[2]), value) {
		panic(errBounds)
	}
	x.stack[0] = abi.Result(abi.String, len(value))
}

func configGet(x *exchange) {
	k, value := read(x.instance.module.spec.Config, x.key())
	x.give(2, k, value)
}

func attrGet(x *exchange) {
	switch a := abi.Attr(x.stack[0]); a {
	case abi.Groups, abi.Extra:
		k, value := x.facts.structured(a)
		x.give(1, k, value)
	default:
		x.giveText(1, x.facts.attr(a))
	}
}

func logEnabled(x *exchange) {
	debug := uint32(x.stack[0]) >= abi.LevelDebug
	enabled := !debug || x.instance.module.log.V(1).Enabled()
	x.stack[0] = 0
	if enabled {
		x.stack[0] = 1
	}
}

func log(x *exchange) {
	message := clean(x.text(1, abi.MaxLog), abi.MaxLog)
	switch l := x.instance.module.log; uint32(x.stack[0]) {
	case abi.LevelError:
		l.Error(nil, message)
	case abi.LevelInfo:
		l.Info(message)
	default:
		l.V(1).Info(message)
	}
}

func respond(x *exchange) {
	if !x.effects {
		return
	}
	x.denial = &Denial{
		Code:       int(int32(uint32(x.stack[0]))),
		Reason:     clean(x.text(1, abi.MaxReason), abi.MaxReason),
		Message:    clean(x.text(3, abi.MaxMessage), abi.MaxMessage),
		RetryAfter: int(int32(uint32(x.stack[5]))),
	}
}

func warn(x *exchange) {
	text := clean(x.text(0, abi.MaxWarning), abi.MaxWarning)
	if x.effects && len(x.warnings) < abi.MaxWarnings {
		x.warnings = append(x.warnings, text)
	}
}

func eventType(x *exchange) {
	e := abi.NoEvent
	if x.object != nil {
		e = x.object.event
	}
	x.stack[0] = uint64(e)
}

func (x *exchange) objectGet(of func(*objects) []byte) {
	pointer := x.key()
	if x.object == nil {
		x.stack[0] = abi.Result(abi.Absent, 0)
		return
	}
	b := of(x.object)
	if len(b) == 0 {
		x.stack[0] = abi.Result(abi.Absent, 0)
		return
	}
	k, value := kindOf(x.instance.finder.Get(b, pointer))
	x.give(2, k, value)
}

func objectSet(x *exchange) {
	value := x.bytes(2)
	if !json.Valid(value) {
		x.stack[0] = uint64(abi.PatchInvalid)
		return
	}
	x.patch(func(pointer string) ([]byte, error) { return document.Set(x.object.current, pointer, value) })
}

func objectRemove(x *exchange) {
	x.patch(func(pointer string) ([]byte, error) { return document.Remove(x.object.current, pointer) })
}

// patch changes a copy of the object: what the guest was given is others' too.
func (x *exchange) patch(edit func(pointer string) ([]byte, error)) {
	pointer := x.key()
	if x.object == nil || x.object.sealed || abi.Sealed(pointer) {
		x.stack[0] = uint64(abi.PatchForbidden)
		return
	}
	changed, err := edit(pointer)
	switch {
	case errors.Is(err, document.ErrNotThere):
		x.stack[0] = uint64(abi.PatchNotFound)
	case err != nil:
		x.stack[0] = uint64(abi.PatchInvalid)
	case len(changed) > body.Max:
		x.stack[0] = uint64(abi.PatchOverflowing)
	default:
		x.object.current, x.object.changed = changed, true
		x.stack[0] = uint64(abi.PatchOK)
	}
}

func endGet(x *exchange) {
	value := int64(0)
	if x.end != nil {
		switch abi.End(x.stack[0]) {
		case abi.EndCode:
			value = int64(x.end.Code)
		case abi.EndBytes:
			value = x.end.Bytes
		case abi.EndMicros:
			value = x.end.Took.Microseconds()
		}
	}
	x.stack[0] = uint64(value)
}

func kvAdd(x *exchange) {
	ttl := min(max(int64(x.stack[3]), 1), int64(24*time.Hour/time.Millisecond))
	x.stack[0] = uint64(x.instance.module.counters.add(strings.Clone(x.key()), int64(x.stack[2]), time.Duration(ttl)*time.Millisecond))
}

func lookup(x *exchange) {
	if x.early {
		panic(errTooEarly)
	}
	object, err := x.instance.module.spec.Known.find(x.word(0), x.word(2), x.word(4))
	if errors.Is(err, errNotDeclared) {
		panic(err)
	}
	if err != nil {
		x.unknown = err
	}
	k, value := read(object, x.word(6))
	x.give(8, k, value)
}
