// Package faults breaks what is around the proxy, and the proxy, and holds it
// to what callers then see.
package faults

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/portico-proxy/portico/test/controlplane"
	"github.com/portico-proxy/portico/test/proxy"
)

// world is one control plane of two API servers for all tests of the package.
// Tests that run in parallel leave the first one alone.
var world *controlplane.ControlPlane

var first, second = controlplane.APIServerN(0), controlplane.APIServerN(1)

func TestMain(m *testing.M) {
	var err error
	world, err = controlplane.Start(context.Background(), controlplane.Options{
		Log: os.Stderr, APIServers: 2, Users: []controlplane.User{{Name: "old-proxy"}, {Name: "new-proxy"}},
		// The API server closes every fiftieth connection under load, as those
		// behind a load balancer do; its flag allows no more.
		Flags: map[controlplane.Part][]string{controlplane.APIServer: {"--goaway-chance=0.02"}},
	})
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

// address is where an API server of world listens.
func address(n int) string { return strings.TrimPrefix(world.URLs()[n], "https://") }

func before(t *testing.T, flags ...string) *proxy.Proxy {
	t.Helper()
	return proxy.New(t, proxy.Options{Kubeconfig: world.KubeconfigPath(), Flags: flags})
}

// caller has connections of its own and speaks as somebody.
type caller struct {
	url, token string
	client     *http.Client
}

// newCaller speaks HTTP/1.1 or HTTP/2 with whoever ca vouches for.
func newCaller(t *testing.T, url string, ca []byte, h2 bool) *caller {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: h2}
	if !h2 {
		tr.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
	}
	t.Cleanup(tr.CloseIdleConnections)
	return &caller{url: url, token: world.Token("admin").Token, client: &http.Client{Transport: tr}}
}

func admin(t *testing.T, p *proxy.Proxy) *caller { return newCaller(t, p.URL, p.CA, true) }

func (c *caller) send(ctx context.Context, method, path, body string, header http.Header) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, c.url+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header = header.Clone()
	if r.Header == nil {
		r.Header = http.Header{}
	}
	r.Header.Set("Authorization", "Bearer "+c.token)
	return c.client.Do(r)
}

// answer is one that has been read to its end.
type answer struct {
	code   int
	header http.Header
	body   []byte
}

// do returns an error where no answer came, or half of one.
func (c *caller) do(ctx context.Context, method, path, body string) (answer, error) {
	res, err := c.send(ctx, method, path, body, nil)
	if err != nil {
		return answer{}, err
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	return answer{code: res.StatusCode, header: res.Header, body: data}, err
}

func (c *caller) get(t *testing.T, path string) answer {
	t.Helper()
	a, err := c.do(t.Context(), http.MethodGet, path, "")
	if err != nil {
		t.Fatalf("GET %s: %v", path, err)
	}
	return a
}

// isUnavailable reports a 503 that clients of the API understand.
func (a answer) isUnavailable() bool {
	var s metav1.Status
	return a.code == http.StatusServiceUnavailable && json.Unmarshal(a.body, &s) == nil &&
		s.Kind == "Status" && s.Reason == metav1.StatusReasonServiceUnavailable
}

// retryable reports an answer that clients resend the request after.
func (a answer) retryable() bool { return a.header.Get("Retry-After") != "" }

// eventually waits until what holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(90 * time.Second)
	for !holds() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("still waiting: %s", what)
		}
	}
}

// watchOf opens a watch and returns when its header is there.
func watchOf(ctx context.Context, t *testing.T, c *caller, path, accept string) *http.Response {
	t.Helper()
	res, err := c.send(ctx, http.MethodGet, path+"?watch=1&timeoutSeconds=600", "", http.Header{"Accept": {accept}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	if res.StatusCode != http.StatusOK {
		t.Fatalf("watch %s: %s", path, res.Status)
	}
	return res
}

// configMap is one of about size bytes; name is its field of metadata.
func configMap(name string, size int) string {
	return `{"apiVersion":"v1","kind":"ConfigMap","metadata":{` + name + `},"data":{"v":"` + strings.Repeat("x", size) + `"}}`
}

// gauge reads a metric of the API server that the proxy is in front of.
func gauge(t *testing.T, n int, series string) string {
	t.Helper()
	a := newCaller(t, world.URLs()[n], world.Config().CAData, true).get(t, "/metrics")
	lines := bufio.NewScanner(strings.NewReader(string(a.body)))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), series+" "); ok {
			return value
		}
	}
	return "0"
}

func kill(t *testing.T, part controlplane.Part) {
	t.Helper()
	if err := world.Kill(part); err != nil {
		t.Fatal(err)
	}
}

func restart(t *testing.T, part controlplane.Part) {
	t.Helper()
	if err := world.Restart(t.Context(), part); err != nil {
		t.Fatal(err)
	}
}
