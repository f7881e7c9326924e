package main

import (
	"context"
	"fmt"
	"net/http"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/credentials"

	"github.com/portico-proxy/portico/core/body"
	"github.com/portico-proxy/portico/core/fetch"
	"github.com/portico-proxy/portico/filters/wasm"
)

// sources are where modules and bundles come from.
func (o proxyOptions) sources(client kubernetes.Interface) (fetch.Sources, error) {
	configMap := func(ctx context.Context, namespace, name, key string) ([]byte, error) {
		m, err := client.CoreV1().ConfigMaps(namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return nil, err
		}
		code, ok := m.BinaryData[key]
		if !ok {
			return nil, fmt.Errorf("ConfigMap %s/%s has no %s in its binaryData", namespace, name, key)
		}
		return code, nil
	}
	login, err := o.registryLogin()
	if err != nil {
		return fetch.Sources{}, err
	}
	return fetch.Sources{ConfigMap: configMap, URL: fetch.FromURL(http.DefaultClient), OCI: fetch.FromOCI(http.DefaultClient, login)}, nil
}

// modules prepares what runs WebAssembly filters.
func (p *proxy) modules(cfg *rest.Config, own *http.Client, from fetch.Sources, o proxyOptions, rooms *body.Rooms) (*wasm.Library, error) {
	client, err := dynamic.NewForConfigAndClient(cfg, own)
	if err != nil {
		return nil, fmt.Errorf("prepare the proxy's own client: %w", err)
	}
	return wasm.NewLibrary(wasm.Options{
		CacheDir: o.filterCacheDir, Sources: from, Rooms: rooms, Client: client, LookupLimit: o.lookupMemory.Value(),
		Observe: p.decided, Log: p.log.WithName("wasm"),
	})
}

// registryLogin finds credentials of registries where docker keeps them; nil is
// nowhere.
func (o proxyOptions) registryLogin() (auth.CredentialFunc, error) {
	if o.registryConfig == "" {
		return nil, nil
	}
	store, err := credentials.NewStore(o.registryConfig, credentials.StoreOptions{})
	if err != nil {
		return nil, fmt.Errorf("read --registry-config: %w", err)
	}
	return credentials.Credential(store), nil
}
