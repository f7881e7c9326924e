package wire_test

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/portico-proxy/portico/test/e2e/wire"
	"github.com/portico-proxy/portico/test/proxy"
)

// before puts a proxy before a fake.
func before(t *testing.T, h http.HandlerFunc) (fake, proxied wire.Server) {
	t.Helper()
	f := wire.NewFake(t, h)
	p := proxy.New(t, proxy.Options{Kubeconfig: f.Kubeconfig})
	return f.Server, wire.At(p.URL, p.CA)
}

// client speaks one protocol and is done in a minute.
func client(t *testing.T, s wire.Server, h2 bool) *http.Client {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(s.CA)
	tr := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: h2,
		DisableCompression: true, ExpectContinueTimeout: time.Hour,
	}
	if !h2 {
		tr.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
	}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: time.Minute}
}

// eachClient runs a case for callers of both protocols.
func eachClient(t *testing.T, s wire.Server, run func(t *testing.T, c *http.Client)) {
	t.Helper()
	for _, h2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("HTTP2-%t", h2), func(t *testing.T) { run(t, client(t, s, h2)) })
	}
}

// The second half of the body is not made before the first has arrived.
func TestBodyArrivesAsItIsSent(t *testing.T) {
	arrived := make(chan string)
	_, s := before(t, func(_ http.ResponseWriter, r *http.Request) {
		half := make([]byte, 4)
		for range 2 {
			if _, err := io.ReadFull(r.Body, half); err != nil {
				return
			}
			select {
			case arrived <- string(half):
			case <-r.Context().Done():
			}
		}
	})
	eachClient(t, s, func(t *testing.T, c *http.Client) {
		body, send := io.Pipe()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+s.Address+"/x", body)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for _, half := range []string{"one.", "two."} {
				_, _ = io.WriteString(send, half)
				if got := <-arrived; got != half {
					t.Errorf("%q arrived for %q", got, half)
				}
			}
			send.Close()
		}()
		res, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
	})
}

const watched = "/api/v1/namespaces/default/configmaps"

// watch opens one that lasts until the test ends.
func watch(t *testing.T, s wire.Server, c *http.Client) *bufio.Reader {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+s.Address+watched+"?watch=1&timeoutSeconds=600", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+cp.Token("admin").Token)
	res, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	return bufio.NewReader(res.Body)
}

// makeEvent makes one and reads it.
func makeEvent(t *testing.T, events *bufio.Reader, name string) {
	t.Helper()
	body := fmt.Appendf(nil, `{"kind":"ConfigMap","apiVersion":"v1","metadata":{"generateName":"%s-"}}`, name)
	must(t, wire.Server.HTTP2, direct(), admin(wire.Request{Method: http.MethodPost, Target: watched, Body: body}).With("Content-Type", "application/json"))
	for line := ""; !strings.Contains(line, `"name":"`+name+`-`); {
		var err error
		if line, err = events.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
}

// Each event is read before the next one is made.
func TestEventArrivesBeforeTheNextOneIsMade(t *testing.T) {
	s := proxied(newProxy(t))
	eachClient(t, s, func(t *testing.T, c *http.Client) {
		events := watch(t, s, c)
		for n := range 3 {
			makeEvent(t, events, fmt.Sprintf("event-%d", n))
		}
	})
}

// A watch may have to end between two events, which are only known uncompressed.
func TestWatchesAreNotCompressed(t *testing.T) {
	s := proxied(newProxy(t, "--watch-cache=false"))
	r := admin(wire.Request{Target: configMaps + "?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&timeoutSeconds=1"}).With("Accept-Encoding", "gzip")
	eachWay(t, func(t *testing.T, do protocol) {
		want, got := must(t, do, direct(), r), must(t, do, s, r)
		if want.Header.Get("Content-Encoding") != "gzip" || got.Header.Get("Content-Encoding") != "" {
			t.Errorf("encoded as %q and %q", want.Header.Get("Content-Encoding"), got.Header.Get("Content-Encoding"))
		}
		if d := wire.Diff(r, withoutState(want), withoutState(got)); d != "" || !strings.Contains(string(got.Body), "ADDED") {
			t.Errorf("%d bytes\n%s", len(got.Body), d)
		}
	})
}

// Trailers that come after the answer are a connection error to Go's HTTP/2
// server. So requests that have some do not travel on a connection with others.
func TestRequestWithTrailersHasAConnectionOfItsOwn(t *testing.T) {
	_, s := before(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Proto) })
	r := wire.Request{Method: http.MethodPost, Target: "/x", Body: []byte("hello"), Chunked: true}
	if got := must(t, wire.Server.HTTP2, s, r); string(got.Body) != "HTTP/2.0" {
		t.Errorf("without: %s", got)
	}
	r.Trailer = []wire.Field{{Name: "X-Sum", Value: "5"}}
	if got := must(t, wire.Server.HTTP2, s, r.With("Trailer", "X-Sum")); string(got.Body) != "HTTP/1.1" {
		t.Errorf("with: %s", got)
	}
}

func TestInterimAnswersPass(t *testing.T) {
	fake, s := before(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Set("Link", "</other.css>")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Del("Link")
		_, _ = io.WriteString(w, "at last")
	})
	eachWay(t, func(t *testing.T, do protocol) {
		r := wire.Request{Target: "/x"}
		want, got := must(t, do, fake, r), must(t, do, s, r)
		if d := wire.Diff(r, want, got) + cmp.Diff(want.Interim, got.Interim); d != "" || len(got.Interim) != 2 {
			t.Errorf("%d interim answers\n%s", len(got.Interim), d)
		}
	})
}

// unread tells whether anybody has begun to read it.
type unread struct {
	io.Reader
	begun bool
}

func (u *unread) Read(p []byte) (int, error) { u.begun = true; return u.Reader.Read(p) }

// A caller that waits to be told to go on is told by the API server, who may
// refuse it unread. Over HTTP/2 Go's server keeps the question from the proxy.
func TestContinueIsTheAPIServersToSay(t *testing.T) {
	s := proxied(newProxy(t))
	for token, refused := range map[string]bool{cp.Token("admin").Token: false, "wrong": true} {
		body := &unread{Reader: strings.NewReader(`{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"continued"}}`)}
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+s.Address+configMaps+"?dryRun=All", body)
		if err != nil {
			t.Fatal(err)
		}
		r.Header = http.Header{"Expect": {"100-continue"}, "Content-Type": {"application/json"}, "Authorization": {"Bearer " + token}}
		res, err := client(t, s, false).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if body.begun == refused || (res.StatusCode == http.StatusUnauthorized) != refused {
			t.Errorf("got %s, body asked for: %t", res.Status, body.begun)
		}
	}
}

func TestTrailersPassBothWays(t *testing.T) {
	fake, s := before(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Announced")
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %v", body, r.Trailer)
		w.Header().Set("X-Announced", "a")
		w.Header().Set(http.TrailerPrefix+"X-Sudden", "b")
	})
	eachWay(t, func(t *testing.T, do protocol) {
		r := wire.Request{Method: http.MethodPost, Target: "/x", Body: []byte("hello"), Chunked: true, Trailer: []wire.Field{{Name: "X-Sum", Value: "5"}}}.With("Trailer", "X-Sum")
		want, got := must(t, do, fake, r), must(t, do, s, r)
		if d := wire.Diff(r, want, got); d != "" || !strings.Contains(string(got.Body), "X-Sum:[5]") || got.Trailer.Get("X-Sudden") != "b" {
			t.Errorf("%s\n%s %v", d, got, got.Trailer)
		}
	})
}

// An HTTP/1.1 server of Go reads what is left of the body when the answer
// begins, while the body is on its way upstream.
func TestAnswerThatBeginsBeforeTheBodyEndsIsWhole(t *testing.T) {
	begun, more := make(chan struct{}, 1), make(chan struct{}, 1)
	_, s := before(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "half")
		_ = http.NewResponseController(w).Flush()
		begun <- struct{}{}
		select {
		case <-more:
			_, _ = io.WriteString(w, " and half")
		case <-r.Context().Done():
		}
	})
	eachClient(t, s, func(t *testing.T, c *http.Client) {
		for range 20 {
			body, send := io.Pipe()
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+s.Address+"/x", body)
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				_, _ = io.WriteString(send, "first")
				<-begun
				for _, chunk := range slices.Repeat([]string{"another"}, 20) {
					_, _ = io.WriteString(send, chunk)
				}
				send.Close()
				more <- struct{}{}
			}()
			res, err := c.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(res.Body)
			res.Body.Close()
			if err != nil || string(text) != "half and half" {
				t.Fatalf("got %q, %v", text, err)
			}
		}
	})
}
