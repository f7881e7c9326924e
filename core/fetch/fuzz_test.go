package fetch

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// shelf answers as a registry that has a manifest and one layer.
type shelf struct{ manifest, layer []byte }

func (s shelf) RoundTrip(r *http.Request) (*http.Response, error) {
	content, kind := s.layer, "application/octet-stream"
	if strings.Contains(r.URL.Path, "/manifests/") {
		content, kind = s.manifest, ocispec.MediaTypeImageManifest
	}
	res := &http.Response{
		StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: r, ContentLength: int64(len(content)),
		Header: http.Header{"Content-Type": {kind}, "Docker-Content-Digest": {"sha256:" + digestOf(content)}}, Body: http.NoBody,
	}
	if r.Method != http.MethodHead {
		res.Body = io.NopCloser(bytes.NewReader(content))
	}
	return res, nil
}

func digestOf(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}

// FuzzManifest reads the manifest of an artifact from whoever has a registry: what
// comes of it is the layer that was asked for, or nothing.
func FuzzManifest(f *testing.F) {
	layer := []byte("code")
	f.Add([]byte(`{"schemaVersion":2,"layers":[{"mediaType":"x","digest":"sha256:`+digestOf(layer)+`","size":4}]}`), layer)
	f.Add([]byte(`{"layers":[{"digest":"sha256:","size":-1}]}`), layer)
	f.Add([]byte(`{"layers":[{"digest":"sha512:0","size":99999999999}]}`), layer)
	f.Fuzz(func(t *testing.T, manifest, layer []byte) {
		read := FromOCI(&http.Client{Transport: shelf{manifest, layer}}, nil)
		code, err := read(t.Context(), "localhost:1/p/q@sha256:"+digestOf(manifest))
		if err != nil {
			return
		}
		if !bytes.Equal(code, layer) || !bytes.Contains(manifest, []byte(digestOf(layer))) && len(layer) > 0 {
			t.Fatalf("%q was read of %q", code, manifest)
		}
	})
}
