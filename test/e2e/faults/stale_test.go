package faults

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const stalePolicy = `apiVersion: proxy.elf.io/v1alpha1
kind: CachePolicy
metadata:
  name: configmaps-while-the-api-server-is-gone
spec:
  resources:
  - resource: configmaps
  staleIfError: 30m
`

// tokenReviews counts those that the API server has made.
const tokenReviews = `apiserver_request_total{code="201",component="apiserver",dry_run="",group="authentication.k8s.io",resource="tokenreviews",scope="resource",subresource="",verb="POST",version="v1"}`

// TestReadsAreStaleWhileTheAPIServerIsGone kills the API server, and then freezes it,
// longer than decisions about callers live.
func TestReadsAreStaleWhileTheAPIServerIsGone(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "stale.yaml"), []byte(stalePolicy), 0o600); err != nil {
		t.Fatal(err)
	}
	p := before(t, "--server="+address(0), "--policy-dir="+dir)
	c := admin(t, p)
	write(t, c, "stale-one")
	keep(t, c)
	if a := c.get(t, configMaps+"/stale-one"); a.code != http.StatusOK || a.header.Get("Portico-Served-By") != "upstream" {
		t.Errorf("while it is there: %d by %s", a.code, a.header.Get("Portico-Served-By"))
	}
	// A proxy that has just learned of RBAC forgets what was decided before that.
	reviewed := gauge(t, 0, tokenReviews)
	eventually(t, "decisions that are newer", func() bool {
		fresh(t, c, "stale-one")
		return gauge(t, 0, tokenReviews) != reviewed
	})
	fresh(t, c, "stale-one")
	c.get(t, configMaps+"/stale-one")
	c.get(t, configMaps+"/stale-none")

	kill(t, first)
	// While decisions live, a read of any state is answered as ever.
	eventually(t, "decisions outlived", func() bool {
		return c.get(t, configMaps+"?resourceVersion=0").header.Get("Portico-Served-By") == "stale"
	})
	checkStale(t, c)
	// A load balancer that asks like this goes on sending what can be answered.
	if p.Ready() || !p.ReadyBut("upstream") {
		t.Errorf("ready: %v, and %v but for the API server", p.Ready(), p.ReadyBut("upstream"))
	}
	stranger := admin(t, p)
	stranger.token = world.Token("old-proxy").Token
	if a := stranger.get(t, configMaps); a.code != http.StatusServiceUnavailable {
		t.Errorf("somebody who has not been allowed before got %d: %.200s", a.code, a.body)
	}
	if a, err := c.do(t.Context(), http.MethodPost, configMaps, configMap(`"name":"stale-none"`, 1)); err != nil || !a.isUnavailable() {
		t.Errorf("a write got %d, %v", a.code, err)
	}
	restart(t, first)
	keep(t, c)
	fresh(t, c, "stale-one")

	if err := world.Freeze(first); err != nil {
		t.Fatal(err)
	}
	defer world.Thaw(first) //nolint:errcheck // it may have been thawed
	checkStale(t, c)
	if err := world.Thaw(first); err != nil {
		t.Fatal(err)
	}
	fresh(t, c, "stale-one")
	write(t, c, "stale-two")
	fresh(t, c, "stale-two")
}

// keep waits until memory has the ConfigMaps. Of a list that went upstream meanwhile it
// would have to be asked how new it was.
func keep(t *testing.T, c *caller) {
	t.Helper()
	eventually(t, "memory", func() bool {
		return c.get(t, configMaps+"/stale-one?resourceVersion=0").header.Get("Portico-Served-By") == "cache"
	})
}

func write(t *testing.T, c *caller, name string) {
	t.Helper()
	a, err := c.do(t.Context(), http.MethodPost, configMaps, configMap(`"name":"`+name+`"`, 1))
	if err != nil || a.code != http.StatusCreated {
		t.Fatalf("write %s: %d, %v: %s", name, a.code, err, a.body)
	}
}

// fresh waits for a list that is not stale. It must have what was written before.
func fresh(t *testing.T, c *caller, name string) {
	t.Helper()
	eventually(t, "a list that is not stale", func() bool {
		a := c.get(t, configMaps)
		if a.code != http.StatusOK || a.header.Get("Portico-Served-By") == "stale" {
			return false
		}
		if !strings.Contains(string(a.body), `"name":"`+name+`"`) || len(a.header["Warning"]) > 0 {
			t.Fatalf("by %s, warning %q: %s", a.header.Get("Portico-Served-By"), a.header["Warning"], a.body)
		}
		return true
	})
}

// checkStale reads what there was, and what there was not.
func checkStale(t *testing.T, c *caller) {
	t.Helper()
	for path, code := range map[string]int{
		configMaps: http.StatusOK, configMaps + "/stale-one": http.StatusOK, configMaps + "/stale-none": http.StatusServiceUnavailable,
		"/api/v1/namespaces": http.StatusServiceUnavailable,
	} {
		a := c.get(t, path)
		if a.code != code {
			t.Errorf("%s: %d, want %d: %.300s", path, a.code, code, a.body)
		}
		if code != http.StatusOK {
			continue
		}
		if w := strings.Join(a.header["Warning"], "; "); !strings.Contains(w, "110 ") || !strings.Contains(w, "299 ") || a.header.Get("Age") == "" {
			t.Errorf("%s: by %s, age %q, warning %q", path, a.header.Get("Portico-Served-By"), a.header.Get("Age"), w)
		}
	}
}
