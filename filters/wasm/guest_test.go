package wasm

import (
	"context"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"go.uber.org/goleak"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/portico-proxy/portico/core/body"
	"github.com/portico-proxy/portico/plugins/tck"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fromC builds a guest, or skips the test where there is no clang for it.
func fromC(t testing.TB, source string) []byte {
	t.Helper()
	return tck.FromC(t, source)
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
	return Facts{User: &user.DefaultInfo{Name: "jane", Groups: []string{"devs"}}, Info: info, Request: r, room: &body.Room{}}
}

const guestInC = "../../plugins/tck/guests/c/guest.c"

func TestGuestsPassTheCases(t *testing.T) {
	for _, language := range tck.Languages {
		t.Run(language, func(t *testing.T) {
			s := spec(tck.Guest(t, language))
			s.Config = []byte(tck.Config)
			m := load(t, s)
			tck.Run(t, func(c tck.Case) (tck.Answer, error) { return answer(t, m, c) })
		})
	}
}

// answer is what the module says to a case.
func answer(t *testing.T, m *Module, c tck.Case) (got tck.Answer, err error) {
	t.Helper()
	denial := (*Denial)(nil)
	if f := facts("X-Case", c.Header, "Authorization", "Bearer secret"); c.Object == "" {
		var v Verdict
		v, err = m.Request(t.Context(), f)
		denial, got.Warnings = v.Denial, v.Warnings
	} else {
		var v ObjectVerdict
		v, err = m.Object(t.Context(), f, Pair{Current: []byte(c.Object)})
		denial, got.Warnings, got.Patched = v.Denial, v.Warnings, string(v.Patched)
	}
	if denial != nil {
		got.Code, got.Reason, got.Message, got.RetryAfter = denial.Code, denial.Reason, denial.Message, denial.RetryAfter
	}
	return got, err
}

func TestGuestThatRefusesItsConfigurationIsNotLoaded(t *testing.T) {
	s := spec(fromC(t, guestInC))
	s.Config = nil
	if _, err := engine(t).Load(t.Context(), s); err == nil || !strings.Contains(err.Error(), "the configuration must be an object") {
		t.Errorf("got %v", err)
	}
}
