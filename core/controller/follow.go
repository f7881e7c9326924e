package controller

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
)

// While nothing is known of a kind, every request waits for it: the informer's own
// back-off of up to a minute would leave clients without an API server that has
// long come back.
const (
	firstRetry = time.Second
	lastRetry  = 5 * time.Second
)

// inform returns an informer of k that insists until it has been told for the
// first time what there is.
func (c *Controller) inform(k *kind) cache.SharedIndexInformer {
	client := c.Client.Resource(k.resource)
	source := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			return insist(ctx, c, k, func() (runtime.Object, error) { return client.List(ctx, o) })
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return insist(ctx, c, k, func() (watch.Interface, error) { return client.Watch(ctx, o) })
		},
	}
	return cache.NewSharedIndexInformerWithOptions(cache.ToListWatcherWithWatchListSemantics(source, c.Client),
		&unstructured.Unstructured{}, cache.SharedIndexInformerOptions{ObjectDescription: k.resource.String()})
}

// insist asks until there is an answer that says something about policies, or
// until k is known: then policies are in force, and the informer may take its time.
func insist[T any](ctx context.Context, c *Controller, k *kind, ask func() (T, error)) (T, error) {
	for wait := firstRetry; ; wait = min(2*wait, lastRetry) {
		answer, err := ask()
		if err == nil {
			c.found(k)
		}
		if err == nil || !saysNothing(err) || ctx.Err() != nil {
			return answer, err
		}
		c.lost(k, err)
		if k.informer.HasSynced() {
			return answer, err
		}
		select {
		case <-time.After(wait/2 + rand.N(wait/2)):
		case <-ctx.Done():
			return answer, err
		}
	}
}

// saysNothing reports whether err is of an API server that could not be reached,
// or of what stands in front of one.
func saysNothing(err error) bool {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return true
	}
	switch status.Status().Code {
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// lost takes note that k cannot be read, which is logged once until it can be.
func (c *Controller) lost(k *kind, err error) {
	if !k.lost.Swap(true) {
		c.Log.Info("policies of the API are not followed for now", "resource", k.resource.Resource, "reason", err.Error())
	}
}

func (c *Controller) found(k *kind) {
	if k.lost.Swap(false) {
		c.Log.Info("policies of the API are followed again", "resource", k.resource.Resource)
	}
}
