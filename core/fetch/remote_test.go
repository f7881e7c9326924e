package fetch

import (
	"bytes"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/content/memory"
)

// shelfServer is an https server with one file.
func shelfServer(t *testing.T, code []byte) *httptest.Server {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("/f.wasm", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(code) })
	mux.Handle("/moved", http.RedirectHandler("/f.wasm", http.StatusFound))
	mux.Handle("/away", http.RedirectHandler("http://127.0.0.1:1/f.wasm", http.StatusFound))
	s := httptest.NewTLSServer(mux)
	t.Cleanup(s.Close)
	return s
}

func TestContentComesFromURLs(t *testing.T) {
	s := shelfServer(t, []byte("code"))
	get := FromURL(s.Client())
	for _, p := range []string{"/f.wasm", "/moved"} {
		if got, err := get(t.Context(), s.URL+p); err != nil || string(got) != "code" {
			t.Errorf("%s: %q, %v", p, got, err)
		}
	}
	if _, err := get(t.Context(), s.URL+"/away"); !errors.Is(err, errPlain) {
		t.Errorf("away from https: %v", err)
	}
	if _, err := get(t.Context(), s.URL+"/none"); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("not there: %v", err)
	}
	if _, err := FromURL(http.DefaultClient)(t.Context(), s.URL+"/f.wasm"); err == nil {
		t.Error("the certificate was not checked")
	}
	http.DefaultClient.CloseIdleConnections()
	large := shelfServer(t, make([]byte, MaxSize+1))
	if _, err := FromURL(large.Client())(t.Context(), large.URL+"/f.wasm"); !errors.Is(err, errLarge) {
		t.Errorf("too large: %v", err)
	}
}

// registry serves what oras has packed, by digest. A lying one has other bytes.
func registry(t *testing.T, store *memory.Store, lies bool) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d := digest.Digest(path.Base(r.URL.Path))
		kind := "application/octet-stream"
		if strings.Contains(r.URL.Path, "/manifests/") {
			kind = ocispec.MediaTypeImageManifest
		}
		for _, one := range packed(t, store) {
			if one.Digest != d {
				continue
			}
			body, err := content.FetchAll(r.Context(), store, one)
			if err != nil {
				t.Error(err)
			}
			if lies && kind != ocispec.MediaTypeImageManifest {
				body = bytes.ToUpper(body)
			}
			w.Header().Set("Content-Type", kind)
			w.Header().Set("Docker-Content-Digest", d.String())
			_, _ = w.Write(body)
			return
		}
		w.WriteHeader(http.StatusNotFound)
	}))
	t.Cleanup(s.Close)
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	return u.Host
}

// packed are the manifest and the layers that store has.
func packed(t *testing.T, store *memory.Store) []ocispec.Descriptor {
	t.Helper()
	root, err := store.Resolve(t.Context(), "v1")
	if err != nil {
		t.Fatal(err)
	}
	next, err := content.Successors(t.Context(), store, root)
	if err != nil {
		t.Fatal(err)
	}
	return append(next, root)
}

func pack(t *testing.T, layers ...[]byte) (*memory.Store, digest.Digest) {
	t.Helper()
	store := memory.New()
	var descriptors []ocispec.Descriptor
	for _, l := range layers {
		d, err := oras.PushBytes(t.Context(), store, "application/wasm", l)
		if err != nil {
			t.Fatal(err)
		}
		descriptors = append(descriptors, d)
	}
	root, err := oras.PackManifest(t.Context(), store, oras.PackManifestVersion1_1, "application/vnd.portico.filter", oras.PackManifestOptions{Layers: descriptors})
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Tag(t.Context(), root, "v1"); err != nil {
		t.Fatal(err)
	}
	return store, root.Digest
}

func TestContentComesFromRegistries(t *testing.T) {
	client := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(client.CloseIdleConnections)
	get := FromOCI(client, nil)
	store, d := pack(t, []byte("code"))
	if got, err := get(t.Context(), registry(t, store, false)+"/filters/f@"+d.String()); err != nil || string(got) != "code" {
		t.Errorf("got %q, %v", got, err)
	}
	if got, err := get(t.Context(), registry(t, store, true)+"/filters/f@"+d.String()); err == nil {
		t.Errorf("other bytes than were asked for: %q", got)
	}
	if _, err := get(t.Context(), registry(t, store, false)+"/filters/f@"+digest.FromString("other").String()); err == nil {
		t.Error("what is not there was found")
	}
	two, d := pack(t, []byte("code"), []byte("more"))
	if _, err := get(t.Context(), registry(t, two, false)+"/filters/f@"+d.String()); !errors.Is(err, errLayers) {
		t.Errorf("two layers: %v", err)
	}
}
