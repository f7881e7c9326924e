// Package filters runs filters in a real proxy, before a real API server.
package filters

import (
	"context"
	"encoding/base64"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/portico-proxy/portico/plugins/tck"
	"github.com/portico-proxy/portico/test/controlplane"
	"github.com/portico-proxy/portico/test/proxy"
)

// world is one control plane for all tests of the package.
var world *controlplane.ControlPlane

func TestMain(m *testing.M) {
	var err error
	world, err = controlplane.Start(context.Background(), controlplane.Options{
		Log: os.Stderr, Users: []controlplane.User{{Name: "jane", Groups: []string{"system:masters"}}, {Name: "joe", Groups: []string{"system:masters"}}},
	})
	if err == nil {
		err = world.AddDefinitions(context.Background(), "../../../crds/manifests")
	}
	if err != nil {
		panic(err)
	}
	code := m.Run()
	if code != 0 {
		_, _ = io.WriteString(os.Stderr, world.LogTails(30))
	}
	world.Stop()
	os.Exit(code)
}

// kubectl runs directly as admin, or through what kubeconfig names.
func kubectl(kubeconfig, stdin string, args ...string) (string, error) {
	// Cleanups run it after the test's own context has ended.
	cmd := world.Kubectl(context.Background(), kubeconfig, args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func must(t *testing.T, kubeconfig, stdin string, args ...string) string {
	t.Helper()
	out, err := kubectl(kubeconfig, stdin, args...)
	if err != nil {
		t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// apply makes objects until the test ends.
func apply(t *testing.T, manifest string) {
	t.Helper()
	t.Cleanup(func() { must(t, world.KubeconfigPath(), manifest, "delete", "--ignore-not-found", "-f", "-") })
	must(t, world.KubeconfigPath(), manifest, "apply", "-f", "-")
}

// inForce waits until a proxy has put policies in force.
func inForce(t *testing.T, policies ...string) {
	t.Helper()
	must(t, world.KubeconfigPath(), "", append([]string{"wait", "--for=condition=Programmed", "--timeout=2m"}, policies...)...)
}

// until waits for something that happens in another process.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	tick, deadline := time.NewTicker(50*time.Millisecond), time.After(2*time.Minute)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

func newProxy(t *testing.T, flags ...string) *proxy.Proxy {
	t.Helper()
	return proxy.New(t, proxy.Options{Kubeconfig: world.KubeconfigPath(), Flags: flags})
}

// fromC builds a guest, or skips the test where there is no clang for it.
func fromC(t *testing.T, source string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "guest.wasm")
	if err := os.WriteFile(out, tck.FromC(t, source), 0o600); err != nil {
		t.Fatal(err)
	}
	return out
}

func encoded(t *testing.T, path string) string {
	t.Helper()
	code, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(code)
}
