//go:build !wasip1

// Package guesttest runs a filter's functions in an ordinary Go test, without
// WebAssembly and without a proxy.
package guesttest

import (
	"encoding/json"
	"strconv"
	"strings"

	"github.com/portico-proxy/portico/plugins/abi"
	"github.com/portico-proxy/portico/plugins/guest"
	"github.com/portico-proxy/portico/plugins/guest/internal/host"
)

// Input is what a filter is to be asked about. What is left out is empty.
type Input struct {
	// Config is the configuration, as JSON.
	Config string
	// Attrs are attributes of the request, such as abi.User and abi.Verb.
	Attrs          map[abi.Attr]string
	Header, Params map[string]string
	// Object is JSON.
	Object string
	Event  abi.Event
	End    guest.End
	// Counters are those of the capability kv; the filter changes them.
	Counters map[string]int64
	Now      int64 // in milliseconds since 1970
	// Known are the objects that can be looked up, as JSON, by their resource,
	// such as namespaces or deployments.apps. Resources that are not here are not
	// declared.
	Known map[string][]string
}

// Output is what a filter said.
type Output struct {
	// Result is what the exported function returned.
	Result int32
	// Refusal is nil if the filter said nothing of one.
	Refusal  *guest.Refusal
	Warnings []string
	Logged   []string
	// Failure is why a configuration was refused.
	Failure string
	// Object is the object as the filter left it, as JSON.
	Object string
}

// Run calls an exported function, such as on_request. Calls must not overlap: a
// filter runs one at a time.
func Run(in Input, exported func() int32) Output {
	p := &player{in: in, object: parse(in.Object), config: parse(in.Config)}
	host.Current = p
	p.out.Result = exported()
	p.out.Object = encode(p.object)
	return p.out
}

// RunEnd calls the exported function on_end.
func RunEnd(in Input, exported func()) Output {
	return Run(in, func() int32 { exported(); return 0 })
}

// player is a host of one call.
type player struct {
	in             Input
	out            Output
	object, config any
}

func parse(text string) (v any) {
	if text == "" {
		return nil
	}
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		panic("guesttest: the input is no JSON: " + err.Error())
	}
	return v
}

func encode(v any) string {
	if v == nil {
		return ""
	}
	b, err := json.Marshal(v)
	if err != nil {
		panic("guesttest: " + err.Error())
	}
	return string(b)
}

var unescape = strings.NewReplacer("~1", "/", "~0", "~")

func tokens(pointer string) []string {
	if pointer == "" {
		return nil
	}
	all := strings.Split(pointer, "/")[1:]
	for i := range all {
		all[i] = unescape.Replace(all[i])
	}
	return all
}

func find(in any, path []string) (any, bool) {
	if len(path) == 0 {
		return in, in != nil
	}
	switch v := in.(type) {
	case map[string]any:
		child, ok := v[path[0]]
		if ok && len(path) == 1 {
			return child, true
		}
		return find(child, path[1:])
	case []any:
		if i, err := strconv.Atoi(path[0]); err == nil && i >= 0 && i < len(v) {
			return find(v[i], path[1:])
		}
	}
	return nil, false
}

func get(in any, pointer string) (abi.Kind, string) {
	v, ok := find(in, tokens(pointer))
	if !ok {
		return abi.Absent, ""
	}
	switch v := v.(type) {
	case nil:
		return abi.Null, ""
	case string:
		return abi.String, v
	case bool:
		return abi.Bool, strconv.FormatBool(v)
	case json.Number:
		return abi.Number, v.String()
	case []any:
		return abi.Array, encode(v)
	}
	return abi.Object, encode(v)
}

func given(m map[string]string, name string) (abi.Kind, string) {
	v, ok := m[name]
	if !ok {
		return abi.Absent, ""
	}
	return abi.String, v
}

func (p *player) Config(pointer string) (abi.Kind, string) { return get(p.config, pointer) }
func (p *player) Object(pointer string) (abi.Kind, string) { return get(p.object, pointer) }
func (p *player) Header(name string) (abi.Kind, string)    { return given(p.in.Header, name) }
func (p *player) Param(name string) (abi.Kind, string)     { return given(p.in.Params, name) }
func (p *player) Event() abi.Event                         { return p.in.Event }
func (p *player) Warn(text string)                         { p.out.Warnings = append(p.out.Warnings, text) }
func (p *player) Fail(text string)                         { p.out.Failure = text }
func (p *player) Log(_ uint32, text string)                { p.out.Logged = append(p.out.Logged, text) }
func (p *player) Counted(key string) int64                 { return p.in.Counters[key] }
func (p *player) Now() int64                               { return p.in.Now }

func (p *player) Attr(id abi.Attr) (abi.Kind, string) {
	if p.in.Attrs[id] == "" {
		return abi.Absent, ""
	}
	return abi.String, p.in.Attrs[id]
}

func (p *player) Respond(code int32, reason, message string, retryAfter int32) {
	p.out.Refusal = &guest.Refusal{Code: int(code), Reason: reason, Message: message, RetryAfter: int(retryAfter)}
}

func (p *player) Count(key string, delta, _ int64) int64 {
	if p.in.Counters == nil {
		p.in.Counters = map[string]int64{}
	}
	p.in.Counters[key] += delta
	return p.in.Counters[key]
}

func (p *player) End(id abi.End) int64 {
	switch id {
	case abi.EndCode:
		return int64(p.in.End.Code)
	case abi.EndBytes:
		return p.in.End.Bytes
	}
	return p.in.End.Micros
}

func (p *player) Set(pointer, value string) int32 {
	path := tokens(pointer)
	if !json.Valid([]byte(value)) {
		return abi.PatchInvalid
	}
	if abi.Sealed(pointer) || p.object == nil {
		return abi.PatchForbidden
	}
	parent := p.object
	for _, token := range path[:len(path)-1] {
		next, ok := find(parent, []string{token})
		if m, isObject := parent.(map[string]any); isObject && (!ok || next == nil) {
			next = map[string]any{}
			m[token] = next
		}
		parent = next
	}
	last := path[len(path)-1]
	switch in := parent.(type) {
	case map[string]any:
		in[last] = parse(value)
	case []any:
		i, err := strconv.Atoi(last)
		if err != nil || i < 0 || i >= len(in) {
			return abi.PatchNotFound
		}
		in[i] = parse(value)
	default:
		return abi.PatchNotFound
	}
	return abi.PatchOK
}

func (p *player) Remove(pointer string) int32 {
	path := tokens(pointer)
	if abi.Sealed(pointer) || p.object == nil {
		return abi.PatchForbidden
	}
	if _, ok := find(p.object, path); !ok {
		return abi.PatchNotFound
	}
	parent, _ := find(p.object, path[:len(path)-1])
	m, ok := parent.(map[string]any)
	if !ok {
		return abi.PatchInvalid // guesttest removes members of objects only
	}
	delete(m, path[len(path)-1])
	return abi.PatchOK
}

// Lookup panics where a proxy would have the filter fail.
func (p *player) Lookup(resource, namespace, name, pointer string) (abi.Kind, string) {
	objects, declared := p.in.Known[resource]
	if !declared {
		panic("guesttest: " + resource + " is looked up, and Input.Known has none")
	}
	for _, text := range objects {
		o := parse(text)
		_, n := get(o, "/metadata/name")
		_, in := get(o, "/metadata/namespace")
		if n == name && in == namespace {
			return get(o, pointer)
		}
	}
	return abi.Absent, ""
}
