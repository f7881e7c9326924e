package wasm

import (
	"net/http"
	"strings"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"golang.org/x/net/http/httpguts"

	"github.com/portico-proxy/portico/plugins/abi"
)

// Levels of log in http_handler.
const (
	handlerDebug = int32(-1)
	handlerError = int32(2)
	handlerNone  = int32(3)
)

// handlerHost is http_handler: all that its guests can import.
func handlerHost(r wazero.Runtime) wazero.HostModuleBuilder {
	return export(r.NewHostModuleBuilder(handlerModule), handlerFunctions())
}

func handlerFunctions() []hostFunction {
	length, pair := []api.ValueType{i32}, []api.ValueType{i64}
	return []hostFunction{
		{"enable_features", types(1), length, enableFeatures},
		{"get_config", types(2), length, func(x *exchange) { x.fill(0, x.instance.module.spec.Config) }},
		{"log", types(3), nil, handlerLog},
		{"log_enabled", types(1), length, handlerLogEnabled},
		{"get_method", types(2), length, tells(func(t *roundTrip) string { return t.method })},
		{"set_method", types(2), nil, keeps(func(t *roundTrip) string { return t.method })},
		{"get_uri", types(2), length, tells(func(t *roundTrip) string { return t.uri })},
		{"set_uri", types(2), nil, keeps(func(t *roundTrip) string { return t.uri })},
		{"get_protocol_version", types(2), length, tells(func(t *roundTrip) string { return t.protocol })},
		{"get_source_addr", types(2), length, tells(func(t *roundTrip) string { return t.source })},
		{"get_header_names", types(3), pair, getHeaderNames},
		{"get_header_values", types(5), pair, getHeaderValues},
		{"set_header_value", types(5), nil, func(x *exchange) { x.header(http.Header.Set) }},
		{"add_header_value", types(5), nil, func(x *exchange) { x.header(http.Header.Add) }},
		{"remove_header", types(3), nil, removeHeader},
		{"read_body", types(3), pair, readBody},
		{"write_body", types(3), nil, writeBody},
		{"get_status_code", nil, length, getStatusCode},
		{"set_status_code", types(1), nil, setStatusCode},
	}
}

// about is the round trip that the call is about.
func (x *exchange) about() *roundTrip {
	if x.trip == nil { // the guest begins
		panic(errClosed)
	}
	return x.trip
}

// part is the message of a kind, which is a parameter, or nil for trailers: they
// are not supported, and so never there.
func (x *exchange) part() *message {
	switch t := x.about(); uint32(x.stack[0]) {
	case 0:
		return &t.request
	case 1:
		return &t.response
	case 2, 3:
		return nil
	}
	panic(errKind)
}

// fill writes a value into the buffer that parameters n and n+1 are, if it fits,
// and returns its length.
func (x *exchange) fill(n int, value []byte) {
	if len(value) > 0 && uint32(len(value)) <= uint32(x.stack[n+1]) && !x.memory.Write(uint32(x.stack[n]), value) {
		panic(errBounds)
	}
	x.stack[0] = uint64(len(value))
}

// list is fill for a list of strings, each of which ends with a zero.
func (x *exchange) list(n int, values []string) {
	size := 0
	for _, value := range values {
		size += len(value) + 1
	}
	if size > 0 {
		x.fill(n, []byte(strings.Join(values, "\x00")+"\x00"))
	}
	x.stack[0] = uint64(len(values))<<32 | uint64(uint32(size))
}

func tells(what func(*roundTrip) string) func(*exchange) {
	return func(x *exchange) { x.fill(0, []byte(what(x.about()))) }
}

// keeps traps who would have another than what bindings matched and who is above
// has judged.
func keeps(what func(*roundTrip) string) func(*exchange) {
	return func(x *exchange) {
		if string(x.bytes(0)) != what(x.about()) {
			panic(errSealed)
		}
	}
}

func enableFeatures(x *exchange) {
	const supported = bufferRequest | bufferResponse
	wanted := uint32(x.stack[0]) & supported
	if x.trip == nil {
		x.instance.features |= wanted
	} else {
		x.trip.features |= wanted
	}
	x.stack[0] = supported
}

func handlerLogEnabled(x *exchange) {
	level := int32(uint32(x.stack[0]))
	x.stack[0] = 0
	if level < handlerNone && (level > handlerDebug || x.instance.module.log.V(1).Enabled()) {
		x.stack[0] = 1
	}
}

func handlerLog(x *exchange) {
	message := clean(x.text(1, abi.MaxLog), abi.MaxLog)
	switch l, level := x.instance.module.log, int32(uint32(x.stack[0])); {
	case level >= handlerNone:
	case level == handlerError:
		l.Error(nil, message)
	case level > handlerDebug:
		l.Info(message)
	default:
		l.V(1).Info(message)
	}
}

// name is the header's that parameters 1 and 2 are.
func (x *exchange) name() string {
	b := x.bytes(1)
	if len(b) > maxKey {
		panic(errLong)
	}
	return string(b)
}

func getHeaderNames(x *exchange) {
	var names []string
	if m := x.part(); m != nil {
		names = m.names()
	}
	x.list(1, names)
}

func getHeaderValues(x *exchange) {
	var values []string
	if m := x.part(); m != nil {
		values = m.values(x.name())
	}
	x.list(3, values)
}

// header changes one by its name and a value.
func (x *exchange) header(change func(h http.Header, name, value string)) {
	m, name, b := x.part(), x.name(), x.bytes(3)
	if m == nil || len(b) > maxHeaders || !httpguts.ValidHeaderFieldValue(string(b)) {
		panic(errSealed)
	}
	m.edit(name, len(name)+len(b), func(h http.Header) { change(h, name, string(b)) })
}

func removeHeader(x *exchange) {
	m, name := x.part(), x.name()
	if m == nil {
		panic(errSealed)
	}
	m.edit(name, 0, func(h http.Header) { h.Del(name) })
}

func readBody(x *exchange) {
	m := x.part()
	if m == nil || uint32(x.stack[2]) == 0 {
		panic(errKind)
	}
	n := min(uint64(len(m.body)), uint64(uint32(x.stack[2])))
	if n > 0 && !x.memory.Write(uint32(x.stack[1]), m.body[:n]) {
		panic(errBounds)
	}
	m.body = m.body[n:]
	if x.stack[0] = n; len(m.body) == 0 {
		x.stack[0] |= 1 << 32
	}
}

func writeBody(x *exchange) {
	m := x.part()
	if m == nil {
		panic(errKind)
	}
	m.write(x.bytes(1))
}

func getStatusCode(x *exchange) {
	x.stack[0] = uint64(x.about().code)
	if x.stack[0] == 0 {
		x.stack[0] = http.StatusOK
	}
}

func setStatusCode(x *exchange) {
	t := x.about()
	if t.response.fixed {
		panic(errSealed)
	}
	t.code, t.set = int(int32(uint32(x.stack[0]))), true
}
