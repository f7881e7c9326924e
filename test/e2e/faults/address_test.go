package faults

import (
	"net/http"
	"testing"

	"github.com/portico-proxy/portico/test/controlplane"
	"github.com/portico-proxy/portico/test/proxy"
)

func TestEitherAPIServerIsEnough(t *testing.T) {
	p := before(t, "--server="+address(0), "--server="+address(1))
	c := admin(t, p)
	for _, part := range []controlplane.Part{first, second} {
		kill(t, part)
		bad := 0
		for range 50 {
			a := c.get(t, "/api/v1/namespaces/default")
			if a.code != http.StatusOK {
				bad++
			}
			if a.code != http.StatusOK && (!a.isUnavailable() || !a.retryable()) {
				t.Errorf("got %d, Retry-After %q: %s", a.code, a.header.Get("Retry-After"), a.body)
			}
		}
		if bad > 2 {
			t.Errorf("without %s: %d of 50 reads were not answered", part, bad)
		}
		restart(t, part)
	}
}

func TestProxyWaitsForTheAPIServer(t *testing.T) {
	kill(t, first)
	p := proxy.New(t, proxy.Options{Kubeconfig: world.KubeconfigPath(), Unready: true})
	c := admin(t, p)
	a := c.get(t, "/api/v1/namespaces/default")
	if !a.isUnavailable() || !a.retryable() {
		t.Errorf("got %d, Retry-After %q: %s", a.code, a.header.Get("Retry-After"), a.body)
	}
	if p.Ready() {
		t.Error("ready without an API server")
	}
	restart(t, first)
	eventually(t, "ready", p.Ready)
	if a := c.get(t, "/api/v1/namespaces/default"); a.code != http.StatusOK {
		t.Errorf("got %d: %s", a.code, a.body)
	}
}

// The proxy takes an API server that says nothing for 20 seconds for gone.
func TestFrozenAPIServerIsTakenForGone(t *testing.T) {
	t.Parallel()
	p := before(t, "--server="+address(1))
	c := admin(t, p)
	watch := watchOf(t.Context(), t, c, configMaps, "application/json")
	if err := world.Freeze(second); err != nil {
		t.Fatal(err)
	}
	defer world.Thaw(second) //nolint:errcheck // it may have been thawed
	old := c.get(t, "/api/v1/namespaces/default")
	if !old.isUnavailable() || !old.retryable() {
		t.Errorf("on an old connection: got %d: %s", old.code, old.body)
	}
	if err := drainErr(watch); err == nil {
		t.Error("the watch ended as if its time were over")
	}
	if again := c.get(t, "/api/v1/namespaces/default"); !again.isUnavailable() {
		t.Errorf("on a new connection: got %d: %s", again.code, again.body)
	}
	if err := world.Thaw(second); err != nil {
		t.Fatal(err)
	}
	eventually(t, "answers from the thawed API server", func() bool {
		return c.get(t, "/api/v1/namespaces/default").code == http.StatusOK
	})
}
