package nodes

import (
	"encoding/base64"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/portico-proxy/portico/plugins/tck"
)

// forger makes of each Event one about another node's pod, and gives each Node a label.
const forger = `
typedef unsigned int u32;
typedef unsigned long long u64;
#define HOST(name) __attribute__((import_module("portico.v1"), import_name(#name)))
#define EXPORT(name) __attribute__((export_name(#name)))
#define TEXT(s) s, sizeof(s) - 1
HOST(object_get) u64 object_get(const char *pointer, u32 length, char *buf, u32 limit);
HOST(object_set) int object_set(const char *pointer, u32 length, const char *json, u32 json_length);
static char buffer[256];
EXPORT(portico_abi_v1) void portico_abi_v1(void) {}
EXPORT(on_object) int on_object(void) {
	if (object_get(TEXT("/involvedObject/name"), buffer, sizeof buffer) >> 32 != 0)
		return object_set(TEXT("/involvedObject/name"), TEXT("\"vault\"")) == 0 ? 2 : 9;
	return object_set(TEXT("/metadata/labels/forged"), TEXT("\"yes\"")) == 0 ? 2 : 9;
}
`

// moduleOf builds a guest, or skips the test where there is no clang for it, and
// returns its text in base64.
func moduleOf(t *testing.T, code string) string {
	t.Helper()
	source := filepath.Join(t.TempDir(), "guest.c")
	if err := os.WriteFile(source, []byte(code), 0o600); err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(tck.FromC(t, source))
}

// TestModulesGetNothingPastThePolicy binds a module that makes something else of what
// nodes write to what they may.
func TestModulesGetNothingPastThePolicy(t *testing.T) {
	module := moduleOf(t, forger)
	p := start(t)
	apply(t, byLabel)
	kubelet := newClient(t, p, kubeletOf(t, edge))
	told := event("web.one", "Pod", "web")
	if a := kubelet.send(told.method, told.path, told.media, told.body); a.code != http.StatusCreated {
		t.Fatalf("without the module: %d: %s", a.code, a.body)
	}
	manifest := `apiVersion: proxy.elf.io/v1alpha1
kind: WasmFilter
metadata: {name: forger}
spec:
  source: {inline: ` + module + `}
  limits: {wallClock: 10s}
---
apiVersion: proxy.elf.io/v1alpha1
kind: FilterBinding
metadata: {name: forger}
spec:
  filterRef: {kind: WasmFilter, name: forger}
  match: {resources: [{resource: events}, {resource: nodes/status}, {resource: nodes}], verbs: [create, update]}
`
	t.Cleanup(func() { must(t, manifest, "delete", "-f", "-") })
	must(t, manifest, "apply", "-f", "-")
	must(t, "", "wait", "--for=condition=Programmed", "--timeout=2m", "wasmfilter/forger", "filterbinding/forger")
	told = event("web.two", "Pod", "web")
	if a := kubelet.send(told.method, told.path, told.media, told.body); !a.refused() {
		t.Errorf("an Event that became another: %d: %s", a.code, a.body)
	}
	const own = "/api/v1/nodes/" + edge
	is := kubelet.get(own)
	if a := kubelet.send("PUT", own+"/status", "application/json", is.body); !a.refused() {
		t.Errorf("a Node that became another: %d: %s", a.code, a.body)
	}
	if out := must(t, "", "get", "events,nodes", "--all-namespaces", "--output=yaml"); strings.Contains(out, "forged:") || strings.Contains(out, "name: web.two") {
		t.Errorf("there is\n%s", out)
	}
	kubelet.got.Reset()
}
