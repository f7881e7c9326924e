package wasm

import (
	"cmp"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/portico-proxy/portico/core/body"
	"github.com/portico-proxy/portico/core/telemetry"
	"github.com/portico-proxy/portico/plugins/abi"
)

// maxHeaders bounds what a guest may add to the header of a message, in bytes.
const maxHeaders = 64 << 10

var (
	errSealed   = errors.New("the guest may not change this")
	errOverflow = errors.New("the guest wrote too much")
)

// A message is a request or an answer as a guest of http_handler sees it.
type message struct {
	header  http.Header
	body    []byte // what has not been read
	written []byte // what the guest wrote in its place
	wrote   bool
	own     bool // header is the guest's own copy
	added   int  // to the header, in bytes
	// What cannot be changed any more: all of it, or the body.
	fixed, bodiless bool
}

// edit changes the header, of which everybody else keeps what it was.
func (m *message) edit(name string, size int, change func(http.Header)) {
	if m.added += size; m.added > maxHeaders {
		panic(errOverflow)
	}
	if m.fixed || !httpguts.ValidHeaderFieldName(name) || sealed(http.CanonicalHeaderKey(name)) {
		panic(errSealed)
	}
	if !m.own {
		m.header, m.own = m.header.Clone(), true
	}
	if m.header == nil {
		m.header = http.Header{}
	}
	change(m.header)
}

// write appends to the body. What it was is lost with the first write.
func (m *message) write(p []byte) {
	if m.fixed || m.bodiless {
		panic(errSealed)
	}
	if len(m.written)+len(p) > body.Max {
		panic(errOverflow)
	}
	m.written, m.wrote = append(m.written, p...), true
}

// names are those of the header that a guest may see, in lower case.
func (m *message) names() []string {
	var names []string
	for name := range m.header {
		if !isCredential(name) {
			names = append(names, strings.ToLower(name))
		}
	}
	slices.Sort(names)
	return names
}

func (m *message) values(name string) []string {
	name = http.CanonicalHeaderKey(name)
	if isCredential(name) {
		return nil
	}
	return m.header[name]
}

// isCredential reports headers that no guest sees.
func isCredential(name string) bool {
	switch name {
	case "Authorization", "Proxy-Authorization", "Cookie", "Set-Cookie", "Sec-Websocket-Protocol", "X-Forwarded-Client-Cert":
		return true
	}
	return strings.HasPrefix(name, "X-Remote-")
}

// sealed reports headers that no guest changes or takes away: they say who is
// calling and what bindings match, or how a message is framed.
func sealed(name string) bool {
	switch name {
	case "User-Agent", "Audit-Id", "Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-Ip",
		"Host", "Content-Length", "Transfer-Encoding", "Trailer", "Te", "Connection", "Keep-Alive", "Proxy-Connection", "Upgrade":
		return true
	}
	return isCredential(name) || strings.HasPrefix(name, "Impersonate-") || strings.HasPrefix(name, "Sec-Websocket-")
}

// A roundTrip is a request and its answer as a guest of http_handler sees them.
type roundTrip struct {
	request, response message
	method, uri       string
	protocol, source  string
	features          uint32
	code              int // the answer's; 0 while there is none
	set               bool
	streams           bool // it has no body that ends

	instance *instance // that waits for the answer; nil if any will do
	context  uint32    // what the guest gave for handle_response
}

func newRoundTrip(facts *Facts) *roundTrip {
	r, u := facts.Request, *facts.Request.URL
	u.RawPath = "" // what could be written in several ways is written in one
	t := &roundTrip{
		request: message{header: r.Header, bodiless: true}, response: message{header: http.Header{}},
		method: r.Method, uri: u.RequestURI(), protocol: r.Proto, source: r.RemoteAddr,
	}
	t.streams = telemetry.LongRunning(facts.Info) || r.Method == http.MethodConnect || httpguts.HeaderValuesContainsToken(r.Header["Connection"], "upgrade")
	return t
}

// hasBody reports whether the request has a body that ends.
func (t *roundTrip) hasBody(r *http.Request) bool {
	return !t.streams && r.Body != nil && r.Body != http.NoBody && r.ContentLength != 0
}

// apply makes of r what the guest wants.
func (t *roundTrip) apply(r *http.Request) *http.Request {
	if t.request.own {
		r = r.WithContext(r.Context())
		r.Header = t.request.header
	}
	if t.request.wrote {
		r = body.With(r, t.request.written)
	}
	return r
}

// answered shows the guest the answer.
func (t *roundTrip) answered(code int, header http.Header, content []byte) {
	t.request.fixed, t.request.body = true, nil
	t.response, t.code, t.set = message{header: header, body: content}, code, false
}

// forwards says what is wrong with a guest that handed the request on.
func (t *roundTrip) forwards() error {
	if t.set || t.response.wrote {
		return errHandled
	}
	return nil
}

// refuses says what is wrong with a guest that answered itself. Only an error
// may be answered so: everything else is for the API server to say.
func (t *roundTrip) refuses() error {
	if t.code < 400 || t.code >= 600 || http.StatusText(t.code) == "" {
		return errForged
	}
	return nil
}

// rewrites says what is wrong with a guest that was shown an answer of a code.
func (t *roundTrip) rewrites(code int) error {
	if t.refused(code) {
		return t.refuses()
	}
	empty := code == http.StatusNoContent || code == http.StatusNotModified
	if t.code != code || empty && len(t.response.written) > 0 {
		return errForged
	}
	return nil
}

// refused reports whether the guest made an error of an answer, or another one.
func (t *roundTrip) refused(code int) bool {
	return t.code >= 400 && (t.code != code || t.response.wrote)
}

// denial is the answer that the guest wrote, which is an error.
func (t *roundTrip) denial() *Denial {
	d := &Denial{Code: t.code, Message: string(t.response.written)}
	d.Reason = string(apierrors.NewGenericServerResponse(t.code, t.method, schema.GroupResource{}, "", "", 0, false).ErrStatus.Reason)
	if status := (metav1.Status{}); json.Unmarshal(t.response.written, &status) == nil && status.Kind == "Status" {
		d.Message, d.Reason = status.Message, cmp.Or(string(status.Reason), d.Reason)
	}
	d.Message = clean(strings.TrimSpace(d.Message), abi.MaxMessage)
	d.Reason = clean(cmp.Or(d.Reason, http.StatusText(t.code)), abi.MaxReason)
	if n, err := strconv.Atoi(t.response.header.Get("Retry-After")); err == nil && n >= 0 && n <= 3600 {
		d.RetryAfter = n
	}
	return d
}
