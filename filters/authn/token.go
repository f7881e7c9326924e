package authn

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/authenticatorfactory"
	"k8s.io/apiserver/pkg/authentication/token/cache"
	"k8s.io/apiserver/plugin/pkg/authenticator/token/webhook"
	authenticationv1 "k8s.io/client-go/kubernetes/typed/authentication/v1"
	"k8s.io/klog/v2"
	"k8s.io/streaming/pkg/httpstream/wsstream"
)

const (
	// reviewTTL is how long a review holds, good or bad: kube-apiserver's own
	// default for delegated authentication.
	reviewTTL = 10 * time.Second
	// reviewTimeout bounds one review.
	reviewTimeout = 3 * time.Second
	// websocketPrefix marks the subprotocol in which browsers send tokens
	// (k8s.io/apiserver/pkg/authentication/request/websocket).
	websocketPrefix = "base64url.bearer.authorization.k8s.io."
)

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
	return cache.New(unlogged{review}, false, reviewTTL, reviewTTL), nil
}

// unlogged keeps client-go from logging what it sends: with --v=8 that is whole
// bodies, and the body of a review is a token.
type unlogged struct{ authenticator.Token }

func (u unlogged) AuthenticateToken(ctx context.Context, token string) (*authenticator.Response, bool, error) {
	return u.Token.AuthenticateToken(klog.NewContext(ctx, logr.Discard()), token)
}

// tokenOf returns the bearer token that the API server would read from r: the
// first Authorization header's, or else, if r asks for a WebSocket, that of its
// subprotocol.
func tokenOf(r *http.Request) string {
	scheme, rest, _ := strings.Cut(strings.TrimSpace(r.Header.Get("Authorization")), " ")
	if token, _, _ := strings.Cut(rest, " "); strings.EqualFold(scheme, "bearer") && token != "" {
		return token
	}
	if !wsstream.IsWebSocketRequest(r) {
		return ""
	}
	for _, header := range r.Header["Sec-Websocket-Protocol"] {
		for protocol := range strings.SplitSeq(header, ",") {
			encoded, ok := strings.CutPrefix(strings.TrimSpace(protocol), websocketPrefix)
			if !ok {
				continue
			}
			token, err := base64.RawURLEncoding.DecodeString(encoded)
			if err == nil {
				return string(token)
			}
		}
	}
	return ""
}

// expired reports that a token says of itself that its time is over, so that a
// review made before does not outlive it. What says nothing is not expired.
func expired(token string, now time.Time) bool {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return false
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return false
	}
	var claims struct {
		Expiry float64 `json:"exp"`
	}
	if err := json.Unmarshal(payload, &claims); err != nil || claims.Expiry == 0 {
		return false
	}
	return float64(now.Unix()) >= claims.Expiry
}
