package wasm

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"slices"
	"testing"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	"github.com/tetratelabs/wazero/experimental/wazerotest"

	"github.com/portico-proxy/portico/core/body"
	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
	"github.com/portico-proxy/portico/plugins/abi"
)

// guestMemory is what a guest has, in bytes.
const guestMemory = 64 << 10

// script is a guest that calls host functions one after another: each step is the
// function's number and five parameters of two bytes, and memory is what it has.
func script(functions []hostFunction, steps, memory []byte, x *exchange) (trap any) {
	m := wazerotest.NewMemory(guestMemory)
	copy(m.Bytes, memory)
	x.memory = m
	defer func() { trap = recover() }()
	for n := 0; len(steps) >= 11 && n < 100; n++ {
		f := functions[int(steps[0])%len(functions)]
		stack := make([]uint64, 6)
		for i := range 5 {
			stack[i] = uint64(binary.LittleEndian.Uint16(steps[1+2*i:]))
		}
		if stack[4]%251 == 250 {
			stack[n%4] |= 0xffff0000 // far out of bounds
		}
		x.stack, steps = stack, steps[11:]
		f.do(x)
	}
	return nil
}

// isTrap reports a panic that host functions mean to end a guest by.
func isTrap(trap any) bool {
	err, ok := trap.(error)
	return trap == nil || ok && slices.ContainsFunc([]error{errBounds, errLong, errSealed, errOverflow, errClosed, errKind}, func(e error) bool { return errors.Is(err, e) })
}

func callOf(class class, handler bool) (*exchange, *call) {
	module := &Module{spec: Spec{Config: []byte(`{"a":[1,"x"]}`)}, log: logr.Discard(), counters: newCounters()}
	f := facts("X-Case", "1", "Authorization", "Bearer secret", "Cookie", "secret")
	c := &call{facts: f, effects: true}
	if handler {
		c.trip = newRoundTrip(&c.facts)
		c.trip.request.bodiless = false
	} else if class.kv {
		c.object = &objects{event: abi.Modified, previous: []byte(`{"metadata":{"name":"a"}}`), current: []byte(`{"kind":"Pod","metadata":{"name":"a","labels":{"x":"y"}},"spec":{"c":[1,2]}}`)}
	}
	return &exchange{call: c, instance: &instance{module: module, call: c}}, c
}

func step(function int, parameters ...uint16) []byte {
	out := []byte{byte(function)}
	for i := range 5 {
		v := uint16(0)
		if i < len(parameters) {
			v = parameters[i]
		}
		out = binary.LittleEndian.AppendUint16(out, v)
	}
	return out
}

// FuzzHost calls portico.v1 as no guest would.
func FuzzHost(f *testing.F) {
	f.Add(true, slices.Concat(step(12, 0, 18, 20, 3), step(13, 0, 18), step(7, 0, 4, 4, 4, 0)), []byte("/metadata/labels/x  \"z\""))
	f.Add(false, slices.Concat(step(0, 0, 2, 8, 9), step(5, 2, 9, 20, 99), step(8, 0, 5)), []byte("/aAuthorization"))
	f.Fuzz(func(t *testing.T, object bool, steps, memory []byte) {
		class := class{kv: object, clock: object}
		x, c := callOf(class, false)
		if trap := script(hostFunctions(class), steps, memory, x); !isTrap(trap) {
			t.Fatalf("the host panics: %v", trap)
		}
		if len(c.warnings) > abi.MaxWarnings || len(c.failure) > abi.MaxMessage {
			t.Fatalf("kept %d warnings, %d bytes of a failure", len(c.warnings), len(c.failure))
		}
		if d := c.denial; d != nil && (len(d.Message) > abi.MaxMessage || len(d.Reason) > abi.MaxReason || d.Message != clean(d.Message, abi.MaxMessage)) {
			t.Fatalf("a denial of %d bytes: %q", len(d.Message), d.Reason)
		}
		if c.object == nil {
			return
		}
		if !json.Valid(c.object.current) || len(c.object.current) > body.Max {
			t.Fatalf("the object is %q", c.object.current)
		}
		if k, name := read(c.object.current, "/metadata/name"); k != abi.String || string(name) != "a" {
			t.Fatalf("the object is another: %q", c.object.current)
		}
	})
}

// FuzzHandlerHost calls http_handler as no guest would.
func FuzzHandlerHost(f *testing.F) {
	f.Add(slices.Concat(step(12, 0, 0, 6, 6, 1), step(10, 0, 100, 500), step(11, 0, 0, 13, 100, 99), step(16, 0, 0, 9)), []byte("x-case2"))
	f.Add(slices.Concat(step(12, 0, 0, 13, 6, 1), step(18, 404), step(16, 1, 0, 9)), []byte("Authorization: me"))
	f.Fuzz(func(t *testing.T, steps, memory []byte) {
		x, c := callOf(class{}, true)
		before := c.facts.Request.Header.Clone()
		if trap := script(handlerFunctions(), steps, memory, x); !isTrap(trap) {
			t.Fatalf("the host panics: %v", trap)
		}
		if diff := cmp.Diff(before, c.facts.Request.Header); diff != "" {
			t.Fatalf("the caller's own header is another:\n%s", diff)
		}
		for _, m := range []*message{&c.trip.request, &c.trip.response} {
			if len(m.written) > body.Max || m.added > maxHeaders+maxHeaders {
				t.Fatalf("wrote %d bytes and %d of header", len(m.written), m.added)
			}
		}
		kept := func(h http.Header) http.Header {
			h = h.Clone()
			maps.DeleteFunc(h, func(name string, _ []string) bool { return !sealed(name) })
			return h
		}
		if diff := cmp.Diff(kept(before), kept(c.trip.request.header)); diff != "" {
			t.Fatalf("what is sealed of the header is another:\n%s", diff)
		}
		if c.trip.refuses() == nil {
			if d := c.trip.denial(); !d.sound() || len(d.Message) > abi.MaxMessage || len(d.Reason) > abi.MaxReason {
				t.Fatalf("a denial that is none: %+v", d)
			}
		}
	})
}

// FuzzLookup has a guest look up what it may and what it may not, in whatever words. What
// it is given is the value at its pointer in an object that was declared, and nothing
// beyond the buffer that it gave is written to.
func FuzzLookup(f *testing.F) {
	const resource, namespace, name, pointer, buffer = 0, 1, 2, 3, 4
	declared := []v1alpha1.ContextResource{{Resource: "namespaces"}, {Group: "apps", Resource: "deployments", Namespace: "shop"}}
	objects := map[string][]json.RawMessage{
		"namespaces":       {json.RawMessage(`{"metadata":{"name":"shop","labels":{"team":"web","a/b":"c"}}}`)},
		"deployments.apps": {json.RawMessage(`{"metadata":{"name":"web","namespace":"shop"},"spec":{"replicas":3}}`), json.RawMessage(`{"metadata":{"name":"web","namespace":"other"},"spec":{}}`)},
	}
	f.Add("namespaces", "", "shop", "/metadata/labels/team", uint16(64), uint16(3), false)
	f.Add("deployments.apps", "shop", "web", "/spec", uint16(2), uint16(0), false)
	f.Add("deployments.apps", "other", "web", "/spec/replicas", uint16(64), uint16(9), false)
	f.Add("secrets", "shop", "token", "/data", uint16(64), uint16(0), true)
	f.Add("namespaces", "", "shop", "", uint16(65535), uint16(65535), false)
	f.Fuzz(func(t *testing.T, of, in, called, at string, room, offset uint16, early bool) {
		known := NewKnown(declared)
		if err := known.Set(objects); err != nil {
			t.Fatal(err)
		}
		x, c := callOf(class{}, false)
		x.instance.module.spec.Known, c.early = known, early
		m, said := wazerotest.NewMemory(guestMemory), [...]string{resource: of, namespace: in, name: called, pointer: at}
		x.stack = make([]uint64, 2*buffer+2)
		next := 0
		for i, word := range said {
			if next+len(word) > guestMemory/2 {
				t.Skip("a guest has no room for it")
			}
			copy(m.Bytes[next:], word)
			x.stack[2*i], x.stack[2*i+1] = uint64(next), uint64(len(word))
			next += len(word)
		}
		from := next + int(offset)
		x.stack[2*buffer], x.stack[2*buffer+1], x.memory = uint64(from), uint64(room), m
		before := slices.Clone(m.Bytes)
		trap := func() (trap any) {
			defer func() { trap = recover() }()
			lookup(x)
			return nil
		}()
		err, _ := trap.(error)
		if !isTrap(trap) && !errors.Is(err, errNotDeclared) && !errors.Is(err, errTooEarly) {
			t.Fatalf("the host panics: %v", trap)
		}
		if end := min(from+int(room), guestMemory); !slices.Equal(m.Bytes[:next], before[:next]) || from < guestMemory && !slices.Equal(m.Bytes[end:], before[end:]) {
			t.Fatal("more than the buffer was written to")
		}
		if trap != nil {
			return
		}
		if early || of != "namespaces" && (of != "deployments.apps" || in != "shop") {
			t.Fatalf("%q in %q was not declared, or is asked for too early, and is found", of, in)
		}
		object, err := known.find(of, in, called)
		if err != nil {
			t.Fatal(err)
		}
		kind, value := read(object, at)
		if x.stack[0] != abi.Result(kind, len(value)) || len(value) > 0 && len(value) <= int(room) && !slices.Equal(m.Bytes[from:from+len(value)], value) {
			t.Fatalf("the guest is given %x for %s", x.stack[0], value)
		}
	})
}
