package main

import (
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/portico-proxy/portico/filters/wasm"
)

// modules prepares what runs WebAssembly filters.
func (p *proxy) modules(client kubernetes.Interface, o proxyOptions) (*wasm.Library, error) {
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
	return wasm.NewLibrary(wasm.Options{
		CacheDir: o.filterCacheDir, Sources: wasm.Sources{ConfigMap: configMap}, Observe: p.decided, Log: p.log.WithName("wasm"),
	})
}
