package wasm

import (
	"context"
	"io"
	"net/http"
	"runtime"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/portico-proxy/portico/plugins/abi"
)

// ending is a module with one instance, which adds the codes of answers up.
func ending(t *testing.T) *Module {
	t.Helper()
	s := spec(hostile(t, `HOST(kv_add) long long kv_add(const void*, unsigned, long long, long long);
HOST(end_get) long long end_get(int);
EXPORT(on_end) void f(void) { kv_add("codes", 5, end_get(1), 3600000); }`))
	s.Capabilities, s.Instances = []abi.Capability{abi.CapabilityKV}, 1
	return load(t, s)
}

// TestModulesAreToldTheCodeThatTheCallerGot ends answers before and after they have
// begun.
func TestModulesAreToldTheCodeThatTheCallerGot(t *testing.T) {
	m := ending(t)
	f := bound(t, m, nil)
	forbidden := apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "web", nil)
	told := int64(0)
	for name, tt := range map[string]struct {
		upstream func(http.ResponseWriter, *http.Request) error
		code     int64
	}{
		"answered": {painted, 200},
		"refused":  {func(http.ResponseWriter, *http.Request) error { return forbidden }, 403},
		"broken": {func(w http.ResponseWriter, r *http.Request) error {
			if err := painted(w, r); err != nil {
				return err
			}
			return io.ErrUnexpectedEOF
		}, 200},
	} {
		asks{method: "GET", verb: "get", upstream: tt.upstream}.of(t, f)
		if got := m.counters.get("codes") - told; got != tt.code {
			t.Errorf("%s: got %d", name, got)
		}
		told = m.counters.get("codes")
	}
}

// TestModulesAreToldOfCallersWhoAreGone has the one instance be busy when a caller
// has left.
func TestModulesAreToldOfCallersWhoAreGone(t *testing.T) {
	m := ending(t)
	f := bound(t, m, nil)
	busy, err := m.acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	of := facts()
	ctx, leave := context.WithCancel(t.Context())
	leave()
	of.Request = of.Request.WithContext(ctx)
	told := make(chan struct{})
	go func() {
		defer close(told)
		f.end([]string{"test"}, of, End{Code: 200})
	}()
	users := func() int {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.users
	}
	for users() == 0 && !isClosed(told) {
		runtime.Gosched()
	}
	m.idle <- busy
	<-told
	if got := m.counters.get("codes"); got != 200 {
		t.Errorf("got %d", got)
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
