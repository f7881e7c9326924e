package view

import (
	"context"
	"slices"

	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
)

// A Narrowing is a view that was not written down but made for a caller, by a
// policy that was asked about him. It holds as a VirtualView does.
type Narrowing struct {
	// Policy is its name for operators.
	Policy string
	// Audits says that it is only told of what would not exist.
	Audits bool
	// Spec has namespaces, hidden resources, rules and masks. It is shared: never
	// write to it. Whose view it is has been decided. An empty one shows all, and ends
	// watches when it has changed.
	Spec *v1alpha1.VirtualViewSpec
	// Key is equal for equal Specs, and Size about what they take in memory, in bytes.
	Key  string
	Size int
	// Changed is closed by whoever made the narrowing, and by nobody else, once the
	// policy may say something else.
	Changed chan struct{}
}

type narrowingsKey struct{}

// WithNarrowings adds to those of a request.
func WithNarrowings(ctx context.Context, added ...Narrowing) context.Context {
	return context.WithValue(ctx, narrowingsKey{}, append(slices.Clip(NarrowingsFrom(ctx)), added...))
}

// WithoutNarrowings is ctx before anybody narrowed it.
func WithoutNarrowings(ctx context.Context) context.Context {
	return context.WithValue(ctx, narrowingsKey{}, []Narrowing(nil))
}

// NarrowingsFrom returns those of a request, in the order in which they hold.
func NarrowingsFrom(ctx context.Context) []Narrowing {
	all, _ := ctx.Value(narrowingsKey{}).([]Narrowing)
	return all
}
