package pipeline

import "context"

type grantKey struct{}

// WithGrant marks a request as one whose caller may see the answer: upstream's
// own authorization was asked and said yes. Only filters/authz grants.
func WithGrant(ctx context.Context) context.Context {
	return context.WithValue(ctx, grantKey{}, true)
}

// Granted reports whether a request may be answered from memory. Without a
// grant it goes upstream and is judged there: forgetting to ask fails closed.
func Granted(ctx context.Context) bool {
	granted, _ := ctx.Value(grantKey{}).(bool)
	return granted
}
