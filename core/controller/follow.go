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

	// doubt is how long an API server may refuse, and not say that it has started,
	// until its refusals are believed: it may not let the proxy ask.
	doubt = 30 * time.Second
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
		if c.doubts(k, err) && c.hasStarted(ctx, k) {
			answer, err = ask() // now it counts
		}
		if err == nil {
			c.found(k)
		}
		if err == nil || ctx.Err() != nil || !saysNothing(err) && !c.doubts(k, err) {
			return answer, err
		}
		c.lost(k, err)
		if k.informer.HasSynced() {
			return answer, err
		}
		if saysNothing(err) {
			k.started, k.refused = false, time.Time{} // it will be another that comes
		}
		select {
		case <-time.After(wait/2 + rand.N(wait/2)):
		case <-ctx.Done():
			return answer, err
		}
	}
}

// doubts reports whether err is a refusal that need not be meant. An API server that
// starts refuses everybody until it knows what they may: taken at its word, the proxy
// would let pass what policies forbid. So refusals count that come after it has said
// that it has started.
func (c *Controller) doubts(k *kind, err error) bool {
	return (apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err)) && c.Started != nil && !k.started && !k.informer.HasSynced()
}

func (c *Controller) hasStarted(ctx context.Context, k *kind) bool {
	if k.refused.IsZero() {
		k.refused = time.Now()
	}
	k.started = time.Since(k.refused) > doubt || c.Started(ctx)
	return k.started
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
