package cachetest

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"
)

// Door is one way to the API server, for one test.
type Door struct {
	t      testing.TB
	url    string
	client *http.Client
}

// NewDoor opens a way to the server that cfg names, as whom cfg says. It does
// not ask for compression: bytes are to be compared.
func NewDoor(t testing.TB, cfg *rest.Config) *Door {
	t.Helper()
	tlsConfig, err := rest.TLSConfigFor(cfg)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: tlsConfig, ForceAttemptHTTP2: true, DisableCompression: true}
	t.Cleanup(transport.CloseIdleConnections)
	wrapped, err := rest.HTTPWrappersForConfig(cfg, transport)
	if err != nil {
		t.Fatal(err)
	}
	return &Door{t: t, url: strings.TrimSuffix(cfg.Host, "/"), client: &http.Client{Transport: wrapped}}
}

// An Answer is a response read to its end.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// ServedBy says how the proxy made the answer, nothing if upstream did.
func (a Answer) ServedBy() string { return a.Header.Get("Portico-Served-By") }

// Media types.
const (
	JSON     = "application/json"
	Protobuf = "application/vnd.kubernetes.protobuf"
)

// Open sends a request and leaves the body to the caller.
func (d *Door) Open(ctx context.Context, method, path string, header http.Header, body []byte) *http.Response {
	d.t.Helper()
	r, err := http.NewRequestWithContext(ctx, method, d.url+path, bytes.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	r.Header = header
	res, err := d.client.Do(r)
	if err != nil {
		d.t.Fatal(err)
	}
	return res
}

// Get reads path to its end.
func (d *Door) Get(path, accept string) Answer {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), 30*time.Second)
	defer cancel()
	res := d.Open(ctx, http.MethodGet, path, http.Header{"Accept": {accept}}, nil)
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	return Answer{res.StatusCode, res.Header, body}
}

// Write sends an object and returns what came back.
func (d *Door) Write(method, path string, content any) Object {
	d.t.Helper()
	body, err := json.Marshal(content)
	if err != nil {
		d.t.Fatal(err)
	}
	if content == nil {
		body = nil
	}
	return d.send(method, path, JSON, body)
}

func (d *Door) send(method, path, contentType string, body []byte) Object {
	d.t.Helper()
	res := d.Open(d.t.Context(), method, path, http.Header{"Accept": {JSON}, "Content-Type": {contentType}}, body)
	defer func() { _ = res.Body.Close() }()
	var out Object
	if err := json.NewDecoder(res.Body).Decode(&out); err != nil || res.StatusCode >= 300 {
		d.t.Fatalf("%s %s: %d %v %v", method, path, res.StatusCode, out, err)
	}
	return out
}

// Patch merges into an object.
func (d *Door) Patch(path, merge string) Object {
	d.t.Helper()
	return d.send(http.MethodPatch, path, "application/merge-patch+json", []byte(merge))
}

// Object is a Kubernetes object.
type Object = map[string]any

// ResourceVersion is the one that o carries.
func ResourceVersion(o Object) string { return o["metadata"].(Object)["resourceVersion"].(string) }

// AddNamespace makes a namespace.
func (d *Door) AddNamespace(name string) {
	d.t.Helper()
	d.Write(http.MethodPost, "/api/v1/namespaces", Object{"metadata": Object{"name": name}})
}

// Bind puts a pod of the collection pods on a node, as a scheduler does, and
// returns it.
func (d *Door) Bind(pods, name, node string) Object {
	d.t.Helper()
	d.Write(http.MethodPost, pods+"/"+name+"/binding", Object{
		"apiVersion": "v1", "kind": "Binding", "metadata": Object{"name": name}, "target": Object{"kind": "Node", "name": node},
	})
	return d.Read(pods + "/" + name)
}

// Pod is as small as a pod can be.
func Pod(name string, labels Object) Object {
	return Object{
		"metadata": Object{"name": name, "labels": labels},
		"spec":     Object{"containers": []any{Object{"name": "c", "image": "example.org/c"}}},
	}
}

// List is what tests read of a list.
type List struct {
	Metadata struct {
		ResourceVersion string `json:"resourceVersion"`
		Continue        string `json:"continue"`
		Remaining       *int64 `json:"remainingItemCount"`
	} `json:"metadata"`
	Items []struct {
		Metadata struct {
			Name            string `json:"name"`
			Namespace       string `json:"namespace"`
			ResourceVersion string `json:"resourceVersion"`
		} `json:"metadata"`
	} `json:"items"`
}

// List reads a JSON list.
func (a Answer) List(t testing.TB) List {
	t.Helper()
	var l List
	if err := json.Unmarshal(a.Body, &l); err != nil || a.Status != 200 {
		t.Fatalf("%d %v: %.300s", a.Status, err, a.Body)
	}
	return l
}

// Names are the keys of a JSON list's items.
func (a Answer) Names(t testing.TB) []string {
	t.Helper()
	var names []string
	for _, i := range a.List(t).Items {
		names = append(names, i.Metadata.Namespace+"/"+i.Metadata.Name)
	}
	return names
}

// Read gets one object.
func (d *Door) Read(path string) Object {
	d.t.Helper()
	a := d.Get(path, JSON)
	var o Object
	if err := json.Unmarshal(a.Body, &o); err != nil || a.Status != 200 {
		d.t.Fatalf("get %s: %d %v", path, a.Status, err)
	}
	return o
}
