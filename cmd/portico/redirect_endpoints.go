package main

import (
	"maps"
	"slices"

	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/portico-proxy/portico/core/redirect"
)

// byService is the index by which the EndpointSlices of one Service are found.
const byService = "service"

// watchEndpoints remembers whose endpoints change, so that only those Services
// are decided on again.
func (w *watcher) watchEndpoints() error {
	err := w.services.IndexField(w.ctx, &discoveryv1.EndpointSlice{}, byService, func(o client.Object) []string {
		return []string{o.GetLabels()[discoveryv1.LabelServiceName]}
	})
	if err != nil {
		return err
	}
	return w.handle(w.services, &discoveryv1.EndpointSlice{}, func(o any) {
		if gone, ok := o.(toolscache.DeletedFinalStateUnknown); ok {
			o = gone.Obj
		}
		if slice, ok := o.(*discoveryv1.EndpointSlice); ok {
			w.touch(redirect.ServiceOf(slice))
		}
	})
}

func (w *watcher) touch(service types.NamespacedName) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.moved[service] = true
}

// touches says whether the endpoints of any Service have changed.
func (w *watcher) touches() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.moved) > 0
}

// touched returns the Services whose endpoints have changed since it was last
// asked.
func (w *watcher) touched() []types.NamespacedName {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := slices.Collect(maps.Keys(w.moved))
	clear(w.moved)
	return all
}

// endpointSlices are those of one Service.
func (w *watcher) endpointSlices(of types.NamespacedName) ([]*discoveryv1.EndpointSlice, error) {
	var list discoveryv1.EndpointSliceList
	err := w.services.List(w.ctx, &list, client.InNamespace(of.Namespace), client.MatchingFields{byService: of.Name})
	return pointers(list.Items), err
}
