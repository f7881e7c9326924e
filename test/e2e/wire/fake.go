package wire

import (
	"crypto/tls"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/portico-proxy/portico/test/controlplane"
)

// A Fake is an API server only as far as a proxy must believe it: for what the
// real one does once in a thousand times, or to break something on purpose.
type Fake struct {
	Server
	Kubeconfig string // of nobody in particular
	HTTP       *httptest.Server
}

// NewFake serves h over HTTP/1.1 and HTTP/2 until the test ends. /livez is
// answered before h is asked, so that a proxy becomes ready, and what the proxy
// asks for itself is not there. A handler that waits must end with its request.
func NewFake(tb testing.TB, h http.HandlerFunc) *Fake {
	tb.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/livez":
		case strings.HasPrefix(r.UserAgent(), "portico"):
			w.WriteHeader(http.StatusNotFound)
		default:
			h(w, r)
		}
	}))
	s.EnableHTTP2 = true
	s.TLS = &tls.Config{NextProtos: []string{"h2", "http/1.1"}, MinVersion: tls.VersionTLS12}
	s.StartTLS()
	tb.Cleanup(s.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	path := filepath.Join(tb.TempDir(), "fake.kubeconfig")
	if err := (controlplane.Kubeconfig{Server: s.URL, CA: ca}).WriteFile(path); err != nil {
		tb.Fatal(err)
	}
	return &Fake{Server: At(s.URL, ca), Kubeconfig: path, HTTP: s}
}
