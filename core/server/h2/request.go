package h2

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2"
)

var noDeadline time.Time

// newStream is the request that f begins. What it returns as an error is a fault
// of that request alone.
func (c *conn) newStream(f *http2.MetaHeadersFrame) (*stream, error) {
	malformed := func(why string) (*stream, error) { return nil, streamFault(f.StreamID, http2.ErrCodeProtocol, why) }
	method, scheme, path := f.PseudoValue("method"), f.PseudoValue("scheme"), f.PseudoValue("path")
	s := &stream{c: c, id: f.StreamID, handler: c.handler, size: -1, gotEnd: f.StreamEnded()}
	r := &http.Request{
		Method: method, Header: headerOf(f), Host: f.PseudoValue("authority"), RemoteAddr: c.remote, RequestURI: path,
		Proto: "HTTP/2.0", ProtoMajor: 2, TLS: &c.state, Body: http.NoBody,
	}
	if f.Truncated {
		s.handler = http.HandlerFunc(refuseHeader)
	} else if why := faultOf(r.Header); why != "" {
		s.handler = refusal(why)
	}
	if !hasTarget(r, scheme) || f.PseudoValue("protocol") != "" {
		return malformed("bad method, scheme, authority or path")
	}
	if !s.takeSize(r) {
		return malformed("bad content-length")
	}
	takeCookies(r.Header)
	takeTrailer(r)
	s.ctx, s.cancel = context.WithCancel(c.base)
	if !s.gotEnd {
		s.body = newBody(s, r.Trailer)
		r.Body = s.body
		s.expects = httpguts.HeaderValuesContainsToken(r.Header["Expect"], "100-continue")
		if s.expects {
			delete(r.Header, "Expect")
		}
	}
	s.request = r.WithContext(s.ctx)
	s.answer = &response{s: s, header: make(http.Header, 8), length: -1, isHead: method == http.MethodHead}
	return s, nil
}

func headerOf(f *http2.MetaHeadersFrame) http.Header {
	fields := f.RegularFields()
	h := make(http.Header, len(fields))
	values := make([]string, len(fields)) // one allocation for all
	for i, field := range fields {
		name := http.CanonicalHeaderKey(field.Name)
		if h[name] == nil {
			values[i] = field.Value
			h[name] = values[i : i+1 : i+1]
		} else {
			h[name] = append(h[name], field.Value)
		}
	}
	return h
}

// hasTarget reads what r is for, and takes what net/http takes: kube-apiserver
// does, and has its own words for the rest.
func hasTarget(r *http.Request, scheme string) bool {
	if r.Method == http.MethodConnect {
		if scheme != "" || r.RequestURI != "" || r.Host == "" {
			return false
		}
		r.RequestURI, r.URL = r.Host, &url.URL{Host: r.Host}
		return true
	}
	if r.Method == "" || r.RequestURI == "" || scheme != "https" && scheme != "http" {
		return false
	}
	if r.Host == "" {
		r.Host = r.Header.Get("Host")
	}
	var err error
	r.URL, err = url.ParseRequestURI(r.RequestURI)
	return err == nil && !strings.Contains(r.Host, "@")
}

// takeSize reads how long the body is to be.
func (s *stream) takeSize(r *http.Request) bool {
	for i, v := range r.Header["Content-Length"] {
		n, err := strconv.ParseUint(v, 10, 63)
		if err != nil || i > 0 && int64(n) != s.size {
			return false
		}
		s.size = int64(n)
	}
	r.ContentLength = s.size
	if s.gotEnd {
		r.ContentLength = 0
		return s.size <= 0
	}
	return true
}

func takeCookies(h http.Header) {
	if cookies := h["Cookie"]; len(cookies) > 1 {
		h["Cookie"] = []string{strings.Join(cookies, "; ")} // RFC 9113, 8.2.3
	}
}

// takeTrailer reads which fields come after the body.
func takeTrailer(r *http.Request) {
	for _, list := range r.Header["Trailer"] {
		for name := range strings.SplitSeq(list, ",") {
			name = http.CanonicalHeaderKey(strings.TrimSpace(name))
			if !httpguts.ValidTrailerHeader(name) {
				continue
			}
			if r.Trailer == nil {
				r.Trailer = http.Header{}
			}
			r.Trailer[name] = nil
		}
	}
	delete(r.Header, "Trailer")
}

// faultOf says what of h belongs to HTTP/1 connections only (RFC 9113, 8.2.2).
func faultOf(h http.Header) string {
	for _, name := range []string{"Connection", "Keep-Alive", "Proxy-Connection", "Transfer-Encoding", "Upgrade"} {
		if _, ok := h[name]; ok {
			return "request header " + strconv.Quote(name) + " is not valid in HTTP/2"
		}
	}
	if te := h["Te"]; len(te) > 1 || len(te) == 1 && te[0] != "trailers" && te[0] != "" {
		return `request header "TE" may only be "trailers" in HTTP/2`
	}
	return ""
}

func refusal(why string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, why+"\n")
	})
}

func refuseHeader(w http.ResponseWriter, _ *http.Request) {
	w.WriteHeader(http.StatusRequestHeaderFieldsTooLarge)
	_, _ = io.WriteString(w, "<h1>HTTP Error 431</h1><p>Request Header Field(s) Too Large</p>")
}
