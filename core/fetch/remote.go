package fetch

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
)

// FromURL reads what is at https addresses by client, which follows no redirect
// to anything else.
func FromURL(client *http.Client) func(ctx context.Context, url string) ([]byte, error) {
	only := *client
	only.CheckRedirect = func(r *http.Request, via []*http.Request) error {
		if r.URL.Scheme != "https" || len(via) > 10 {
			return errPlain
		}
		return nil
	}
	return func(ctx context.Context, url string) ([]byte, error) {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return nil, fmt.Errorf("read the url: %w", err)
		}
		res, err := only.Do(r)
		if err != nil {
			return nil, err
		}
		defer res.Body.Close()
		if res.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("%s answers %s", r.URL.Host, res.Status)
		}
		return readAll(res.Body)
	}
}

// FromOCI reads the one layer of artifacts in registries. They are asked over TLS unless they are
// on this machine; credentials may be nil, which is anonymous. What a registry
// sends is checked against the digest that was asked for.
func FromOCI(client *http.Client, credentials auth.CredentialFunc) func(ctx context.Context, reference string) ([]byte, error) {
	cache := auth.NewCache()
	return func(ctx context.Context, reference string) ([]byte, error) {
		from, err := remote.NewRepository(reference)
		if err != nil {
			return nil, fmt.Errorf("read the reference: %w", err)
		}
		from.PlainHTTP = isHere(from.Reference.Host())
		from.Client = &auth.Client{Client: client, Cache: cache, Credential: credentials}
		layer, err := layerOf(ctx, from)
		if err != nil {
			return nil, err
		}
		code, err := content.FetchAll(ctx, from, *layer)
		if err != nil {
			return nil, fmt.Errorf("fetch the layer: %w", err)
		}
		return code, nil
	}
}

// layerOf finds the one layer of an artifact.
func layerOf(ctx context.Context, from *remote.Repository) (*ocispec.Descriptor, error) {
	artifact, err := from.Resolve(ctx, from.Reference.Reference)
	if err != nil {
		return nil, fmt.Errorf("find the artifact: %w", err)
	}
	if artifact.Size > maxManifest {
		return nil, errLayers
	}
	text, err := content.FetchAll(ctx, from, artifact)
	if err != nil {
		return nil, fmt.Errorf("fetch the manifest: %w", err)
	}
	var manifest ocispec.Manifest
	if err := json.Unmarshal(text, &manifest); err != nil || len(manifest.Layers) != 1 {
		return nil, errLayers
	}
	if manifest.Layers[0].Size > MaxSize {
		return nil, errLarge
	}
	return &manifest.Layers[0], nil
}

// maxManifest bounds the manifest of an artifact, in bytes.
const maxManifest = 1 << 20

func isHere(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
