package nodes

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/portico-proxy/portico/test/controlplane"
	"github.com/portico-proxy/portico/test/proxy"
)

// A client keeps every byte that it is sent.
type client struct {
	t    *testing.T
	cfg  *rest.Config
	http *http.Client

	mu  sync.Mutex // guards following
	got bytes.Buffer
}

// newClient returns one whose bytes are searched for what it must not see when the
// test ends.
func newClient(t *testing.T, p *proxy.Proxy, cred controlplane.Credential) *client {
	t.Helper()
	c := &client{t: t, cfg: p.Config(cred)}
	c.cfg.Wrap(func(rt http.RoundTripper) http.RoundTripper { return tap{rt, c} })
	var err error
	if c.http, err = rest.HTTPClientFor(c.cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.http.CloseIdleConnections()
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, text := range []string{marker, hidden} {
			if i := strings.Index(c.got.String(), text); i >= 0 {
				t.Errorf("it was sent %q", c.got.String()[max(0, i-300):i+len(text)])
			}
		}
	})
	return c
}

func (c *client) set() *kubernetes.Clientset {
	c.t.Helper()
	set, err := kubernetes.NewForConfigAndClient(c.cfg, c.http)
	if err != nil {
		c.t.Fatal(err)
	}
	return set
}

func (c *client) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.got.Write(p)
}

// tap copies what a client is sent, uncompressed.
type tap struct {
	http.RoundTripper
	to io.Writer
}

func (t tap) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Accept-Encoding", "identity")
	res, err := t.RoundTripper.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	res.Body = struct {
		io.Reader
		io.Closer
	}{io.TeeReader(res.Body, t.to), res.Body}
	return res, nil
}

// An answer is what a request gets.
type answer struct {
	code     int
	body     string
	servedBy string
}

// send sends a request whose body, if there is one, is of a media type.
func (c *client) send(method, path, mediaType, body string, headers ...string) answer {
	c.t.Helper()
	r, err := http.NewRequestWithContext(c.t.Context(), method, c.cfg.Host+path, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	if mediaType != "" {
		r.Header.Set("Content-Type", mediaType)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	res, err := c.http.Do(r)
	if err != nil {
		c.t.Fatal(err)
	}
	defer res.Body.Close()
	all, err := io.ReadAll(res.Body)
	if err != nil {
		c.t.Fatalf("%s %s: %v", method, path, err)
	}
	return answer{res.StatusCode, string(all), res.Header.Get("Portico-Served-By")}
}

func (c *client) get(path string, headers ...string) answer {
	c.t.Helper()
	return c.send(http.MethodGet, path, "", "", headers...)
}

// refused reports that a NodePolicy refused.
func (a answer) refused() bool {
	return a.code == http.StatusForbidden && strings.Contains(a.body, "(NodePolicy ")
}
