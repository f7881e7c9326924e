package view

import (
	"context"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// Expired is what the caller of a watch is told that ends with [ErrChanged].
func Expired() *apierrors.StatusError {
	return apierrors.NewResourceExpired("what exists for you has changed: list again")
}

type endingKey struct{}

// WithEnd returns a context under which an answer is over once end is called: a watch
// ends with 410, so that clients list again. Nobody looks at its objects for that.
func WithEnd(ctx context.Context) (_ context.Context, end func()) {
	over := Ending(ctx)
	if over == nil {
		over = context.WithoutCancel(ctx)
	}
	over, cancel := context.WithCancelCause(over)
	return context.WithValue(ctx, endingKey{}, over), func() { cancel(ErrChanged) }
}

// Ending returns a context that ends once the answer to a request is to; nil if nobody
// may say so.
func Ending(ctx context.Context) context.Context {
	over, _ := ctx.Value(endingKey{}).(context.Context)
	return over
}
