package filters

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// ofGuest is a WasmFilter with a generous limit: nothing here shall run out of time.
func ofGuest(name, source string) string {
	return fmt.Sprintf(`apiVersion: proxy.elf.io/v1alpha1
kind: WasmFilter
metadata: {name: %s}
spec:
  source: %s
  config: {}
  limits: {wallClock: 10s}
`, name, source)
}

// bound is a FilterBinding of a filter's own name, for ConfigMaps that jane makes.
func bound(name string) string {
	return fmt.Sprintf(`---
apiVersion: proxy.elf.io/v1alpha1
kind: FilterBinding
metadata: {name: %s}
spec:
  filterRef: {kind: WasmFilter, name: %[1]s}
  match:
    users: [jane]
    verbs: [create]
    resources: [{resource: configmaps}]
`, name)
}

const made = "apiVersion: v1\nkind: ConfigMap\nmetadata: {generateName: made-, namespace: default}\n"

// labelsOf makes a ConfigMap and returns its labels.
func labelsOf(t *testing.T, kubeconfig string) (string, error) {
	t.Helper()
	return kubectl(kubeconfig, made, "create", "-f", "-", "--dry-run=server", "-o", "jsonpath={.metadata.labels}")
}

func TestFiltersOfTheAPIRun(t *testing.T) {
	p := newProxy(t)
	jane, joe := p.Kubeconfig(world.Token("jane")), p.Kubeconfig(world.Token("joe"))
	apply(t, ofGuest("stamp", "{inline: "+encoded(t, fromC(t, "../../../plugins/tck/guests/c/guest.c"))+"}")+bound("stamp"))
	inForce(t, "wasmfilter/stamp", "filterbinding/stamp")
	must(t, world.KubeconfigPath(), "", "wait", "--for=condition=Compiled", "--timeout=2m", "wasmfilter/stamp")
	if got, err := labelsOf(t, jane); err != nil || got != `{"team":"web"}` {
		t.Errorf("jane's: %v, %s", err, got)
	}
	if got, err := labelsOf(t, joe); err != nil || got != "" {
		t.Errorf("joe's: %v, %s", err, got)
	}
	hidden := strings.Replace(made, "}", ", labels: {hide: \"yes\"}}", 1)
	if got, err := kubectl(jane, hidden, "create", "-f", "-", "--dry-run=server"); err == nil || !strings.Contains(got, "hidden (filter stamp)") {
		t.Errorf("refused: %v, %s", err, got)
	}
	if p.Gauge(`portico_filter_duration_seconds_count`) < 2 {
		t.Error("decisions are not counted")
	}
}

func TestFilterThatIsMissingFailsClosedAndIsReported(t *testing.T) {
	p := newProxy(t)
	jane := p.Kubeconfig(world.Token("jane"))
	apply(t, bound("late"))
	must(t, world.KubeconfigPath(), "", "wait", "--for=condition=Programmed=false", "--timeout=2m", "filterbinding/late")
	if got := must(t, world.KubeconfigPath(), "", "get", "filterbinding", "late", "-o", "wide"); !strings.Contains(got, "WasmFilter late: there is no WasmFilter of that name") {
		t.Errorf("kubectl get shows\n%s", got)
	}
	if got, err := labelsOf(t, jane); err == nil || !strings.Contains(got, "filter late: there is no WasmFilter of that name") {
		t.Errorf("%v, %s", err, got)
	}
	apply(t, ofGuest("late", "{inline: "+encoded(t, fromC(t, "../../../plugins/tck/guests/c/guest.c"))+"}"))
	inForce(t, "filterbinding/late")
	if got, err := labelsOf(t, jane); err != nil || got != `{"team":"web"}` {
		t.Errorf("%v, %s", err, got)
	}
}

func TestFiltersOfFilesRun(t *testing.T) {
	dir, guest := t.TempDir(), fromC(t, "../../../plugins/tck/guests/c/guest.c")
	policy := ofGuest("stamp", "{file: "+guest+"}") + bound("stamp")
	if err := os.WriteFile(filepath.Join(dir, "stamp.yaml"), []byte(policy), 0o600); err != nil {
		t.Fatal(err)
	}
	p := newProxy(t, "--policy-dir="+dir, "--watch-cache=false", "--filter-cache-dir="+t.TempDir())
	jane := p.Kubeconfig(world.Token("jane"))
	if got, err := labelsOf(t, jane); err != nil || got != `{"team":"web"}` {
		t.Errorf("%v, %s", err, got)
	}
	if err := os.Remove(filepath.Join(dir, "stamp.yaml")); err != nil {
		t.Fatal(err)
	}
	until(t, "the policy is gone", func() bool { got, err := labelsOf(t, jane); return err == nil && got == "" })
}

// hostile guests do this to whoever asks them.
const hostile = `
__attribute__((export_name("portico_abi_v1"))) void marker(void) {}
__attribute__((export_name("on_request"))) int on_request(void) { %s }
`

func TestHostileFilterHarmsNobodyElse(t *testing.T) {
	p := newProxy(t)
	jane, joe, pid := p.Kubeconfig(world.Token("jane")), p.Kubeconfig(world.Token("joe")), p.Pid()
	for name, tt := range map[string]struct{ body, want string }{
		"loops": {"for (volatile int x = 0;; x++) {}", "filter loops: the guest took too long"},
		"eats":  {"while (__builtin_wasm_memory_grow(0, 16) != -1) {} __builtin_trap();", "filter eats: the guest trapped"},
		"lies":  {"return 77;", "filter lies: the guest returned what portico.v1 does not know"},
	} {
		t.Run(name, func(t *testing.T) {
			source := filepath.Join(t.TempDir(), "guest.c")
			if err := os.WriteFile(source, fmt.Appendf(nil, hostile, tt.body), 0o600); err != nil {
				t.Fatal(err)
			}
			guest := ofGuest(name, "{inline: "+encoded(t, fromC(t, source))+"}")
			if name == "loops" {
				guest = strings.Replace(guest, "10s", "50ms", 1)
			}
			apply(t, guest+bound(name))
			inForce(t, "wasmfilter/"+name, "filterbinding/"+name)
			for range 3 { // more often than it has instances
				if out, err := labelsOf(t, jane); err == nil || !strings.Contains(out, tt.want) {
					t.Errorf("jane gets %v, %s", err, out)
				}
				if out, err := labelsOf(t, joe); err != nil {
					t.Errorf("joe gets %v, %s", err, out)
				}
			}
		})
	}
	if p.Pid() != pid || !p.Ready() {
		t.Error("the proxy noticed")
	}
}

func TestFiltersOfConfigMapsRun(t *testing.T) {
	p, guest := newProxy(t), fromC(t, "../../../plugins/tck/guests/c/guest.c")
	code, err := os.ReadFile(guest)
	if err != nil {
		t.Fatal(err)
	}
	// First the filter: the module comes when it comes.
	source := fmt.Sprintf("{configMap: {namespace: default, name: guest, key: guest.wasm}, sha256: %x}", sha256.Sum256(code))
	apply(t, ofGuest("stamp", source)+bound("stamp"))
	must(t, world.KubeconfigPath(), "", "wait", "--for=condition=Compiled=false", "--timeout=2m", "wasmfilter/stamp")
	must(t, world.KubeconfigPath(), "", "create", "configmap", "guest", "--from-file="+guest)
	t.Cleanup(func() { must(t, world.KubeconfigPath(), "", "delete", "configmap", "guest") })
	inForce(t, "wasmfilter/stamp", "filterbinding/stamp")
	if got, err := labelsOf(t, p.Kubeconfig(world.Token("jane"))); err != nil || got != `{"team":"web"}` {
		t.Errorf("%v, %s", err, got)
	}
}

func TestTheAPIServerRefusesBadFilters(t *testing.T) {
	for name, tt := range map[string]struct{ manifest, want string }{
		"two-sources":     {ofGuest("bad", "{file: /a, inline: AAAA}"), "set exactly one of"},
		"no-source":       {ofGuest("bad", "{}"), "set exactly one of"},
		"unpinned":        {ofGuest("bad", "{url: \"https://example.org/f.wasm\"}"), "needs its sha256"},
		"too-patient":     {strings.Replace(ofGuest("bad", "{file: /a}"), "10s", "11s", 1), "at most 10s"},
		"unknown-power":   {ofGuest("bad", "{file: /a}") + "  capabilities: [files]\n", "spec.capabilities"},
		"http-wasm-power": {ofGuest("bad", "{file: /a}") + "  abi: HTTPWasmV1\n  capabilities: [kv]\n", "cannot be granted capabilities"},
		"unknown-phase":   {bound("bad") + "  phase: Magic\n", "spec.phase"},
		"unknown-kind":    {strings.Replace(bound("bad"), "kind: WasmFilter", "kind: Magic", 1), "spec.filterRef.kind"},
	} {
		if out, err := kubectl(world.KubeconfigPath(), tt.manifest, "create", "-f", "-"); err == nil || !strings.Contains(out, tt.want) {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}
