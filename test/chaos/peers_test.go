package chaos

import (
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"strings"
	"testing"
	"time"

	"github.com/portico-proxy/portico/test/authority"
	"github.com/portico-proxy/portico/test/proxy"
	"github.com/portico-proxy/portico/test/relay"
)

// TestUnheardFloorsAreFoundOut has one replica, which hears of the API servers late,
// confirm what others tell it without hearing it: as if they did not wait for it.
func TestUnheardFloorsAreFoundOut(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute; -short was given")
	}
	a := authority.New(t)
	n := 0
	flags := proxy.RelayedReplicaFlags(t, replicas, a, func(from, to string) {
		if n++; n == 2 {
			confirmUnheard(t, a, from, to)
			return
		}
		relay.At(t, from, to)
	})
	w := newWorld(t, sessionReads, flags)
	wrong := w.inSessions(t, 1, 0, func(time.Time) {
		for _, line := range w.lines[1] {
			line.Delay(relay.Back, late)
		}
	})
	if len(wrong) == 0 {
		t.Error("nothing went back")
	}
	t.Logf("%d things went wrong, such as: %s", len(wrong), strings.Join(wrong[:min(3, len(wrong))], "; "))
}

// confirmUnheard is a line from one address to another of a proxy whose peers' floors
// it confirms and keeps to itself. All else goes on.
func confirmUnheard(t *testing.T, a *authority.Authority, from, to string) {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(a.Pair(proxy.RelayedIP))
	if err != nil {
		t.Fatal(err)
	}
	roots := a.Roots()
	onward := &http.Transport{TLSClientConfig: &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair}, RootCAs: roots, ServerName: proxy.RelayedIP,
	}}
	rest := &httputil.ReverseProxy{Transport: onward, ErrorLog: log.New(io.Discard, "", 0), Rewrite: func(r *httputil.ProxyRequest) {
		r.Out.URL.Scheme, r.Out.URL.Host = "https", to
	}}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/floors" {
			rest.ServeHTTP(w, r)
			return
		}
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, "{}")
	}))
	_ = server.Listener.Close()
	if server.Listener, err = net.Listen("tcp", from); err != nil {
		t.Fatal(err)
	}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.TLS = &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair}, ClientCAs: roots, ClientAuth: tls.RequireAndVerifyClientCert}
	server.StartTLS()
	t.Cleanup(func() {
		server.Close()
		onward.CloseIdleConnections()
	})
}
