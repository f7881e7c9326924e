// Package authz is the gate in front of answers from memory: it asks the API
// server whether the caller may have them.
package authz

import (
	"context"
	"net/http"
	"strings"
	"time"

	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/filters"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/portico-proxy/portico/core/pipeline"
	"github.com/portico-proxy/portico/core/upstream"
)

// Filter grants requests that would be answered from memory. It refuses
// nothing: without a grant a request goes upstream and is refused there, in the
// API server's own words.
type Filter struct {
	// Gate decides, and ends watches whose callers have lost their right. It
	// outlives the filter.
	Gate *Gate
	// Answers reports whether a request would be answered from memory. It is
	// asked once the caller is known. Nil means that none is.
	Answers func(*http.Request) bool
	// Stale is how old an answer to a request may be, and with it the yes to its
	// caller, while the API server is gone; 0 is not at all, and nil never.
	Stale func(*http.Request) time.Duration
}

// Name is "authz".
func (f *Filter) Name() string { return "authz" }

// ServeHTTP grants r if the API server would let its caller have the answer.
func (f *Filter) ServeHTTP(w http.ResponseWriter, r *http.Request, next pipeline.Handler) error {
	if f.Answers == nil || !f.Answers(r) || impersonates(r) {
		return next.ServeHTTP(w, r)
	}
	attributes, ok := attributesOf(r.Context())
	if !ok {
		return next.ServeHTTP(w, r)
	}
	within := time.Duration(0)
	if f.Stale != nil {
		within = f.Stale(r)
	}
	allowed, before := f.Gate.allows(r.Context(), attributes, within)
	if !allowed {
		return next.ServeHTTP(w, r)
	}
	if before || upstream.InDoubt(r.Context()) {
		return next.ServeHTTP(w, r.WithContext(upstream.WithGrantOfBefore(r.Context())))
	}
	ctx := pipeline.WithGrant(r.Context())
	if attributes.GetVerb() == "watch" {
		var leave context.CancelFunc
		ctx, leave = f.Gate.enter(ctx, attributes)
		defer leave()
	}
	return next.ServeHTTP(w, r.WithContext(ctx))
}

// attributesOf returns what is asked for and by whom, if that is known.
func attributesOf(ctx context.Context) (authorizer.Attributes, bool) {
	if _, known := request.UserFrom(ctx); !known {
		return nil, false
	}
	attributes, err := filters.GetAuthorizerAttributes(ctx)
	return attributes, err == nil
}

// impersonates reports that r asks to act as somebody else, which only the API
// server can judge.
func impersonates(r *http.Request) bool {
	for name := range r.Header {
		if strings.HasPrefix(name, "Impersonate-") {
			return true
		}
	}
	return false
}

var _ pipeline.Filter = (*Filter)(nil)
