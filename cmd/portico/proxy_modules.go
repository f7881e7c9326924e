package main

import (
	"context"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/portico-proxy/portico/core/telemetry"
	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
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
	metrics := p.telemetry.Metrics
	observe := func(b *v1alpha1.FilterBindingSpec, name, decision string, took time.Duration) {
		metrics.Decided(telemetry.Decision{Filter: name, Phase: string(b.Phase), Mode: string(b.Mode), Decision: decision, Took: took})
	}
	return wasm.NewLibrary(wasm.Options{
		CacheDir: o.filterCacheDir, Sources: wasm.Sources{ConfigMap: configMap}, Observe: observe, Log: p.log.WithName("wasm"),
	})
}
