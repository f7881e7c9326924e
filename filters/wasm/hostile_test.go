package wasm

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
	"github.com/portico-proxy/portico/plugins/abi"
)

const randomly = `static char big[8 << 20];
__attribute__((import_module("wasi_snapshot_preview1"), import_name("random_get"))) int random_get(void *, int);
`

func TestHostileGuestsFailAlone(t *testing.T) {
	tests := map[string]struct {
		source string
		want   error
	}{
		"loops":       {`EXPORT(on_request) int f(void) { volatile int x = 0; for (;;) x++; }`, errTimeout},
		"branches":    {`volatile int n; __attribute__((optnone, noinline)) int g(int x) { return x ? g(x - 1) + g(x - 1) : n; } EXPORT(on_request) int f(void) { return g(60); }`, errTimeout},
		"fills":       {`static char big[8 << 20]; __attribute__((target("bulk-memory"))) EXPORT(on_request) int f(void) { for (volatile char x;; x++) __builtin_memset(big, x, sizeof big); }`, errTimeout},
		"asks-wasi":   {randomly + `EXPORT(on_request) int f(void) { for (;;) random_get(big, sizeof big); }`, errTimeout},
		"by-pointer":  {randomly + `int (*volatile p)(void *, int) = random_get; EXPORT(on_request) int f(void) { for (;;) p(big, sizeof big); }`, errTimeout},
		"reads":       {`HOST(config_get) long long config_get(const char *p, int n, void *b, int m); EXPORT(on_request) int f(void) { for (;;) config_get("/b", 2, 0, 0); }`, errTimeout},
		"allocates":   {`EXPORT(on_request) int f(void) { while (__builtin_wasm_memory_grow(0, 16) != -1) {} __builtin_trap(); }`, errFailed},
		"traps":       {`EXPORT(on_request) int f(void) { __builtin_trap(); }`, errFailed},
		"recurses":    {`volatile int n; int g(int x) { n++; return g(x + n) + g(x - n) + n; } EXPORT(on_request) int f(void) { return g(1); }`, errFailed},
		"out":         {`EXPORT(on_request) int f(void) { *(volatile int *)0x7fffffff = 1; return 0; }`, errFailed},
		"points-out":  {`HOST(warn) void warn(void *p, int n); EXPORT(on_request) int f(void) { warn((void *)0x7fffffff, 9); return 0; }`, errFailed},
		"buffer-out":  {`HOST(attr_get) long long attr_get(int id, void *p, unsigned n); EXPORT(on_request) int f(void) { attr_get(1, (void *)0xfffffff0, 0xffffffff); return 0; }`, errFailed},
		"nonsense":    {`EXPORT(on_request) int f(void) { return 77; }`, errAnswer},
		"no-reason":   {`EXPORT(on_request) int f(void) { return 1; }`, errAnswer},
		"bad-code":    {`HOST(respond) void respond(int, void*, int, void*, int, int); EXPORT(on_request) int f(void) { respond(200, 0, 0, 0, 0, 0); return 1; }`, errAnswer},
		"bad-retry":   {`HOST(respond) void respond(int, void*, int, void*, int, int); EXPORT(on_request) int f(void) { respond(429, 0, 0, 0, 0, -1); return 1; }`, errAnswer},
		"false-patch": {`EXPORT(on_object) int f(void) { return 2; }`, errAnswer},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := spec(hostile(t, tt.source))
			if errors.Is(tt.want, errTimeout) {
				s.WallClock = 50 * time.Millisecond
				s.Config = []byte(`{"a":"` + strings.Repeat("x", 1<<22) + `"}`)
			}
			m := load(t, s)
			// More often than there are instances: each that breaks is replaced.
			for range 5 {
				_, err := m.Request(t.Context(), facts())
				if err == nil {
					_, err = m.Object(t.Context(), facts(), Pair{Current: []byte(`{}`)})
				}
				if !errors.Is(err, tt.want) {
					t.Fatalf("got %v, want %v", err, tt.want)
				}
			}
		})
	}
}

// TestGuestsMayExportMore has functions of a guest's own, with names of its own.
func TestGuestsMayExportMore(t *testing.T) {
	code := hostile(t, `HOST(now_ms) long long now_ms(void);
EXPORT(once) int a(void) { return 0; } EXPORT(send) int b(void) { return 0; } EXPORT(_end) int c(void) { return 0; } EXPORT(configuration) int d(void) { return 0; }
EXPORT(on_request) int f(void) { return (int)now_ms() * 0; }`)
	if err := Check(t.Context(), code); err != nil {
		t.Error(err)
	}
	if err := Check(t.Context(), fromC(t, handlerInC)); err != nil {
		t.Error(err)
	}
	if err := Check(t.Context(), []byte("hello")); err == nil {
		t.Error("what is no module passes")
	}
}

func TestGuestsThatAreNoneAreRefused(t *testing.T) {
	tests := map[string]struct{ source, want string }{
		"not-granted": {`HOST(kv_add) long long kv_add(void*, int, long long, long long); EXPORT(on_request) int f(void) { return (int)kv_add(0, 0, 1, 1); }`, `add "kv" to spec.capabilities`},
		"no-clock":    {`HOST(now_ms) long long now_ms(void); EXPORT(on_request) int f(void) { return (int)now_ms(); }`, "now_ms"},
		"unknown":     {`HOST(open) int o(void); EXPORT(on_request) int f(void) { return o(); }`, "open"},
		"misspelt":    {`HOST(object_got) int o(void); EXPORT(on_request) int f(void) { return o(); }`, "it imports object_got, which portico.v1 does not have: did you mean object_get?"},
		"mistaken":    {`HOST(warn) int w(void); EXPORT(on_request) int f(void) { return w(); }`, "it imports warn as () -> (i32), and in portico.v1 that is (i32, i32) -> ()"},
		"signature":   {`EXPORT(on_request) int f(int a) { return a; }`, "export on_request is a function (i32) -> (i32), and portico.v1 calls it as () -> (i32)"},
		"result":      {`EXPORT(on_end) int f(void) { return 0; }`, "export on_end is a function () -> (i32), and portico.v1 calls it as () -> ()"},
		"initialize":  {`EXPORT(_initialize) int g(void) { return 0; } EXPORT(on_request) int f(void) { return 0; }`, "export _initialize"},
		"objekt":      {`EXPORT(on_objekt) int g(void) { return 0; } EXPORT(on_request) int f(void) { return 0; }`, "it exports on_objekt, which portico.v1 does not have, so nobody would call it: did you mean on_object?"},
		"objects":     {`EXPORT(on_objects) int g(void) { return 0; }`, "did you mean on_object?"},
		"camel":       {`EXPORT(onRequest) int g(void) { return 0; } EXPORT(on_object) int f(void) { return 0; }`, "did you mean on_request?"},
		"other-event": {`EXPORT(on_delete) int g(void) { return 0; } EXPORT(on_object) int f(void) { return 0; }`, "it exports on_delete"},
		"configured":  {`EXPORT(configuer) int g(void) { return 0; } EXPORT(on_object) int f(void) { return 0; }`, "did you mean configure?"},
		"idle":        {`EXPORT(configure) int g(void) { return 0; } EXPORT(request) int f(void) { return 0; }`, "none of on_request, on_object and on_end"},
		"start-loops": {`static volatile int x; EXPORT(configure) int f(void) { __builtin_trap(); } EXPORT(on_end) void g(void) {}`, "configure the module"},
		"exits":       {`__attribute__((import_module("wasi_snapshot_preview1"), import_name("proc_exit"))) void leave(int); EXPORT(_initialize) void g(void) { leave(0); } EXPORT(on_end) void f(void) {}`, "build it as a library"},
		"too-large":   {`static volatile char big[32 << 20]; EXPORT(on_request) int f(void) { return big[9]; }`, "memory"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			m, err := engine(t).Load(t.Context(), spec(hostile(t, tt.source)))
			if err == nil {
				m.Close(t.Context())
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error about %q", err, tt.want)
			}
			if strings.Contains(tt.want, "did you mean") {
				if err := Check(t.Context(), hostile(t, tt.source)); err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("when it is built: got %v", err)
				}
			}
		})
	}
	for name, code := range map[string][]byte{"empty": nil, "text": []byte("hello"), "bare": []byte("\x00asm\x01\x00\x00\x00")} {
		if _, err := engine(t).Load(t.Context(), spec(code)); err == nil {
			t.Errorf("%s: loaded", name)
		}
	}
}

// TestImportsThatNobodyHasAreRefused when a guest is built, as they are by a proxy.
func TestImportsThatNobodyHasAreRefused(t *testing.T) {
	from := func(module, name string) string {
		return `__attribute__((import_module("` + module + `"), import_name("` + name + `"))) int imported(void);
`
	}
	const calls = `EXPORT(on_request) int f(void) { return imported(); }`
	const handles = `EXPORT(handle_request) long long f(void) { return imported(); } EXPORT(handle_response) void g(int a, int b) {}`
	for name, tt := range map[string]struct{ source, want string }{
		"env":          {from("env", "seed") + calls, "it imports seed from env, and there is nothing but portico.v1 and wasi_snapshot_preview1 to import from"},
		"other-abi":    {from("http_handler", "get_status_code") + calls, "it imports get_status_code from http_handler"},
		"meter":        {from("portico.meter", "ask") + calls, "it imports portico.meter, which is not for it"},
		"no-wasi":      {from("wasi_snapshot_preview1", "random_got") + calls, "it imports random_got, which wasi_snapshot_preview1 does not have: did you mean random_get?"},
		"other-wasi":   {from("wasi_snapshot_preview1", "random_get") + calls, "it imports random_get as () -> (i32), and in wasi_snapshot_preview1 that is (i32, i32) -> (i32)"},
		"handler-env":  {from("env", "seed") + handles, "it imports seed from env, and there is nothing but http_handler and wasi_snapshot_preview1 to import from"},
		"handler-ours": {from("portico.v1", "event_type") + handles, "it imports event_type from portico.v1"},
		"handler-slip": {from("http_handler", "get_status") + handles, "it imports get_status, which http_handler does not have"},
	} {
		t.Run(name, func(t *testing.T) {
			s := spec(hostile(t, tt.source))
			if strings.HasPrefix(name, "handler") {
				s.ABI = v1alpha1.WasmHTTPWasmV1
			}
			m, err := engine(t).Load(t.Context(), s)
			if err == nil {
				m.Close(t.Context())
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("a proxy says %v, want %q", err, tt.want)
			}
			if err := Check(t.Context(), s.Code); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("when it is built: got %v, want %q", err, tt.want)
			}
		})
	}
	table := append([]byte("\x00asm\x01\x00\x00\x00"), 4, 6, 1, 0x70, 0, 0x81, 0x80, 0x40)
	if err := Check(t.Context(), table); err == nil || !strings.Contains(err.Error(), "more than a million elements") {
		t.Errorf("a large table: got %v", err)
	}
}

func TestOthersAreServedWhileAGuestLoops(t *testing.T) {
	e := engine(t)
	slow := spec(hostile(t, `EXPORT(on_request) int f(void) { volatile int x = 0; for (;;) x++; }`))
	slow.WallClock = 200 * time.Millisecond
	loops, err := e.Load(t.Context(), slow)
	if err != nil {
		t.Fatal(err)
	}
	defer loops.Close(t.Context())
	good, err := e.Load(t.Context(), spec(fromC(t, guestInC)))
	if err != nil {
		t.Fatal(err)
	}
	defer good.Close(t.Context())
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			if _, err := loops.Request(t.Context(), facts()); !errors.Is(err, errTimeout) {
				t.Errorf("the guest that loops: %v", err)
			}
		})
		all.Go(func() {
			if _, err := good.Request(t.Context(), facts("X-Case", "warn")); err != nil {
				t.Errorf("the other: %v", err)
			}
		})
	}
	all.Wait()
}

// TestGarbageIsCollectedWhileAGuestLoops has everybody wait for a guest that does not
// let go of its thread.
func TestGarbageIsCollectedWhileAGuestLoops(t *testing.T) {
	s := spec(hostile(t, `EXPORT(on_request) int f(void) { volatile int x = 0; for (;;) x++; }`))
	s.WallClock = time.Second
	m := load(t, s)
	ended := make(chan error)
	go func() {
		_, err := m.Request(t.Context(), facts())
		ended <- err
	}()
	for n := 0; ; n++ {
		select {
		case err := <-ended:
			if !errors.Is(err, errTimeout) || n < 10 {
				t.Errorf("collected %d times, and then %v", n, err)
			}
			return
		default:
			runtime.GC()
		}
	}
}

func TestAThousandReloadsLeaveNothing(t *testing.T) {
	e := engine(t)
	s := spec(fromC(t, guestInC))
	for range 1000 {
		m, err := e.Load(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.Request(t.Context(), facts("X-Case", "deny")); err != nil {
			t.Fatal(err)
		}
		m.Close(t.Context())
	}
}

func TestWhatGuestsSayIsBoundedAndClean(t *testing.T) {
	m := load(t, spec(hostile(t, `
HOST(warn) void warn(const char *p, int n);
HOST(respond) void respond(int, const char*, int, const char*, int, int);
static char long_text[5000];
EXPORT(on_request) int f(void) {
	for (int i = 0; i < 5000; i++) long_text[i] = i % 2 ? '\xa9' : '\xc3';
	for (int i = 0; i < 100; i++) warn("a\r\nSet-Cookie: x\0\xff", 18);
	warn(long_text, 5000);
	respond(403, "For\nbidden", 10, long_text, 5000, 0);
	return 1;
}`)))
	got := post(t, bound(t, m, nil), "{}")
	if got.Code != 403 {
		t.Errorf("got %+v", got)
	}
	v, err := m.Request(t.Context(), facts())
	if err != nil {
		t.Fatal(err)
	}
	if len(v.Warnings) != abi.MaxWarnings || v.Warnings[0] != "a  Set-Cookie: x  " {
		t.Errorf("got %d warnings: %q", len(v.Warnings), v.Warnings)
	}
	if v.Denial.Reason != "For bidden" || len(v.Denial.Message) > abi.MaxMessage || !utf8.ValidString(v.Denial.Message) {
		t.Errorf("got %q, %q", v.Denial.Reason, v.Denial.Message)
	}
}

func TestBusyGuestIsWaitedForNoLongerThanItsCaller(t *testing.T) {
	s := spec(fromC(t, guestInC))
	s.Instances = 1
	m := load(t, s)
	i, err := m.acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	gone, leave := context.WithCancel(t.Context())
	leave()
	if _, err := m.Request(gone, facts()); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	m.idle <- i
	if _, err := m.Request(t.Context(), facts()); err != nil {
		t.Error(err)
	}
}
