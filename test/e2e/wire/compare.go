package wire

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/google/go-cmp/cmp"
)

// perAnswer are headers that differ between any two answers of one server.
var perAnswer = map[string]string{
	"Date":     "the time of the answer",
	"Audit-Id": "made up for each request, unless the request brings one",
}

// perConnection are headers that belong to one connection and not to the
// answer (RFC 9110 section 7.6.1), or say how its body is framed on it: the
// API server frames as fits the protocol, and the proxy's two sides may speak
// different ones.
var perConnection = map[string]string{
	"Connection":        "about this connection",
	"Keep-Alive":        "about this connection",
	"Transfer-Encoding": "framing",
	"Content-Length":    "framing; where both sides send it, it is compared",
	"Trailer":           "framing; the trailers themselves are compared",
}

// ours are headers only the proxy sends.
var ours = map[string]string{
	"Portico-Served-By": "says how the proxy made the answer",
	"Age":               "how old an answer from memory may be",
	"Portico-Progress":  "says to other proxies that a watch proves progress on demand",
}

// ofTheWay are headers about how an answer's body travels. Answers from memory
// are compressed for other machines only, and watches not at all; what they are
// compressed from is compared.
var ofTheWay = map[string]string{"Content-Encoding": "", "Vary": "of Content-Encoding"}

// ofTheQueue are headers that say which queue a request stood in. Answers from
// memory stood in none.
var ofTheQueue = map[string]string{
	"X-Kubernetes-Pf-Flowschema-Uid":    "the flow schema",
	"X-Kubernetes-Pf-Prioritylevel-Uid": "the priority level",
}

// Diff says how the proxy's answer to r differs from the API server's own;
// empty if it does not. Everything is compared but the headers listed above.
//
// Of interim answers 100 (Continue) is not compared: it says that the body may
// come, and whoever reads the body may say so at any time (RFC 9110 section
// 10.1.1). Over HTTP/2 the proxy begins to read before the API server does.
func Diff(r Request, direct, proxied Response) string {
	var b strings.Builder
	note := func(what string, direct, proxied any) {
		if d := cmp.Diff(direct, proxied); d != "" {
			fmt.Fprintf(&b, "%s (-direct +proxied):\n%s", what, d)
		}
	}
	note("status", direct.Code, proxied.Code)
	if direct.Code != 0 || proxied.Code != 0 {
		// How a server refuses what is not HTTP is a race of its own.
		note("end", direct.End, proxied.End)
	}
	note("interim answers", codes(direct.Interim), codes(proxied.Interim))
	excluded := []map[string]string{perAnswer, perConnection, ours}
	if proxied.FromMemory() {
		excluded = append(excluded, ofTheQueue, ofTheWay)
	}
	if strings.Contains(r.Target, "watch") {
		excluded = append(excluded, ofTheWay)
	}
	note("header", kept(r, direct.Header, excluded), kept(r, proxied.Header, excluded))
	note("trailer", trailer(direct), trailer(proxied))
	for _, length := range lengths(direct, proxied) {
		note("Content-Length", length[0], length[1])
	}
	if at := firstDifference(direct.Body, proxied.Body); at >= 0 {
		fmt.Fprintf(&b, "body, of %d and %d bytes, from byte %d on:\n- %q\n+ %q\n",
			len(direct.Body), len(proxied.Body), at, around(direct.Body, at), around(proxied.Body, at))
	}
	return b.String()
}

// FromMemory reports an answer that the API server was not asked for by itself.
func (r Response) FromMemory() bool {
	by := r.Header.Get("Portico-Served-By")
	return by == "cache" || by == "coalesced"
}

func kept(r Request, h http.Header, excluded []map[string]string) http.Header {
	h = h.Clone()
	for _, names := range excluded {
		for name := range names {
			if name == "Audit-Id" && r.has(name) {
				continue
			}
			h.Del(name)
		}
	}
	return h
}

// has says whether the first field of that name has a value.
func (r Request) has(name string) bool {
	i := slices.IndexFunc(r.Header, func(f Field) bool { return strings.EqualFold(f.Name, name) })
	return i >= 0 && r.Header[i].Value != ""
}

func codes(all []Interim) (codes []int) {
	for _, i := range all {
		if i.Code != http.StatusContinue {
			codes = append(codes, i.Code)
		}
	}
	return codes
}

// trailer makes none and empty the same.
func trailer(r Response) http.Header {
	if len(r.Trailer) == 0 {
		return nil
	}
	return r.Trailer
}

// lengths pairs the Content-Length of both answers if both have it.
func lengths(direct, proxied Response) (pairs [][2][]string) {
	a, b := direct.Header["Content-Length"], proxied.Header["Content-Length"]
	if a != nil && b != nil {
		pairs = append(pairs, [2][]string{a, b})
	}
	return pairs
}

// firstDifference is an index, or -1 if there is none.
func firstDifference(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	if len(a) != len(b) {
		return min(len(a), len(b))
	}
	return -1
}

// around shows what is near an index.
func around(body []byte, at int) []byte {
	return body[max(0, at-200):min(len(body), at+400)]
}
