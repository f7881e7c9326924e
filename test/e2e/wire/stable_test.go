package wire_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/portico-proxy/portico/test/e2e/wire"
)

// madeUp matches what the API server makes up anew for each answer: uids and
// times, and ages in a Table.
var madeUp = regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ|\b(?:\d+[dhms]){1,2}\b`)

// stable blanks what differs between any two answers to one request. The rest
// stays byte for byte.
func stable(r wire.Response) wire.Response {
	if r.Header.Get("Content-Encoding") == "gzip" {
		r.Body = unzip(r.Body)
		r.Header = r.Header.Clone()
		r.Header.Del("Content-Length") // of what is compressed
	}
	r.Body = madeUp.ReplaceAll(r.Body, []byte("(made up)"))
	if strings.HasPrefix(r.Header.Get("Content-Type"), "application/cbor") {
		// The API server shuffles maps in CBOR, so that nobody counts on an order.
		r.Body = slices.Sorted(slices.Values(r.Body))
	}
	return r
}

// unzip returns what is not gzip, or is cut off, as it came.
func unzip(body []byte) []byte {
	z, err := gzip.NewReader(bytes.NewReader(body))
	if err != nil {
		return body
	}
	plain, err := io.ReadAll(z)
	if err != nil {
		return body
	}
	return plain
}

// snapshot is the names and resourceVersions of what requests may reach.
func snapshot(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	version := regexp.MustCompile(`"name":"([^"]*)",(?:"namespace":"[^"]*",)?"uid":"[^"]*","resourceVersion":"(\d+)"`)
	for _, path := range collections {
		r := admin(wire.Request{Target: path}).With("Accept", "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1")
		res, err := direct().HTTP2(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		if res.Code != http.StatusOK {
			continue // the way to watch of old is no collection
		}
		fmt.Fprintln(&b, path)
		for _, m := range version.FindAllSubmatch(res.Body, -1) {
			fmt.Fprintf(&b, " %s@%s", m[1], m[2])
		}
		fmt.Fprintln(&b)
	}
	return b.String()
}
