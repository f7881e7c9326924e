package upstream

import (
	"context"
	"errors"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// IsGone reports whether err says that the API server could not be asked, or that it
// failed, and not that it refused.
func IsGone(err error) bool {
	if err == nil || errors.Is(err, context.Canceled) {
		return false
	}
	var said apierrors.APIStatus
	if errors.As(err, &said) {
		return IsFailure(int(said.Status().Code))
	}
	return true
}

// IsFailure reports the codes by which a server says that it has failed, as RFC 5861
// has it for stale-if-error. 429 is none: it is there, and busy.
func IsFailure(code int) bool {
	switch code {
	case http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}
