// Package wire speaks HTTP to a server byte by byte, so that requests no client
// library would send can be sent directly and proxied, and what comes back be
// compared.
package wire

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/portico-proxy/portico/test/controlplane"
)

// exchangeTimeout bounds one exchange where the context does not.
const exchangeTimeout = 30 * time.Second

// A Server is where requests go, and what the connection says of the caller.
type Server struct {
	Address string // host:port
	CA      []byte // PEM of what vouches for it
	// Credential's certificate, if it has one, is presented. Its token is not
	// sent: that is the request's business.
	Credential controlplane.Credential
}

// At returns the server behind a URL.
func At(address string, ca []byte) Server {
	if u, err := url.Parse(address); err == nil && u.Host != "" {
		address = u.Host
	}
	return Server{Address: address, CA: ca}
}

// As returns the server as somebody with a certificate meets it.
func (s Server) As(cred controlplane.Credential) Server {
	s.Credential = cred
	return s
}

// A Field is one header line, sent as it stands.
type Field struct{ Name, Value string }

// A Request is what is sent. The zero value of a field that HTTP requires
// stands for something harmless.
type Request struct {
	Method string  // GET
	Target string  // /
	Host   string  // localhost; "-" sends none
	Header []Field // in this order, duplicates and all
	Body   []byte
	// Chunked sends the body without saying how long it is.
	Chunked bool
	// Length says how long the body is, true or not. Nil says the truth.
	Length *int
	// Trailer follows a chunked body.
	Trailer []Field
}

// With returns r with one more header line.
func (r Request) With(name, value string) Request {
	r.Header = append(append([]Field(nil), r.Header...), Field{name, value})
	return r
}

// Bearer returns r with a token.
func (r Request) Bearer(token string) Request { return r.With("Authorization", "Bearer "+token) }

// String is enough of r to send it again. It shows no credential.
func (r Request) String() string {
	r = r.withDefaults()
	var b strings.Builder
	fmt.Fprintf(&b, "%s %.300q (Host %s)", r.Method, r.Target, r.Host)
	for _, f := range r.Header {
		if strings.EqualFold(f.Name, "Authorization") {
			f.Value = "(hidden)"
		}
		fmt.Fprintf(&b, "\n  %.200s: %.200s", f.Name, f.Value)
		if len(f.Value) > 200 {
			fmt.Fprintf(&b, "... (%d bytes)", len(f.Value))
		}
	}
	fmt.Fprintf(&b, "\n  body of %d bytes, chunked %t", len(r.Body), r.Chunked)
	if r.Length != nil {
		fmt.Fprintf(&b, ", said to be %d", *r.Length)
	}
	if len(r.Body) > 0 {
		fmt.Fprintf(&b, ": %.200q", r.Body)
	}
	return b.String()
}

func (r Request) withDefaults() Request {
	if r.Method == "" {
		r.Method = http.MethodGet
	}
	if r.Target == "" {
		r.Target = "/"
	}
	if r.Host == "" {
		r.Host = "localhost"
	}
	return r
}

// How an exchange ended.
const (
	Complete = "complete"
	Cut      = "cut"       // the answer began and was not finished
	NoAnswer = "no answer" // the connection closed, or timed out, before
)

// A Response is what came back.
type Response struct {
	Interim []Interim // 1xx answers before the last
	Code    int
	Header  http.Header
	Body    []byte
	Trailer http.Header
	// End says how it ended: Complete, Cut, NoAnswer, or "reset " and HTTP/2's
	// name of the reason.
	End string
}

// Interim is an answer before the answer.
type Interim struct {
	Code   int
	Header http.Header
}

// String is the response in brief.
func (r Response) String() string {
	return fmt.Sprintf("%d (%s)\n  %v\n  body of %d bytes: %.300q", r.Code, r.End, r.Header, len(r.Body), r.Body)
}

// dial opens a connection on which the server speaks proto (an ALPN name).
func (s Server) dial(ctx context.Context, proto string) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, exchangeTimeout)
	defer cancel()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(s.CA)
	config := &tls.Config{RootCAs: roots, NextProtos: []string{proto}, MinVersion: tls.VersionTLS12}
	if len(s.Credential.CertPEM) > 0 {
		pair, err := tls.X509KeyPair(s.Credential.CertPEM, s.Credential.KeyPEM)
		if err != nil {
			return nil, fmt.Errorf("read client certificate: %w", err)
		}
		// Offered even if the server does not name its issuer.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	}
	var d net.Dialer
	raw, err := (&tls.Dialer{NetDialer: &d, Config: config}).DialContext(ctx, "tcp", s.Address)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", s.Address, err)
	}
	conn := raw.(*tls.Conn)
	if got := conn.ConnectionState().NegotiatedProtocol; got != proto {
		conn.Close()
		return nil, fmt.Errorf("connect to %s: it speaks %q, not %s", s.Address, got, proto)
	}
	return conn, nil
}

// bound gives conn a deadline and ends it when ctx does.
func bound(ctx context.Context, conn net.Conn) (stop func() bool) {
	_ = conn.SetDeadline(time.Now().Add(exchangeTimeout))
	return context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) })
}
