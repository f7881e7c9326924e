package clients

import (
	"io"
	"maps"
	"net/http"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/rest"
)

// An exchange is a request's answer, without what differs from one request to
// the next.
type exchange struct {
	Status  int
	Header  http.Header
	Trailer http.Header
	Body    string
}

// ownHeaders name headers that the proxy adds, or that no two answers share.
var ownHeaders = []string{"Portico-Served-By", "Audit-Id", "Date"}

// ask sends a GET as it is: nothing is decompressed on the way back.
func ask(t *testing.T, config *rest.Config, path string, header http.Header) *exchange {
	t.Helper()
	config = rest.CopyConfig(config)
	config.DisableCompression = true
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, config.Host+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header = maps.Clone(header)
	res, err := httpClient(t, config).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Errorf("GET %s: %v", path, err)
	}
	maps.DeleteFunc(res.Header, func(name string, _ []string) bool { return slices.Contains(ownHeaders, name) })
	if res.Header.Get("Expires") != "" {
		res.Header.Set("Expires", "in a year") // from now, to the second
	}
	return &exchange{Status: res.StatusCode, Header: res.Header, Trailer: res.Trailer, Body: string(body)}
}

// A pair is the same caller on both ways.
type pair struct{ direct, proxied *rest.Config }

// ask sends a GET both ways, wants the same answer, and returns it.
func (p pair) ask(t *testing.T, path string, header http.Header) *exchange {
	t.Helper()
	want, got := ask(t, p.direct, path, header), ask(t, p.proxied, path, header)
	if want.Body != got.Body && len(want.Body) > 10_000 {
		t.Errorf("GET %s: bodies of %d and %d bytes differ", path, len(want.Body), len(got.Body))
		got.Body = want.Body
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("GET %s %v: answers differ (-direct +proxied):\n%s", path, header, diff)
	}
	return want
}
