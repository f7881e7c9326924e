package upstream

import "context"

type (
	doubtKey  struct{}
	beforeKey struct{}
)

// WithDoubt marks a request whose caller was named by a review that has outlived its
// time, because the API server cannot be asked again. No grant is good for it.
func WithDoubt(ctx context.Context) context.Context { return context.WithValue(ctx, doubtKey{}, true) }

// InDoubt reports whether a request has been marked by [WithDoubt].
func InDoubt(ctx context.Context) bool {
	doubt, _ := ctx.Value(doubtKey{}).(bool)
	return doubt
}

// WithGrantOfBefore marks a request whose caller might see the answer when the API
// server was last asked. It is no grant: it is good only for what is known to be
// stale, once the API server has failed to answer. Only filters/authz says so.
func WithGrantOfBefore(ctx context.Context) context.Context {
	return context.WithValue(ctx, beforeKey{}, true)
}

// GrantedBefore reports whether a request has been marked by [WithGrantOfBefore].
func GrantedBefore(ctx context.Context) bool {
	before, _ := ctx.Value(beforeKey{}).(bool)
	return before
}
