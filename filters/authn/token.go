package authn

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/authenticatorfactory"
	"k8s.io/apiserver/pkg/authentication/token/cache"
	"k8s.io/apiserver/plugin/pkg/authenticator/token/webhook"
	authenticationv1 "k8s.io/client-go/kubernetes/typed/authentication/v1"
	"k8s.io/klog/v2"

	"github.com/portico-proxy/portico/core/document"
)

const (
	// reviewTTL is how long a review holds, good or bad: kube-apiserver's own
	// default for delegated authentication.
	reviewTTL = 10 * time.Second
	// reviewTimeout bounds one review.
	reviewTimeout = 3 * time.Second
	// forbiddenPause is how long no review is asked for after one was forbidden.
	forbiddenPause = 30 * time.Second
)

var errForbidden = errors.New("the proxy's identity may not review tokens")

var errImpersonation = errors.New("a caller known by its client certificate is passed on by impersonation and cannot impersonate: use a bearer token")

// Reviewer asks the API server whose tokens are, by TokenReview under the
// proxy's own identity. Concurrent questions about one token are asked once.
func Reviewer(client authenticationv1.AuthenticationV1Interface) (authenticator.Token, error) {
	// One try: a request waits for it, and while the API server is gone the
	// request is going nowhere either.
	once := wait.Backoff{Steps: 1}
	review, err := webhook.NewFromInterface(client, nil, once, reviewTimeout, webhook.AuthenticatorMetrics{
		RecordRequestTotal:   authenticatorfactory.RecordRequestTotal,
		RecordRequestLatency: authenticatorfactory.RecordRequestLatency,
	})
	if err != nil {
		return nil, fmt.Errorf("prepare token reviews: %w", err)
	}
	return cache.New(&permitted{Token: unlogged{review}, now: time.Now}, false, reviewTTL, reviewTTL), nil
}

// permitted asks for reviews as long as the proxy may have them. Where it may not,
// each read would cost the API server a request more, for nothing.
type permitted struct {
	authenticator.Token
	now   func() time.Time
	again atomic.Int64 // when to try again, Unix nanoseconds
}

func (p *permitted) AuthenticateToken(ctx context.Context, token string) (*authenticator.Response, bool, error) {
	if p.now().UnixNano() < p.again.Load() {
		return nil, false, errForbidden
	}
	res, ok, err := p.Token.AuthenticateToken(ctx, token)
	if apierrors.IsForbidden(err) && p.again.Swap(p.now().Add(forbiddenPause).UnixNano()) == 0 {
		klog.FromContext(ctx).Info("Nothing is answered from memory to callers with tokens: the proxy's identity may not review them (system:auth-delegator)")
	}
	return res, ok, err
}

// unlogged keeps client-go from logging what it sends: with --v=8 that is whole
// bodies, and the body of a review is a token.
type unlogged struct{ authenticator.Token }

func (u unlogged) AuthenticateToken(ctx context.Context, token string) (*authenticator.Response, bool, error) {
	return u.Token.AuthenticateToken(klog.NewContext(ctx, logr.Discard()), token)
}

// expired reports that a token says of itself that its time is over, so that a
// review made before does not outlive it. What says nothing is not expired.
func expired(token string, now time.Time) bool {
	_, rest, _ := strings.Cut(token, ".")
	encoded, signature, found := strings.Cut(rest, ".")
	if !found || strings.Contains(signature, ".") {
		return false
	}
	payload, err := base64.RawURLEncoding.DecodeString(encoded)
	if err != nil {
		return false
	}
	expiry, err := document.Get(payload, "/exp")
	if err != nil {
		return false
	}
	at, err := strconv.ParseFloat(string(expiry), 64)
	return err == nil && at != 0 && float64(now.Unix()) >= at
}
