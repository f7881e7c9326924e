package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"
	utilnet "k8s.io/apimachinery/pkg/util/net"
)

const (
	// dialTimeout bounds connecting to one address, and the handshake with it.
	dialTimeout = 5 * time.Second
	// retryAddress is how long an address that failed is asked last.
	retryAddress = 10 * time.Second
)

// dialer connects to whichever of the API server's addresses answers. It stays
// with one that does, until one that it prefers is back.
type dialer struct {
	target    string   // what the transport dials when no proxy-url is in between
	addresses []string // the preferred first
	log       logr.Logger
	now       func() time.Time
	homing

	mu     sync.Mutex // guards following
	inUse  int
	failed map[int]time.Time
}

func newDialer(target *url.URL, o Options) *dialer {
	addresses := o.Addresses
	if len(addresses) == 0 {
		addresses = []string{hostPort(target)}
	}
	d := &dialer{
		target:    hostPort(target),
		addresses: ranked(o.Name, addresses),
		log:       o.Log,
		now:       time.Now,
		homing:    homing{away: awayFor},
		failed:    map[int]time.Time{},
	}
	d.ctx, d.cancel = context.WithCancel(context.Background()) //nolint:forbidigo // ended by Close alone
	return d
}

func hostPort(u *url.URL) string {
	if u.Port() != "" {
		return u.Host
	}
	if u.Scheme == "http" {
		return net.JoinHostPort(u.Hostname(), "80")
	}
	return net.JoinHostPort(u.Hostname(), "443")
}

// dial connects without TLS, or to the proxy that a proxy-url names.
func (d *dialer) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if addr != d.target {
		return connect(ctx, network, addr)
	}
	return d.first(func(addr string) (net.Conn, error) { return connect(ctx, network, addr) })
}

func (d *dialer) dialTLS(ctx context.Context, network string, secure tlsFor) (net.Conn, error) {
	return d.first(func(addr string) (net.Conn, error) {
		raw, err := connect(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return handshake(ctx, raw, addr, secure)
	})
}

// dialAttentive is dialTLS for connections without pings.
func (d *dialer) dialAttentive(ctx context.Context, network string, secure tlsFor) (net.Conn, error) {
	return d.first(func(addr string) (net.Conn, error) {
		raw, err := connect(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return handshake(ctx, newAttentive(raw, func() error { return d.ask(network, addr, secure) }), addr, secure)
	})
}

// ask reports whether an address that was connected to still answers.
func (d *dialer) ask(network, addr string, secure tlsFor) error {
	//nolint:forbidigo // a reader has no context; the time is bounded here
	ctx, cancel := context.WithTimeout(context.Background(), pingTimeout)
	defer cancel()
	conn, err := connect(ctx, network, addr)
	if err == nil {
		conn, err = handshake(ctx, conn, addr, secure)
	}
	if err != nil {
		d.report(slices.Index(d.addresses, addr), err)
		return err
	}
	return conn.Close()
}

// tlsFor is how to speak TLS with an address.
type tlsFor func(addr string) (*tls.Config, error)

// handshake owns raw.
func handshake(ctx context.Context, raw net.Conn, addr string, secure tlsFor) (net.Conn, error) {
	cfg, err := secure(addr)
	if err != nil {
		raw.Close()
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn := tls.Client(raw, cfg)
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, &lostError{fmt.Errorf("handshake with %s: %w", addr, err)}
	}
	return conn, nil
}

func connect(ctx context.Context, network, addr string) (net.Conn, error) {
	nd := net.Dialer{Timeout: dialTimeout, KeepAlive: pingAfter}
	return nd.DialContext(ctx, network, addr)
}

// first tries addresses in order until one opens.
func (d *dialer) first(open func(addr string) (net.Conn, error)) (net.Conn, error) {
	var failures []error
	for _, i := range d.order() {
		conn, err := open(d.addresses[i])
		d.report(i, err)
		if err == nil {
			return conn, nil
		}
		failures = append(failures, err)
	}
	return nil, errors.Join(failures...)
}

// order begins with the address in use, goes on with the preferred, and ends with
// those that failed lately.
func (d *dialer) order() []int {
	d.mu.Lock()
	defer d.mu.Unlock()
	var good, bad []int
	for n := range d.addresses {
		i := n
		switch {
		case n == 0:
			i = d.inUse
		case n <= d.inUse:
			i = n - 1
		}
		if until, ok := d.failed[i]; ok && d.now().Before(until) {
			bad = append(bad, i)
			continue
		}
		good = append(good, i)
	}
	return append(good, bad...)
}

// report remembers how i fared and logs it when that is news.
func (d *dialer) report(i int, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, known := d.failed[i]
	if err == nil {
		d.inUse = i
		d.comeHome()
		delete(d.failed, i)
		if known {
			d.log.Info("API server address answers again", "address", d.addresses[i])
		}
		return
	}
	if errors.Is(err, context.Canceled) {
		return
	}
	d.failed[i] = d.now().Add(retryAddress)
	if !known {
		d.log.Error(err, "API server address does not answer", "address", d.addresses[i])
	}
}

// closeIdle looks below the wrappers that carry the proxy's credential.
func closeIdle(rt http.RoundTripper) { utilnet.CloseIdleConnectionsFor(rt) }
