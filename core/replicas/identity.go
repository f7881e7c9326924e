package replicas

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
)

var errNoAuthority = errors.New("there is no certificate in it")

// Identity is the certificate that a peer shows, as a server and as a client, and
// how it knows others. Files are read again for each connection.
type Identity struct {
	CertFile, KeyFile string
	// CAFile has the authorities of peers' certificates. It should be peers' own:
	// whoever has a certificate of theirs for the name of a peer is one.
	CAFile string
	// ServerName is what every peer's certificate is for. Empty means that each is
	// for the host of its address.
	ServerName string
}

// read makes a configuration for either side of a connection.
func (i Identity) read() (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(i.CertFile, i.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("load the peer certificate %s and its key %s: %w", i.CertFile, i.KeyFile, err)
	}
	text, err := os.ReadFile(i.CAFile)
	if err != nil {
		return nil, fmt.Errorf("load the authorities of peers: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("load the authorities of peers: %s: %w", i.CAFile, errNoAuthority)
	}
	return &tls.Config{
		Certificates: []tls.Certificate{pair}, RootCAs: pool, ClientCAs: pool,
		ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13, NextProtos: []string{"http/1.1"},
	}, nil
}

// listen takes connections of peers only.
func (i Identity) listen(l net.Listener) net.Listener {
	return tls.NewListener(l, &tls.Config{
		MinVersion:         tls.VersionTLS13,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return i.read() },
	})
}

// dial connects to a peer.
func (i Identity) dial(ctx context.Context, network, address string) (net.Conn, error) {
	config, err := i.read()
	if err != nil {
		return nil, err
	}
	if config.ServerName = i.ServerName; config.ServerName == "" {
		if config.ServerName, _, err = net.SplitHostPort(address); err != nil {
			return nil, fmt.Errorf("read address of a peer: %w", err)
		}
	}
	return (&tls.Dialer{Config: config}).DialContext(ctx, network, address)
}

// isPeer reports whether whoever shows a certificate may speak for address.
func (i Identity) isPeer(state *tls.ConnectionState, address string) bool {
	name := i.ServerName
	if name == "" {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return false
		}
		name = host
	}
	return state != nil && len(state.VerifiedChains) > 0 && state.PeerCertificates[0].VerifyHostname(name) == nil
}
