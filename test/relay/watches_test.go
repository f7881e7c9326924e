package relay

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/portico-proxy/portico/test/authority"
)

// watched is a watch through a relay of what the test sends.
type watched struct {
	*Watches
	sends chan string
	lines *bufio.Reader
}

func watch(t *testing.T) *watched {
	t.Helper()
	a := authority.New(t)
	pair, err := tls.LoadX509KeyPair(a.Pair("127.0.0.1"))
	if err != nil {
		t.Fatal(err)
	}
	roots := a.Roots()
	w := &watched{sends: make(chan string)}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", "application/json")
		_ = http.NewResponseController(rw).Flush()
		for {
			select {
			case kind, ok := <-w.sends:
				if !ok {
					return
				}
				_, _ = fmt.Fprintf(rw, "{\"type\":%q}\n", kind)
				_ = http.NewResponseController(rw).Flush()
			case <-r.Context().Done():
				return
			}
		}
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.TLS = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}}
	server.StartTLS()
	t.Cleanup(server.Close)
	w.Watches = NewWatches(t, server.Listener.Addr().String(), pair, roots)
	transport := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
	res, err := (&http.Client{Transport: transport}).Get("https://" + w.Address + "/?watch=true")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close(); transport.CloseIdleConnections() })
	w.lines = bufio.NewReader(res.Body)
	return w
}

// expect sends kinds and expects to hear others.
func (w *watched) expect(t *testing.T, send, hear string) {
	t.Helper()
	for kind := range strings.FieldsSeq(send) {
		w.sends <- kind
	}
	for kind := range strings.FieldsSeq(hear) {
		line, err := w.lines.ReadString('\n')
		if want := fmt.Sprintf("{\"type\":%q}\n", kind); line != want || err != nil {
			t.Fatalf("heard %q, %v; want %q", line, err, want)
		}
	}
}

func TestBookmarksAreLostAndAllElseGoesOn(t *testing.T) {
	w := watch(t)
	w.expect(t, "ADDED BOOKMARK MODIFIED", "ADDED BOOKMARK MODIFIED")
	w.Starve()
	w.expect(t, "BOOKMARK ADDED BOOKMARK DELETED", "ADDED DELETED")
	w.Feed()
	w.expect(t, "BOOKMARK ADDED", "BOOKMARK ADDED")
	close(w.sends)
	if rest, err := w.lines.ReadString('\n'); rest != "" {
		t.Errorf("heard %q, %v at the end", rest, err)
	}
}

func TestBookmarksComeLateOrEarly(t *testing.T) {
	w := watch(t)
	w.Delay(time.Hour, 0)
	w.expect(t, "BOOKMARK ADDED", "ADDED")
	w.Delay(0, time.Millisecond)
	w.expect(t, "MODIFIED", "MODIFIED")
	w.Delay(0, time.Hour)
	w.expect(t, "DELETED BOOKMARK", "BOOKMARK")
}
