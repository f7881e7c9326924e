// Package view says what of each object exists for a caller. Whoever answers a
// request applies its views to every object of the answer, and so do filters to
// what a request is about.
package view

import (
	"context"
	"errors"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// A View is how one caller sees objects. One value serves many requests at once.
type View interface {
	// See returns o as the caller sees it: o.JSON itself where nothing is changed,
	// other bytes where something is, nil where o does not exist for the caller. An
	// error says that it cannot be told: then the answer fails, for controllers act
	// on what is absent. It is the same for the same object as long as the view has
	// not changed, unless the view says by [Doubt] that it may not be, and it keeps o.JSON's metadata.resourceVersion as it is.
	See(ctx context.Context, o Object) ([]byte, error)
	// Key is equal for views that see alike: an object is looked at once for all
	// callers whose views have one key.
	Key() string
	// Changed is closed once the view sees otherwise. Watches end then, with 410,
	// so that clients list again. Nil never closes.
	Changed() <-chan struct{}
}

// An Object is one as the API server sent it.
type Object struct {
	Resource        schema.GroupVersionResource
	Namespace       string // empty outside namespaces
	Name            string
	UID             string
	ResourceVersion uint64
	Labels          labels.Labels
	// JSON is the whole object. It is shared: never write to it. Items of lists
	// have no kind and apiVersion, but for those of custom resources.
	JSON []byte
}

// Views are a request's, in the order in which they look: each sees what the one
// before it left.
type Views []View

type viewsKey struct{}

// With adds to the views of a request.
func With(ctx context.Context, added ...View) context.Context {
	return context.WithValue(ctx, viewsKey{}, append(slices.Clip(From(ctx)), added...))
}

// From returns the views of a request: none where its caller sees everything.
func From(ctx context.Context) Views {
	views, _ := ctx.Value(viewsKey{}).(Views)
	return views
}

// See is what is left of o for the caller; see [View].
func (s Views) See(ctx context.Context, o Object) ([]byte, error) {
	for _, v := range s {
		seen, err := v.See(ctx, o)
		if seen == nil || err != nil {
			return nil, err
		}
		o.JSON = seen
	}
	return o.JSON, nil
}

// Key is equal for views that see alike.
func (s Views) Key() string {
	keys := make([]string, len(s))
	for i, v := range s {
		keys[i] = v.Key()
	}
	return strings.Join(keys, "\x00")
}

var (
	// ErrUnseen says that an answer is there and cannot be shown.
	ErrUnseen = errors.New("what of the answer exists for the caller cannot be told")
	// ErrChanged ends what was begun under views that see otherwise now.
	ErrChanged = errors.New("what exists for the caller has changed")
)

// Until returns a context that ends with [ErrChanged] as its cause once one of the
// views has changed, or the answer is to end (see [WithEnd]).
func (s Views) Until(ctx context.Context) (context.Context, context.CancelFunc) {
	over := Ending(ctx)
	ctx, cancel := context.WithCancelCause(ctx)
	stop := func() bool { return true }
	if over != nil {
		stop = context.AfterFunc(over, func() { cancel(ErrChanged) })
	}
	for _, v := range s {
		changed := v.Changed()
		if changed == nil {
			continue
		}
		go func() {
			select {
			case <-changed:
				cancel(ErrChanged)
			case <-ctx.Done():
			}
		}()
	}
	return ctx, func() {
		stop()
		cancel(context.Canceled)
	}
}
