package wasm

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/portico-proxy/portico/filters/wasm/meter"
	"github.com/portico-proxy/portico/plugins/tck"
)

// TestEachCallHasItsOwnTime has calls end and begin around the moments at which
// the one clock of an instance looks at them.
func TestEachCallHasItsOwnTime(t *testing.T) {
	d := newDeadline(t.Context(), nil)
	defer d.timer.Stop()
	fine := func(step string, began int64) {
		t.Helper()
		if !d.end(began) || d.late() {
			t.Errorf("%s: a call that was in time was ended", step)
		}
	}
	first := d.begin(time.Hour)
	d.look()
	fine("looked at", first)
	second := d.begin(time.Hour) // with the clock of the first
	d.look()
	fine("the next", second)
	d.look() // at none
	if d.armed.Load() {
		t.Error("the clock goes on for nobody")
	}
	third := d.begin(time.Nanosecond)
	for !d.late() {
		d.look()
	}
	if d.end(third) {
		t.Error("a call that was too slow was in time")
	}
	d.look()
}

// TestFirstCallHasNoMoreTimeThanOthers looks at the clock of an instance that had long
// to begin.
func TestFirstCallHasNoMoreTimeThanOthers(t *testing.T) {
	m := load(t, spec(fromC(t, guestInC)))
	i, err := m.acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if m.idle <- i; i.clock.armed.Load() {
		t.Error("the clock goes on")
	}
}

// TestInstanceThatBeganLateIsNone has a guest found late when it asks no more, and begin
// all the same: nothing would end its calls.
func TestInstanceThatBeganLateIsNone(t *testing.T) {
	code := hostile(t, `__attribute__((import_module("test"), import_name("dawdle"))) void dawdle(void);
EXPORT(configure) int f(void) { dawdle(); return 0; } EXPORT(on_request) int g(void) { for (volatile int x = 0;; x++); }`)
	s, e := spec(code), engine(t)
	r, err := e.runtime(t.Context(), s.class())
	if err != nil {
		t.Fatal(err)
	}
	clock := (*deadline)(nil)
	dawdle := func(ctx context.Context) {
		clock = ctx.Value(instanceKey{}).(*instance).clock
		for clock.limit.Store(1); !clock.late(); {
			clock.look()
		}
	}
	if _, err := r.NewHostModuleBuilder("test").NewFunctionBuilder().WithFunc(dawdle).Export("dawdle").Instantiate(t.Context()); err != nil {
		t.Fatal(err)
	}
	metered, err := meter.Rewrite(code)
	if err != nil {
		t.Fatal(err)
	}
	compiled, err := r.CompileModule(t.Context(), metered)
	if err != nil {
		t.Fatal(err)
	}
	m := &Module{engine: e, spec: s, runtime: r, compiled: compiled}
	if i, err := m.instantiate(t.Context()); i != nil || !errors.Is(err, errTimeout) || !clock.late() {
		t.Errorf("there is one: %t, %v", i != nil, err)
	}
}

// TestGuestsLiveOnBetweenCalls has a guest in Go collect its garbage, and
// grow, between calls and in them.
func TestGuestsLiveOnBetweenCalls(t *testing.T) {
	for _, language := range []string{"c", "go"} {
		t.Run(language, func(t *testing.T) {
			s := spec(tck.Guest(t, language))
			s.Config, s.Instances = []byte(tck.Config), 1
			m := load(t, s)
			of, pair := facts("X-Case", "warn"), Pair{Current: []byte(`{"metadata":{"name":"web"}}`)}
			for range 5000 {
				if v, err := m.Request(t.Context(), of); err != nil || len(v.Warnings) != 1 || v.Warnings[0] != "jane" {
					t.Fatalf("%+v, %v", v, err)
				}
				if v, err := m.Object(t.Context(), of, pair); err != nil || string(v.Patched) != `{"metadata":{"labels":{"team":"web"},"name":"web"}}` {
					t.Fatalf("%s, %v", v.Patched, err)
				}
			}
		})
	}
}

func BenchmarkHandler(b *testing.B) {
	m := load(b, handlerSpec(fromC(b, handlerInC)))
	for name, of := range map[string]Facts{"passes": facts(), "refuses": facts("X-Case", "refuse")} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				t := newRoundTrip(&of)
				next, err := m.handleRequest(b.Context(), t)
				if err != nil {
					b.Fatal(err)
				}
				if next {
					t.answered(200, nil, nil)
					if err := m.handleResponse(b.Context(), t, false); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}
