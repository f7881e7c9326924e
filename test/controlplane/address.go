package controlplane

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// URL returns the address of the first API server.
func (c *ControlPlane) URL() string { return c.URLs()[0] }

// URLs returns the addresses of all API servers.
func (c *ControlPlane) URLs() []string {
	urls := make([]string, len(c.apis))
	for n, p := range c.apis {
		urls[n] = loopbackURL("https", p.number)
	}
	return urls
}

// EtcdURL returns the address of etcd, which asks for no credentials.
func (c *ControlPlane) EtcdURL() string { return loopbackURL("http", c.etcd.number) }

// Issuer returns the issuer and audience of ServiceAccount tokens.
func (c *ControlPlane) Issuer() string { return issuer }

// Dir returns the directory of data, certificates and logs.
func (c *ControlPlane) Dir() string { return c.dir }

// Program returns the path of one of the programs, kubectl for instance.
func (c *ControlPlane) Program(name string) string { return filepath.Join(c.opts.Programs, name) }

// Kubectl returns a kubectl command that uses a kubeconfig. What it learns of
// an API server it keeps in Dir: its usual place is shared with other control
// planes that had the same port.
func (c *ControlPlane) Kubectl(ctx context.Context, kubeconfig string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, c.Program("kubectl"), append([]string{"--kubeconfig=" + kubeconfig}, args...)...)
	cmd.Env = append(os.Environ(), "KUBECACHEDIR="+c.path("kubectl-cache"))
	return cmd
}

// CAFile returns the path of the certificate that vouches for the API servers.
func (c *ControlPlane) CAFile() string { return c.pki.cert("server-ca") }

// ClientCAFile returns the path of the certificate that vouches for clients,
// as --client-ca-file wants it.
func (c *ControlPlane) ClientCAFile() string { return c.pki.cert("client-ca") }

// FrontProxyCAFile returns the path of the certificate that vouches for
// whoever may speak for others by X-Remote headers, as
// --requestheader-client-ca-file wants it.
func (c *ControlPlane) FrontProxyCAFile() string { return c.pki.cert("front-proxy-ca") }

// ServiceAccountKeyFile returns the path of the key that signs ServiceAccount
// tokens.
func (c *ControlPlane) ServiceAccountKeyFile() string { return c.pki.key("service-account") }

// ServerCert returns a certificate and key for a server on some IP addresses
// and DNS names, signed like the API servers' own.
func (c *ControlPlane) ServerCert(name string, hosts ...string) (certPEM, keyPEM []byte, err error) {
	return c.pki.serverCA.server(name, hosts...)
}

func (c *ControlPlane) path(elem ...string) string {
	return filepath.Join(append([]string{c.dir}, elem...)...)
}

// httpClient returns a client with the administrator's certificate. It keeps
// no connection, so that none outlives its use.
func (c *ControlPlane) httpClient() *http.Client {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(c.pki.serverCA.certPEM)
	config := &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	if pair, err := tls.X509KeyPair(c.admin.CertPEM, c.admin.KeyPEM); err == nil {
		config.Certificates = []tls.Certificate{pair}
	}
	return &http.Client{
		// A frozen server accepts and does not answer; it is asked again.
		Timeout:   10 * time.Second,
		Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: config},
	}
}

// probe returns a check that a GET of url answers 200.
func (c *ControlPlane) probe(url string) func(context.Context) error {
	client := c.httpClient()
	return func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
		if err == nil && resp.StatusCode != http.StatusOK {
			err = fmt.Errorf("GET %s: %s: %s", url, resp.Status, body)
		}
		return err
	}
}

// both returns a check that passes when two do.
func both(a, b func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		if err := a(ctx); err != nil {
			return err
		}
		return b(ctx)
	}
}

// FreeAddress is a host:port of 127.0.0.1 that is given to nobody else until the
// test ends. Whoever is told of it may listen there.
func FreeAddress(tb testing.TB) string {
	tb.Helper()
	p, err := reservePort()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(p.close)
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(p.number))
}
