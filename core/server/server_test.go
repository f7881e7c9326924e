package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"go.uber.org/goleak"
	"k8s.io/client-go/util/cert"

	"github.com/portico-proxy/portico/core/pipeline"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// running is a server that serves until stop, whose result is what Start returned.
func running(t *testing.T, o Options) (s *Server, client *http.Client, stop func() error) {
	t.Helper()
	o.BindAddress, o.Log = net.IPv4(127, 0, 0, 1), logr.Discard()
	if o.CertDir == "" {
		o.CertDir = t.TempDir()
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	pool, err := cert.NewPool(s.CertFile())
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Start(ctx) }()
	stop = func() error {
		cancel()
		err, ok := <-ended
		if ok {
			close(ended)
		}
		return err
	}
	t.Cleanup(func() { _ = stop(); transport.CloseIdleConnections() })
	return s, &http.Client{Transport: transport}, stop
}

func url(s *Server) string { return "https://" + s.Addr().String() }

func say(text string) pipeline.Handler {
	return pipeline.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) error {
		_, err := io.WriteString(w, text)
		return err
	})
}

func TestServesBothProtocolsWithASelfSignedCertificate(t *testing.T) {
	eachServer(t, testBothProtocols)
}

// eachServer runs a test with each server of HTTP/2.
func eachServer(t *testing.T, run func(t *testing.T, o Options)) {
	for _, own := range []bool{false, true} {
		t.Run(fmt.Sprintf("own=%v", own), func(t *testing.T) { run(t, Options{OwnHTTP2: own}) })
	}
}

func testBothProtocols(t *testing.T, o Options) {
	o.Handler, o.DrainTimeout = say("hello"), time.Second
	s, client, stop := running(t, o)
	roots := client.Transport.(*http.Transport).TLSClientConfig.RootCAs
	for _, h2 := range []bool{true, false} {
		c := &http.Client{Transport: &http.Transport{ForceAttemptHTTP2: h2, TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}}}
		res, err := c.Get(url(s))
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		c.CloseIdleConnections()
		if string(body) != "hello" || res.ProtoAtLeast(2, 0) != h2 {
			t.Errorf("got %q over %s", body, res.Proto)
		}
	}
	if err := s.Ready(nil); err != nil {
		t.Errorf("not ready while serving: %v", err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if err := s.Ready(nil); err == nil {
		t.Error("ready after the end")
	}
}

func TestSelfSignedCertificateIsKept(t *testing.T) {
	dir := t.TempDir()
	read := func() string {
		s, err := New(Options{CertDir: dir, Handler: say(""), Listener: listener(t)})
		if err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(s.CertFile())
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	first, second := read(), read()
	if first != second {
		t.Error("clients that trusted the first certificate no longer do")
	}
	chain, err := cert.ParseCertsPEM([]byte(first))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range chain {
		if c.NotBefore.After(time.Now().Add(-clocksDiffer + time.Minute)) {
			t.Errorf("%s begins at %v: clients whose clocks are behind do not trust it", c.Subject, c.NotBefore)
		}
	}
	if info, err := os.Stat(filepath.Join(dir, "portico.key")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("key: %v, %v", info, err)
	}
}

func TestSelfSignedCertificateThatIsOfNoUseIsNot(t *testing.T) {
	for name, spoil := range map[string]func(o *Options) error{
		"expired": func(o *Options) error { return o.selfSign(time.Minute) }, // it began an hour ago
		"no-key":  func(o *Options) error { return os.Remove(o.KeyFile) },
		"half":    func(o *Options) error { return os.Truncate(o.CertFile, 100) },
		"other": func(o *Options) error {
			return (&Options{CertFile: o.CertFile, KeyFile: o.KeyFile + ".other"}).selfSign(tenYears)
		},
	} {
		t.Run(name, func(t *testing.T) { testRenewal(t, spoil) })
	}
}

func testRenewal(t *testing.T, spoil func(o *Options) error) {
	t.Helper()
	o := Options{CertDir: t.TempDir()}
	o.CertFile, o.KeyFile = filepath.Join(o.CertDir, "portico.crt"), filepath.Join(o.CertDir, "portico.key")
	if err := errors.Join(o.selfSign(tenYears), spoil(&o)); err != nil || o.isServable() {
		t.Fatalf("can be served, or %v", err)
	}
	s, err := New(Options{CertDir: o.CertDir, Handler: say(""), Listener: listener(t)})
	if err != nil {
		t.Fatal(err)
	}
	certs, err := cert.CertsFromFile(s.CertFile())
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(certs[1])
	for _, name := range []string{"localhost", "127.0.0.1", "kubernetes.default.svc"} {
		if _, err := certs[0].Verify(x509.VerifyOptions{Roots: roots, DNSName: name}); err != nil {
			t.Errorf("not served to who asks %s: %v", name, err)
		}
	}
}

func listener(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func TestBadCertificateOptionsAreNamed(t *testing.T) {
	if _, err := New(Options{CertFile: "only.crt"}); !errors.Is(err, errHalfCertificate) {
		t.Errorf("got %v", err)
	}
	if _, err := New(Options{CertFile: "/no/such.crt", KeyFile: "/no/such.key"}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	taken := listener(t).Addr().(*net.TCPAddr)
	if _, err := New(Options{CertDir: t.TempDir(), BindAddress: taken.IP, Port: taken.Port}); err == nil {
		t.Error("listens on a taken port")
	}
}

func TestDrainingFinishesRequestsAndRefusesNewOnes(t *testing.T) { eachServer(t, testDraining) }

func testDraining(t *testing.T, o Options) {
	begun, release := make(chan struct{}), make(chan struct{})
	ended := make(chan struct{})
	slow := pipeline.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		if r.URL.Path == "/slow" {
			close(begun)
			<-release
		}
		_, err := io.WriteString(w, "done")
		return err
	})
	o.Handler, o.DrainTimeout, o.EndWatches = slow, time.Minute, func() { close(ended) }
	s, client, stop := running(t, o)
	type result struct {
		body string
		err  error
	}
	got := make(chan result, 1)
	go func() {
		res, err := client.Get(url(s) + "/slow")
		if err != nil {
			got <- result{err: err}
			return
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		got <- result{string(body), err}
	}()
	<-begun
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	<-ended // draining has begun
	if err := s.admit(httptest.NewRecorder(), nil); !errors.Is(err, errDraining) {
		t.Errorf("a new request on an old connection: %v", err)
	}
	close(release)
	if r := <-got; r.err != nil || r.body != "done" {
		t.Errorf("the request in flight got %q, %v", r.body, r.err)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

func TestDrainingIsBounded(t *testing.T) { eachServer(t, testDrainingIsBounded) }

func testDrainingIsBounded(t *testing.T, o Options) {
	begun := make(chan struct{})
	stuck := pipeline.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) error {
		close(begun)
		<-r.Context().Done()
		return r.Context().Err()
	})
	o.Handler, o.DrainTimeout = stuck, time.Millisecond
	s, client, stop := running(t, o)
	got := make(chan error, 1)
	go func() {
		res, err := client.Get(url(s))
		if err == nil {
			res.Body.Close()
		}
		got <- err
	}()
	<-begun
	if err := stop(); err != nil {
		t.Error(err)
	}
	if err := <-got; err == nil {
		t.Error("a request that was cut looks answered")
	}
}

func TestNewCertificateIsServedWithoutARestart(t *testing.T) {
	dir := t.TempDir()
	o := Options{CertFile: filepath.Join(dir, "tls.crt"), KeyFile: filepath.Join(dir, "tls.key"), Handler: say(""), DrainTimeout: time.Second}
	replace := func(host string) {
		crt, key, err := cert.GenerateSelfSignedCertKey(host, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.WriteFile(o.KeyFile, key, 0o600), os.WriteFile(o.CertFile, crt, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	replace("first.example.org")
	s, _, _ := running(t, o)
	replace("second.example.org")
	for served(t, s) != "second.example.org" { // go test's timeout bounds it
		runtime.Gosched()
	}
}

// served is the name in the certificate that s presents.
func served(t *testing.T, s *Server) string {
	t.Helper()
	conn, err := tls.Dial("tcp", s.Addr().String(), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].DNSNames[0]
}
