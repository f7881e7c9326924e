package clients

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
)

const (
	aggregatedDiscovery = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"
	openAPIProtobuf     = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
	openAPIV3Protobuf   = "application/com.github.proto-openapi.spec.v3@v1.0+protobuf"
)

// TestDiscoveryIsAnsweredAlike asks for what clients learn an API server from,
// in each form, then whether that has changed.
func TestDiscoveryIsAnsweredAlike(t *testing.T) {
	both := pair{straight(), through(newProxy(t))}
	for name, c := range map[string]struct {
		path, accept string
		tagged       bool // the answer has an ETag
	}{
		"groups":              {"/apis", "application/json", false},
		"groups-protobuf":     {"/apis", "application/vnd.kubernetes.protobuf", false},
		"groups-cbor":         {"/apis", "application/cbor", false},
		"aggregated-core":     {"/api", aggregatedDiscovery, true},
		"aggregated":          {"/apis", aggregatedDiscovery, true},
		"aggregated-protobuf": {"/apis", "application/vnd.kubernetes.protobuf;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList", true},
		"resources":           {"/apis/apps/v1", "application/json", false},
		"resources-core":      {"/api/v1", "application/vnd.kubernetes.protobuf", false},
		"group":               {"/apis/apps", "application/json", false},
		"no-group":            {"/apis/nonsense.example.org", "application/json", false},
		"openapi-v2":          {"/openapi/v2", "application/json", true},
		"openapi-v2-protobuf": {"/openapi/v2", openAPIProtobuf, true},
		"openapi-v2-unknown":  {"/openapi/v2", "text/html", false},
		"openapi-v3":          {"/openapi/v3", "application/json", false},
		"openapi-v3-group":    {"/openapi/v3/apis/apps/v1", "application/json", true},
		"openapi-v3-protobuf": {"/openapi/v3/api/v1", openAPIV3Protobuf, true},
		"version":             {"/version", "application/json", false},
		"not-acceptable":      {"/apis", "text/html", false},
	} {
		t.Run(name, func(t *testing.T) {
			got := both.ask(t, c.path, http.Header{"Accept": {c.accept}})
			tag := got.Header.Get("Etag")
			if (tag != "") != c.tagged {
				t.Errorf("ETag is %q", tag)
			}
			both.ask(t, c.path, http.Header{"Accept": {c.accept}, "Accept-Encoding": {"gzip"}})
			if tag == "" {
				return
			}
			if again := both.ask(t, c.path, http.Header{"Accept": {c.accept}, "If-None-Match": {tag}}); again.Status != http.StatusNotModified {
				t.Errorf("asked for another than %s: status %d, want 304", tag, again.Status)
			}
			both.ask(t, c.path, http.Header{"Accept": {c.accept}, "If-None-Match": {`"another"`}})
		})
	}
}

// TestOpenAPIByHash follows the links of /openapi/v3, which lead to documents
// that may be kept for ever, and a stale one, which redirects.
func TestOpenAPIByHash(t *testing.T) {
	both := pair{straight(), through(newProxy(t))}
	var index struct {
		Paths map[string]struct {
			ServerRelativeURL string `json:"serverRelativeURL"`
		} `json:"paths"`
	}
	if err := json.Unmarshal([]byte(both.ask(t, "/openapi/v3", nil).Body), &index); err != nil {
		t.Fatal(err)
	}
	link := index.Paths["apis/apps/v1"].ServerRelativeURL
	if got := both.ask(t, link, nil); got.Status != http.StatusOK || got.Header.Get("Expires") == "" {
		t.Errorf("GET %s: %d, Expires %q", link, got.Status, got.Header.Get("Expires"))
	}
	both.ask(t, "/openapi/v3/apis/apps/v1?hash=stale", nil)
}

// TestOpenAPIIsCompressedOnce checks that gzip is passed on and not opened.
func TestOpenAPIIsCompressedOnce(t *testing.T) {
	both := pair{straight(), through(newProxy(t))}
	got := both.ask(t, "/openapi/v2", http.Header{"Accept-Encoding": {"gzip"}})
	if got.Header.Get("Content-Encoding") != "gzip" {
		t.Fatalf("Content-Encoding is %q", got.Header.Get("Content-Encoding"))
	}
	unpacked, err := gzip.NewReader(bytes.NewReader([]byte(got.Body)))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(unpacked)
	if err != nil {
		t.Fatal(err)
	}
	if plain := ask(t, both.proxied, "/openapi/v2", nil); plain.Body != string(text) {
		t.Errorf("unpacked it has %d bytes, plain %d", len(text), len(plain.Body))
	}
}

// TestDiscoveryClientsSeeTheSame reads everything as client-go does.
func TestDiscoveryClientsSeeTheSame(t *testing.T) {
	both := pair{straight(), through(newProxy(t))}
	groups := func(config *rest.Config) any {
		client, err := discovery.NewDiscoveryClientForConfigAndClient(config, httpClient(t, config))
		if err != nil {
			t.Fatal(err)
		}
		groups, resources, err := client.ServerGroupsAndResources()
		if err != nil {
			t.Error(err)
		}
		slices.SortFunc(resources, func(a, b *metav1.APIResourceList) int { return strings.Compare(a.GroupVersion, b.GroupVersion) })
		paths, err := client.OpenAPIV3().Paths()
		if err != nil {
			t.Error(err)
		}
		links := map[string]string{}
		for path, version := range paths {
			links[path] = version.ServerRelativeURL()
		}
		return []any{groups, resources, links}
	}
	if diff := cmp.Diff(groups(both.direct), groups(both.proxied)); diff != "" {
		t.Errorf("(-direct +proxied):\n%s", diff)
	}
}
