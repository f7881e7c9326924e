package upstream

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	utilnet "k8s.io/apimachinery/pkg/util/net"
)

// lostError says that there is no connection to the API server: none can be opened, or
// nothing comes on it.
type lostError struct{ error }

func (e *lostError) Unwrap() error { return e.error }

// IsLost reports whether err says that there is no connection to the API server, which
// no caller can bring about.
func IsLost(err error) bool {
	if err == nil || errors.Is(err, context.Canceled) {
		return false
	}
	var lost *lostError
	var op *net.OpError
	return errors.As(err, &lost) || errors.As(err, &op) && op.Op == "dial" || utilnet.IsHTTP2ConnectionLost(err)
}

// IsGone reports whether err says that the API server could not be asked, or that it
// failed. What it refuses, what it takes too long for and what is not known are none: an
// API server that is there may have another answer by now.
func IsGone(err error) bool {
	var said apierrors.APIStatus
	var op *net.OpError
	switch {
	case err == nil, errors.Is(err, context.Canceled):
		return false
	case IsLost(err):
		return true
	case errors.As(err, &said):
		return IsFailure(int(said.Status().Code))
	case errors.Is(err, context.DeadlineExceeded):
		return false
	}
	return errors.As(err, &op) || errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
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

// silenceHolds is for how long it need not be asked again whether the API server is
// silent: where it is slow, many ask at once.
const silenceHolds = time.Second

// silence is whether the API server said nothing at all when it was last asked.
type silence struct {
	mu    sync.Mutex // guards following
	is    bool
	asked time.Time
}

// ask sends one of the proxy's own requests. If its time runs out it is found out
// whether the API server is slow, or silent: health has no queue to wait in.
func (u *Upstream) ask(r *http.Request) (*http.Response, error) {
	res, err := u.own.roundTrip(r)
	if errors.Is(err, context.DeadlineExceeded) && !IsLost(err) && u.isSilent(r) {
		return nil, &lostError{err}
	}
	return res, err
}

func (u *Upstream) isSilent(r *http.Request) bool {
	u.silence.mu.Lock()
	defer u.silence.mu.Unlock()
	if time.Since(u.silence.asked) > silenceHolds {
		u.silence.is = u.Ready(r.WithContext(context.WithoutCancel(r.Context()))) != nil
		u.silence.asked = time.Now()
	}
	return u.silence.is
}
