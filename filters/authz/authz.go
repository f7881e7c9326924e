// Package authz is the gate in front of answers from memory: it asks the API
// server whether the caller may have them.
package authz

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"
	"k8s.io/apiserver/pkg/endpoints/filters"
	"k8s.io/apiserver/pkg/endpoints/request"
	authorizationv1 "k8s.io/client-go/kubernetes/typed/authorization/v1"

	"github.com/portico-proxy/portico/core/pipeline"
)

// decisionTTL is how long a decision holds, yes or no.
const decisionTTL = 10 * time.Second

// Filter grants requests that would be answered from memory. It refuses
// nothing: without a grant a request goes upstream and is refused there, in the
// API server's own words.
type Filter struct {
	// Authorizer decides; see [Reviewer].
	Authorizer authorizer.Authorizer
	// Answers reports whether a request would be answered from memory. Nil
	// means that none is.
	Answers func(*http.Request) bool
}

// Reviewer asks by SubjectAccessReview, selectors included, under the proxy's
// own identity.
func Reviewer(client authorizationv1.AuthorizationV1Interface) (authorizer.Authorizer, error) {
	a, err := authorizerfactory.DelegatingAuthorizerConfig{
		SubjectAccessReviewClient: client,
		AllowCacheTTL:             decisionTTL,
		DenyCacheTTL:              decisionTTL,
		// One try: without a decision the request goes upstream.
		WebhookRetryBackoff: &wait.Backoff{Steps: 1},
	}.New()
	if err != nil {
		return nil, fmt.Errorf("prepare access reviews: %w", err)
	}
	return a, nil
}

// Name is "authz".
func (f *Filter) Name() string { return "authz" }

// ServeHTTP grants r if the API server would let its caller have the answer.
func (f *Filter) ServeHTTP(w http.ResponseWriter, r *http.Request, next pipeline.Handler) error {
	if f.Answers == nil || !f.Answers(r) || impersonates(r) || !f.allowed(r) {
		return next.ServeHTTP(w, r)
	}
	return next.ServeHTTP(w, r.WithContext(pipeline.WithGrant(r.Context())))
}

func (f *Filter) allowed(r *http.Request) bool {
	if _, known := request.UserFrom(r.Context()); !known {
		return false
	}
	attributes, err := filters.GetAuthorizerAttributes(r.Context())
	if err != nil {
		return false
	}
	// An authorizer may err and still allow; the decision is what counts.
	decision, _, _ := f.Authorizer.Authorize(r.Context(), attributes)
	return decision == authorizer.DecisionAllow
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
