// Package views has tenants of one cluster look at it through a real proxy, before
// a real API server.
package views

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"github.com/portico-proxy/portico/test/controlplane"
	"github.com/portico-proxy/portico/test/proxy"
)

// world is one control plane for all tests of the package. The API server lets
// everybody in it do everything: all that keeps them apart is their view.
var world *controlplane.ControlPlane

func TestMain(m *testing.M) {
	var users []controlplane.User
	for _, name := range []string{"anna", "bert", "carl", "dora", "emil", "fred", "gina", "hugo", "ines", "jack", "kate", "liam", "mona", "nils", "oona", "pete", "quin", "ruth"} {
		users = append(users, controlplane.User{Name: name, Groups: []string{"system:masters"}})
	}
	for name, team := range map[string]string{"rita": "red", "bill": "blue", "nora": "none"} {
		users = append(users, controlplane.User{Name: name, Groups: []string{"system:masters", "team:" + team}})
	}
	var err error
	world, err = controlplane.Start(context.Background(), controlplane.Options{Log: os.Stderr, Users: append(users, controlplane.User{Name: "plain"})})
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

// admin runs kubectl past the proxy.
func admin(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	return must(t, world.KubeconfigPath(), stdin, args...)
}

// apply makes objects until the test ends.
func apply(t *testing.T, manifest string) {
	t.Helper()
	t.Cleanup(func() { admin(t, manifest, "delete", "--wait=false", "--ignore-not-found", "-f", "-") })
	admin(t, manifest, "apply", "--server-side", "--force-conflicts", "-f", "-")
}

// show puts a view in force until the test ends.
func show(t *testing.T, name, spec string) {
	t.Helper()
	apply(t, "apiVersion: proxy.elf.io/v1alpha1\nkind: VirtualView\nmetadata: {name: "+name+"}\nspec:\n"+spec)
	admin(t, "", "wait", "--for=condition=Programmed", "--timeout=2m", "virtualview", name)
}

func newProxy(t *testing.T) *proxy.Proxy {
	t.Helper()
	return proxy.New(t, proxy.Options{Kubeconfig: world.KubeconfigPath()})
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

// A tenant talks through a proxy, and keeps every byte that comes back.
type tenant struct {
	cfg    *rest.Config
	client *http.Client

	mu   sync.Mutex // guards following
	seen bytes.Buffer
}

func newTenant(t *testing.T, p *proxy.Proxy, name string) *tenant {
	t.Helper()
	a := &tenant{cfg: p.Config(world.Token(name))}
	a.cfg.Wrap(func(under http.RoundTripper) http.RoundTripper { return &ear{under, a} })
	a.cfg.WarningHandler = rest.NoWarnings{}
	var err error
	if a.client, err = rest.HTTPClientFor(a.cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.client.CloseIdleConnections)
	return a
}

// ear hears all that a tenant is sent.
type ear struct {
	under http.RoundTripper
	of    *tenant
}

func (e *ear) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := e.under.RoundTrip(r)
	if err == nil {
		e.of.hear(fmt.Appendln(nil, res.Header))
		res.Body = &heard{res.Body, e.of}
	}
	return res, err
}

type heard struct {
	io.ReadCloser
	of *tenant
}

func (h *heard) Read(p []byte) (int, error) {
	n, err := h.ReadCloser.Read(p)
	h.of.hear(p[:n])
	return n, err
}

func (a *tenant) hear(p []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.seen.Write(p)
}

// neverSaw fails if one of some markers was among the bytes that came.
func (a *tenant) neverSaw(t *testing.T, markers ...string) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, m := range markers {
		if i := bytes.Index(a.seen.Bytes(), []byte(m)); i >= 0 {
			t.Errorf("%q was on the wire: …%s…", m, a.seen.Bytes()[max(0, i-300):min(a.seen.Len(), i+100)])
		}
	}
}

// do sends a request. A body's type is told by its beginning, or before a |.
func (a *tenant) do(t *testing.T, method, path, body string) (code int, answer string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, a.cfg.Host+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if media, text, ok := strings.Cut(body, "|"); ok {
		r.Header.Set("Content-Type", media)
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader(text)), int64(len(text))
	}
	r.Header.Set("Accept", "application/json")
	res, err := a.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return res.StatusCode, string(text)
}

// is fails if a request is answered otherwise.
func (a *tenant) is(t *testing.T, method, path, body string, code int, says ...string) string {
	t.Helper()
	got, answer := a.do(t, method, path, body)
	if got != code {
		t.Errorf("%s %s: got %d, want %d\n%s", method, path, got, code, answer)
	}
	for _, s := range says {
		if !strings.Contains(answer, s) {
			t.Errorf("%s %s does not say %q:\n%s", method, path, s, answer)
		}
	}
	return answer
}
