package upstream

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/transport"
)

const (
	// streamBuffer is how many bytes of one answer may wait for a slow reader.
	streamBuffer = 1 << 20
	// frameSize spares system calls on long lists.
	frameSize = 256 << 10
	// pingAfter and pingTimeout bound in how long a silent API server is taken
	// for gone.
	pingAfter   = 15 * time.Second
	pingTimeout = 5 * time.Second
	// certificateCheck is how often the proxy's own certificate is looked at.
	certificateCheck = 30 * time.Second
)

// newLegs builds the two identities' connection pools. Callers' connections
// present no client certificate.
func newLegs(cfg *rest.Config, d *dialer) (callers, own leg, err error) {
	cfg = rest.CopyConfig(cfg)
	cfg.Impersonate = rest.ImpersonationConfig{}
	tc, err := cfg.TransportConfig()
	if err != nil {
		return leg{}, leg{}, fmt.Errorf("read the API server's client configuration: %w", err)
	}
	if _, err := tlsConfig(cfg, true); err != nil {
		return leg{}, leg{}, err
	}
	pool := func(identity bool, p purpose, files ...string) *rotating {
		r := &rotating{open: func() *http.Transport { return newPool(cfg, d, tc, identity, p) }, files: files, moves: d.moves.Load, now: time.Now}
		r.current, r.seen = r.open(), r.fingerprint()
		return r
	}
	callers, err = newLeg(func(p purpose) (http.RoundTripper, error) { return pool(false, p), nil })
	if err != nil {
		return leg{}, leg{}, err
	}
	callers.strangers, callers.acquaintances = pool(false, forRequests), newAcquaintances()
	own, err = newLeg(func(p purpose) (http.RoundTripper, error) {
		return rest.HTTPWrappersForConfig(cfg, pool(true, p, tc.TLS.CertFile, tc.TLS.KeyFile))
	})
	if err != nil {
		return leg{}, leg{}, fmt.Errorf("read the proxy's own credential: %w", err)
	}
	if tc.Proxy != nil {
		// Behind a proxy-url nobody hears the API server fall silent.
		callers.reads, own.reads = nil, nil
	}
	return callers, own, nil
}

// A purpose is what a pool of connections is for.
type purpose int

const (
	forRequests purpose = iota // HTTP/2, if the API server speaks it
	forUpgrades                // HTTP/1.1: HTTP/2 has no Upgrade
	forReads                   // HTTP/1.1: see [reads]
)

func newLeg(pool func(purpose) (http.RoundTripper, error)) (l leg, err error) {
	if l.requests, err = pool(forRequests); err != nil {
		return leg{}, err
	}
	if l.upgrades, err = pool(forUpgrades); err != nil {
		return leg{}, err
	}
	forReads, err := pool(forReads)
	if err != nil {
		return leg{}, err
	}
	l.reads = &reads{RoundTripper: forReads}
	return l, nil
}

func newPool(cfg *rest.Config, d *dialer, tc *transport.Config, identity bool, p purpose) *http.Transport {
	h2 := p == forRequests
	secure := tlsTo(cfg, identity, h2)
	t := &http.Transport{
		Proxy:       tc.Proxy,
		DialContext: d.dial,
		DialTLSContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return d.dialTLS(ctx, network, secure)
		},
		ForceAttemptHTTP2:   h2,
		DisableCompression:  true, // the caller negotiates, not we
		MaxIdleConnsPerHost: 64,
		IdleConnTimeout:     90 * time.Second,
		TLSHandshakeTimeout: dialTimeout,
		WriteBufferSize:     64 << 10,
		ReadBufferSize:      64 << 10,
		// Without it Go waits a second before it sends a body nobody refuses.
		ExpectContinueTimeout: time.Minute,
		HTTP2: &http.HTTP2Config{
			MaxReceiveBufferPerStream: streamBuffer,
			MaxReadFrameSize:          frameSize,
			SendPingTimeout:           pingAfter,
			PingTimeout:               pingTimeout,
		},
	}
	if p == forReads {
		t.IdleConnTimeout = readsIdle
		t.ReadBufferSize = 4 << 10 // the connection has a larger one
		t.DialTLSContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return d.dialAttentive(ctx, network, secure)
		}
	}
	// Used only behind a proxy-url, where the transport does TLS itself.
	if c, err := secure(d.addresses[0]); err == nil {
		t.TLSClientConfig = c
	}
	if !h2 {
		t.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
	}
	return t
}

// tlsTo is how to speak TLS with an address, and whether as HTTP/2.
func tlsTo(cfg *rest.Config, identity, h2 bool) tlsFor {
	return func(addr string) (*tls.Config, error) {
		c, err := tlsConfig(cfg, identity)
		if err != nil {
			return nil, err
		}
		if c.ServerName == "" {
			c.ServerName, _, _ = net.SplitHostPort(addr)
		}
		c.NextProtos = []string{"http/1.1"}
		if h2 {
			c.NextProtos = []string{"h2", "http/1.1"}
		}
		return c, nil
	}
}

// tlsConfig reads the files anew: an authority or certificate that was rotated
// is in force from the next connection on.
func tlsConfig(cfg *rest.Config, identity bool) (*tls.Config, error) {
	tc, err := cfg.TransportConfig()
	if err != nil {
		return nil, fmt.Errorf("read the API server's client configuration: %w", err)
	}
	c, err := transport.TLSConfigFor(tc)
	if err != nil {
		return nil, fmt.Errorf("read the API server's certificate authority or the proxy's certificate: %w", err)
	}
	if c == nil {
		c = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	if !identity {
		c.GetClientCertificate, c.Certificates = nil, nil
	}
	return c, nil
}

// rotating opens new connections when the proxy's certificate files change, and
// when it goes back to an address. A connection keeps the certificate it was opened
// with, and the API server refuses requests on it once that has expired.
type rotating struct {
	open  func() *http.Transport
	files []string
	moves func() uint64 // changes with the address
	now   func() time.Time

	mu      sync.Mutex // guards following
	current *http.Transport
	seen    [sha256.Size]byte
	moved   uint64
	checked time.Time
}

func (r *rotating) RoundTrip(req *http.Request) (*http.Response, error) {
	return r.transport().RoundTrip(req)
}

func (r *rotating) transport() *http.Transport {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.isOld() {
		// Streams on old connections live on; new requests go elsewhere.
		r.current.CloseIdleConnections()
		r.current = r.open()
	}
	return r.current
}

// isOld reports, once, that new connections are needed. The caller holds r.mu.
func (r *rotating) isOld() (old bool) {
	if moved := r.moves(); moved != r.moved {
		r.moved, old = moved, true
	}
	if now := r.now(); now.Sub(r.checked) > certificateCheck {
		r.checked = now
		if seen := r.fingerprint(); seen != r.seen {
			r.seen, old = seen, true
		}
	}
	return old
}

func (r *rotating) fingerprint() [sha256.Size]byte {
	h := sha256.New()
	for _, name := range r.files {
		if data, err := os.ReadFile(name); err == nil {
			h.Write(data)
		}
	}
	return [sha256.Size]byte(h.Sum(nil))
}

func (r *rotating) CloseIdleConnections() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.current.CloseIdleConnections()
}

// WrappedRoundTripper is what k8s.io/apimachinery's net package looks for.
func (r *rotating) WrappedRoundTripper() http.RoundTripper { return r.transport() }
