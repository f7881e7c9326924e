package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// readyTimeout bounds the question whether the API server is there.
const readyTimeout = 2 * time.Second

// Started reports whether the API server says that it has started: until then it
// refuses even those who have rights.
func (u *Upstream) Started(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.target.String()+"/readyz", nil)
	if err != nil {
		return false
	}
	res, err := u.Own().RoundTrip(req)
	if err != nil {
		return false
	}
	_, err = io.Copy(io.Discard, res.Body)
	return errors.Join(err, res.Body.Close()) == nil && res.StatusCode == http.StatusOK
}

// Ready is a healthz.Checker: nil if the API server answers at all. What it
// answers is its own affair; a proxy in front of a server that is starting must
// not send its clients away.
func (u *Upstream) Ready(r *http.Request) error {
	ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.target.String()+"/livez", nil)
	if err != nil {
		return fmt.Errorf("ask the API server: %w", err)
	}
	// Over HTTP/1.1: the API server closes a connection of HTTP/2 to whoever says not
	// who he is.
	res, err := u.callers.upgrades.RoundTrip(req)
	if err != nil {
		return fmt.Errorf("ask the API server: %w", err)
	}
	_, err = io.Copy(io.Discard, res.Body) // or the connection would not be used again
	return errors.Join(err, res.Body.Close())
}
