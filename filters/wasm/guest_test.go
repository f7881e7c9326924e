package wasm

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fromC builds a guest, or skips the test where there is no clang for it.
func fromC(t testing.TB, source string) []byte {
	t.Helper()
	for _, tool := range []string{"clang", "wasm-ld"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("guests in C need clang and lld: %v", err)
		}
	}
	out := filepath.Join(t.TempDir(), "guest.wasm")
	cmd := exec.Command("clang", "--target=wasm32", "-nostdlib", "-O2", "-Wl,--no-entry", "-o", out, source)
	if log, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", source, err, log)
	}
	code, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return code
}

// hostile builds a guest whose functions are what source says.
func hostile(t testing.TB, source string) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "guest.c")
	text := `#define EXPORT(name) __attribute__((export_name(#name)))
#define HOST(name) __attribute__((import_module("portico.v1"), import_name(#name)))
EXPORT(portico_abi_v1) void portico_abi_v1(void) {}
` + source
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return fromC(t, path)
}

func engine(t testing.TB) *Engine {
	t.Helper()
	e, err := NewEngine("", logr.Discard())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return e
}

func spec(code []byte) Spec {
	// The time is generous where nothing shall run out of it.
	return Spec{Name: "test", Code: code, Config: []byte(`{}`), MemoryMiB: 16, Instances: 2, WallClock: 10 * time.Second}
}

func load(t testing.TB, s Spec) *Module {
	t.Helper()
	m, err := engine(t).Load(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close(context.WithoutCancel(t.Context())) })
	return m
}

func facts(headers ...string) Facts {
	r := httptest.NewRequest("POST", "/api/v1/namespaces/shop/pods?fieldManager=kubectl", nil)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	info := &request.RequestInfo{IsResourceRequest: true, Verb: "create", APIVersion: "v1", Resource: "pods", Namespace: "shop", Path: r.URL.Path}
	return Facts{User: &user.DefaultInfo{Name: "jane", Groups: []string{"devs"}}, Info: info, Request: r}
}

const guestInC = "../../plugins/tck/guests/c/guest.c"

func TestGuestJudgesRequests(t *testing.T) {
	m := load(t, spec(fromC(t, guestInC)))
	tests := map[string]Verdict{
		"":           {},
		"deny":       {Denial: &Denial{Code: http.StatusForbidden, Reason: "Forbidden", Message: "not here"}},
		"slow":       {Denial: &Denial{Code: http.StatusTooManyRequests, Reason: "TooManyRequests", Message: "slower", RetryAfter: 7}},
		"warn":       {Warnings: []string{"jane"}},
		"param":      {Warnings: []string{"kubectl"}},
		"credential": {},
	}
	for name, want := range tests {
		got, err := m.Request(t.Context(), facts("X-Case", name, "Authorization", "Bearer secret"))
		if err != nil {
			t.Errorf("%q: %v", name, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q: %s", name, diff)
		}
	}
}

func TestGuestJudgesObjects(t *testing.T) {
	m := load(t, spec(fromC(t, guestInC)))
	tests := map[string]struct {
		from string
		want ObjectVerdict
	}{
		"drop":   {`{"metadata":{"labels":{"hide":"yes"}}}`, ObjectVerdict{Dropped: true}},
		"keep":   {`{"metadata":{"labels":{"team":"x"}}}`, ObjectVerdict{}},
		"stamp":  {`{"metadata":{"name":"web"}}`, ObjectVerdict{Patched: []byte(`{"metadata":{"labels":{"team":"web"},"name":"web"}}`)}},
		"remove": {`{"metadata":{"annotations":{"secret":"s"}}}`, ObjectVerdict{Patched: []byte(`{"metadata":{"annotations":{}}}`)}},
	}
	for name, tt := range tests {
		from := []byte(tt.from)
		got, err := m.Object(t.Context(), facts(), Pair{Current: from})
		if err != nil || string(from) != tt.from {
			t.Errorf("%s: %v; the original is %s", name, err, from)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestGuestThatRefusesItsConfigurationIsNotLoaded(t *testing.T) {
	s := spec(fromC(t, guestInC))
	s.Config = nil
	if _, err := engine(t).Load(t.Context(), s); err == nil || !strings.Contains(err.Error(), "the configuration must be an object") {
		t.Errorf("got %v", err)
	}
}
