package upstream

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// retrySeconds is what clients are told to wait while the API server is gone.
const retrySeconds = 1

// headerTooLarge is how our transport says, with an error it does not export,
// that the API server would refuse a header that our server has accepted:
// HTTP/2 counts it otherwise (RFC 9113 section 6.5.2).
const headerTooLarge = "request header list larger than peer's advertised limit"

// goneError is a 503 that keeps its cause for the log.
type goneError struct {
	apierrors.StatusError
	cause error
}

func (e *goneError) Error() string { return fmt.Sprintf("%s: %v", e.ErrStatus.Message, e.cause) }
func (e *goneError) Unwrap() error { return e.cause }

// unreachable says that the API server did not answer r. Clients resend
// whatever carries Retry-After, writes included, so a write that may have been
// applied does not carry it.
func unreachable(r *http.Request, cause error, sent bool) error {
	if err := r.Context().Err(); err != nil {
		return err
	}
	if strings.Contains(cause.Error(), headerTooLarge) {
		return apierrors.NewGenericServerResponse(http.StatusRequestHeaderFieldsTooLarge, r.Method, schema.GroupResource{}, "", headerTooLarge, 0, true)
	}
	status := metav1.Status{
		Status:  metav1.StatusFailure,
		Code:    http.StatusServiceUnavailable,
		Reason:  metav1.StatusReasonServiceUnavailable,
		Message: "the API server cannot be reached from this proxy; nothing was changed",
		Details: &metav1.StatusDetails{RetryAfterSeconds: retrySeconds},
	}
	// The transport sends again only what the API server has not looked at.
	untouched := errors.Is(cause, errBodyTooLong)
	if sent && !untouched && !isSafe(r.Method) {
		status.Message = "the connection to the API server broke before it answered; the change may or may not have been made"
		status.Details = nil
	}
	return &goneError{StatusError: apierrors.StatusError{ErrStatus: status}, cause: cause}
}

func isSafe(method string) bool {
	return method == http.MethodGet || method == http.MethodHead || method == http.MethodOptions
}

var _ apierrors.APIStatus = (*goneError)(nil)
