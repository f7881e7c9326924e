package filters

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/portico-proxy/portico/test/proxy"
)

// talkers is what `portico inspect talkers` prints.
func talkers(t *testing.T, p *proxied, flags ...string) []string {
	t.Helper()
	metrics, err := url.Parse(p.Metrics)
	if err != nil {
		t.Fatal(err)
	}
	args := append([]string{"inspect", "talkers", "--metrics-bind-address=" + metrics.Host}, flags...)
	out, err := exec.CommandContext(t.Context(), proxy.Binary(t), args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

func TestInspectTalkersShowsWhoCostsWhat(t *testing.T) {
	p := &proxied{newProxy(t)}
	joe, jane := p.as(t, "joe"), p.as(t, "jane")
	for range 7 {
		joe.get(t, "/api/v1/pods")
	}
	jane.get(t, "/api/v1/namespaces/default/pods?resourceVersion=0")
	lines := talkers(t, p, "--total")
	header := strings.Fields(lines[0])
	for _, line := range lines[1:] {
		row := map[string]string{}
		for i, cell := range strings.Fields(line) {
			row[header[i]] = cell
		}
		if row["USER"] == "joe" && (row["RESOURCE"] != "pods" || row["REQUESTS"] != "7" || row["QUORUM"] != "7" || row["LIST-BYTES"] == "0") {
			t.Errorf("joe's row is %v", row)
		}
	}
	if !strings.HasPrefix(lines[1], "joe ") || !strings.Contains(strings.Join(lines, "\n"), "\njane ") {
		t.Errorf("got\n%s", strings.Join(lines, "\n"))
	}
}

// ofRego are a RegoPolicy with a shipped policy, and its binding.
func ofRego(t *testing.T, name, settings, match string) string {
	t.Helper()
	text := readFile(t, "../../../plugins/policies/"+name+"/"+name+".rego")
	object := strings.ReplaceAll(name, "_", "-")
	return fmt.Sprintf(`apiVersion: proxy.elf.io/v1alpha1
kind: RegoPolicy
metadata: {name: %[1]s}
spec:
  settings: %[2]s
  rego: |
    %[3]s
---
apiVersion: proxy.elf.io/v1alpha1
kind: FilterBinding
metadata: {name: %[1]s}
spec:
  filterRef: {kind: RegoPolicy, name: %[1]s}
  phase: Throttle
  match: %[4]s
`, object, settings, strings.ReplaceAll(text, "\n", "\n    "), match)
}

// TestWriteLoopsAreNoticedAndHeld has joe write the same thing over and over, and
// jane write as well.
func TestWriteLoopsAreNoticedAndHeld(t *testing.T) {
	dir := t.TempDir()
	policy := ofRego(t, "write_loops", "{tolerated: 3, secondsBetween: 3600}", "{resources: [{resource: configmaps}]}")
	if err := os.WriteFile(filepath.Join(dir, "policy.yaml"), []byte(policy), 0o600); err != nil {
		t.Fatal(err)
	}
	p := &proxied{newProxy(t, "--policy-dir="+dir)}
	must(t, world.KubeconfigPath(), "", "create", "configmap", "same", "-n", "default")
	t.Cleanup(func() { must(t, world.KubeconfigPath(), "", "delete", "configmap", "same", "-n", "default") })
	write := func(who caller) (*http.Response, string) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPatch, who.url+"/api/v1/namespaces/default/configmaps/same", strings.NewReader(`{"data":{"a":"b"}}`))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/merge-patch+json")
		res, err := who.client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		return res, res.Header.Get("Warning")
	}
	joe, jane := p.as(t, "joe"), p.as(t, "jane")
	until(t, "joe's loop is held", func() bool {
		res, warning := write(joe)
		return res.StatusCode == http.StatusTooManyRequests && strings.Contains(warning, "compare before you write")
	})
	if res, warning := write(jane); res.StatusCode != http.StatusOK || warning != "" {
		t.Errorf("jane got %d %s", res.StatusCode, warning)
	}
}

// TestRelistStormsWaitTurnByTurn has many read everything at once: all are served,
// and some of them have waited.
func TestRelistStormsWaitTurnByTurn(t *testing.T) {
	dir := t.TempDir()
	policy := ofRego(t, "relist_storms", "{seatsPerSecond: 1, patience: 30s}", "{resources: [{resource: secrets}]}")
	if err := os.WriteFile(filepath.Join(dir, "policy.yaml"), []byte(policy), 0o600); err != nil {
		t.Fatal(err)
	}
	p := &proxied{newProxy(t, "--policy-dir="+dir)}
	joe := p.as(t, "joe")
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			if res, err := joe.client.Get(joe.url + "/api/v1/secrets"); err != nil || res.StatusCode != http.StatusOK {
				t.Errorf("got %v, %v", res, err)
			} else {
				res.Body.Close()
			}
		})
	}
	wg.Wait()
	if n := p.Gauge(`portico_limit_decisions_total\{limit="relist",outcome="delayed",policy="relist-storms"\}`); n == 0 {
		t.Error("nobody has waited")
	}
}
