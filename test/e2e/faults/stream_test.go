package faults

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"

	"github.com/portico-proxy/portico/test/controlplane"
	"github.com/portico-proxy/portico/test/proxy"
)

// drainErr reads a stream to its end; nil means a clean one.
func drainErr(res *http.Response) error {
	_, err := io.Copy(io.Discard, res.Body)
	return err
}

func TestWatchEndsUpstreamWithItsWatcher(t *testing.T) {
	t.Parallel()
	p := before(t, "--watch-cache=false") // memory watches on, for whoever comes next
	const path, series = "/api/v1/podtemplates", `apiserver_longrunning_requests{component="apiserver",group="",resource="podtemplates",scope="cluster",subresource="",verb="WATCH",version="v1"}`
	before := gauge(t, 0, series)
	ctx, cancel := context.WithCancel(t.Context())
	for n := range 10 {
		watchOf(ctx, t, newCaller(t, p.URL, p.CA, n%2 == 0), path, "application/json")
	}
	during := gauge(t, 0, series)
	if during == before {
		t.Fatalf("%s is %s with ten watches more", series, during)
	}
	cancel()
	eventually(t, "as many watches as before", func() bool { return gauge(t, 0, series) == before })
}

// origin is an API server that never ends what it begins.
type origin struct {
	*httptest.Server
	begun, ended chan string
}

func newOrigin(t *testing.T) *origin {
	t.Helper()
	o := &origin{begun: make(chan string, 10), ended: make(chan string, 10)}
	o.Server = httptest.NewUnstartedServer(http.HandlerFunc(o.serve))
	o.EnableHTTP2 = true
	o.StartTLS()
	t.Cleanup(o.Close)
	return o
}

func (o *origin) serve(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/livez":
		return
	case "/silent":
		o.begun <- r.URL.Path
		<-r.Context().Done()
	case "/half":
		_, _ = io.WriteString(w, "half")
		_ = http.NewResponseController(w).Flush()
		o.begun <- r.URL.Path
		<-r.Context().Done()
	case "/upgrade":
		w.Header().Set("Connection", "Upgrade")
		w.Header().Set("Upgrade", "echo")
		w.WriteHeader(http.StatusSwitchingProtocols)
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		defer conn.Close()
		o.begun <- r.URL.Path
		_, _ = io.Copy(conn, rw)
	default: // what the proxy asks for itself
		w.WriteHeader(http.StatusNotFound)
		return
	}
	o.ended <- r.URL.Path
}

// beforeOrigin is a proxy in front of o.
func beforeOrigin(t *testing.T, o *origin, flags ...string) *proxy.Proxy {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kubeconfig")
	k := controlplane.Kubeconfig{Server: o.URL, CA: certificatePEM(o.Certificate().Raw), Credential: controlplane.Credential{Token: "the-proxy"}}
	if err := k.WriteFile(path); err != nil {
		t.Fatal(err)
	}
	return proxy.New(t, proxy.Options{Kubeconfig: path, Flags: flags})
}

var upgrade = http.Header{"Connection": {"Upgrade"}, "Upgrade": {"echo"}}

func TestRequestEndsUpstreamWithItsCaller(t *testing.T) {
	t.Parallel()
	o := newOrigin(t)
	p := beforeOrigin(t, o)
	for _, path := range []string{"/silent", "/half", "/upgrade"} {
		for _, h2 := range []bool{false, true} {
			header := http.Header{}
			if path == "/upgrade" {
				if h2 {
					continue
				}
				header = upgrade
			}
			c := newCaller(t, p.URL, p.CA, h2)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() {
				defer close(done)
				if res, err := c.send(ctx, http.MethodGet, path, "", header); err == nil {
					<-ctx.Done()
					res.Body.Close()
				}
			}()
			<-o.begun
			cancel()
			<-done
			<-o.ended // or the test hangs here
		}
	}
}
