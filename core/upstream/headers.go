package upstream

import (
	"net"
	"net/http"
	"net/http/httputil"
	"net/textproto"
	"strings"

	"golang.org/x/net/http/httpguts"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// forwarded are headers that ReverseProxy drops and a transparent proxy keeps.
var forwarded = []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"}

// forward keeps the caller's headers as they came, adds the caller's address to
// X-Forwarded-For so that the API server's audit log names it, and drops what
// only a front proxy of the API server may say.
func forward(p *httputil.ProxyRequest) {
	for _, name := range forwarded {
		if values, ok := p.In.Header[name]; ok {
			p.Out.Header[name] = values
		}
	}
	if host, _, err := net.SplitHostPort(p.In.RemoteAddr); err == nil {
		chain := append(p.In.Header.Values("X-Forwarded-For"), host)
		p.Out.Header.Set("X-Forwarded-For", strings.Join(chain, ", "))
	}
	for name := range p.Out.Header {
		if isFrontProxyHeader(name) {
			delete(p.Out.Header, name)
		}
	}
}

// checkTarget refuses what does not name a path: neither side of the proxy
// could say it in the other's protocol. Over HTTP/2, a URL where the path
// belongs is malformed (RFC 9113 section 8.3.1).
func checkTarget(r *http.Request) error {
	if r.URL.Opaque != "" || r.ProtoMajor > 1 && r.URL.Scheme != "" {
		return apierrors.NewBadRequest("the request target must be a path")
	}
	return nil
}

// sendable is host, or nothing where it is none: HTTP/2 lets a caller name
// anything, and our side of the connection would refuse to repeat it. Nothing
// stands for the API server's own.
func sendable(host string) string {
	if ascii, err := httpguts.PunycodeHostPort(host); err != nil || !httpguts.ValidHostHeader(ascii) {
		return ""
	}
	return host
}

// dropCredentials leaves nothing in h that says who the caller is.
func dropCredentials(h http.Header) {
	for name := range h {
		if isCredential(name) {
			delete(h, name)
		}
	}
	for i, value := range h["Sec-Websocket-Protocol"] {
		var kept []string
		for protocol := range strings.SplitSeq(value, ",") {
			if !strings.HasPrefix(textproto.TrimString(protocol), tokenProtocol) {
				kept = append(kept, protocol)
			}
		}
		h["Sec-Websocket-Protocol"][i] = strings.Join(kept, ",")
	}
}

// tokenProtocol marks the subprotocol in which browsers send tokens
// (k8s.io/apiserver/pkg/authentication/request/websocket).
const tokenProtocol = "base64url.bearer.authorization.k8s.io."

// checkHeaders refuses a request that asks us to strip what identifies it: a
// proxy that complies forwards the request under another identity
// (CVE-2022-23652).
func checkHeaders(r *http.Request) error {
	for _, value := range r.Header["Connection"] {
		for name := range strings.SplitSeq(value, ",") {
			name = textproto.CanonicalMIMEHeaderKey(textproto.TrimString(name))
			if isCredential(name) || isFrontProxyHeader(name) || name == "Audit-Id" {
				return apierrors.NewBadRequest("the Connection header may not name " + name)
			}
		}
	}
	return nil
}

func isCredential(name string) bool {
	return name == "Authorization" || strings.HasPrefix(name, "Impersonate-")
}

// isFrontProxyHeader reports names of --requestheader-*-headers' usual values.
func isFrontProxyHeader(name string) bool { return strings.HasPrefix(name, "X-Remote-") }
