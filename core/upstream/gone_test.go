package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"syscall"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

func TestWhatIsGoneAndWhatIsLost(t *testing.T) {
	refused := &url.Error{Op: "Post", URL: "https://a", Err: &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}}
	broken := &net.OpError{Op: "read", Err: syscall.ECONNRESET}
	for name, tt := range map[string]struct {
		err        error
		gone, lost bool
	}{
		"nothing":      {},
		"refused":      {refused, true, true},
		"unreachable":  {unreachable(anyRead(t), refused, false), true, true},
		"silent":       {&lostError{context.DeadlineExceeded}, true, true},
		"ping-timeout": {errors.New("http2: client connection lost"), true, true},
		// Callers can have these happen to their own requests.
		"reset":        {broken, true, false},
		"cut":          {&url.Error{Op: "Get", URL: "https://a", Err: io.EOF}, true, false},
		"cut-in-half":  {fmt.Errorf("probe revision: %w", io.ErrUnexpectedEOF), true, false},
		"reset-caller": {unreachable(anyRead(t), broken, true), true, false},
		"failed":       {apierrors.NewInternalError(io.EOF), true, false},
		"timed-out":    {apierrors.NewTimeoutError("", 0), true, false},
		// Of these the API server is there, or nobody knows.
		"busy":      {apierrors.NewTooManyRequests("", 1), false, false},
		"forbidden": {apierrors.NewForbidden(schema.GroupResource{}, "", nil), false, false},
		"slow":      {fmt.Errorf("review: %w", context.DeadlineExceeded), false, false},
		"left":      {fmt.Errorf("dial: %w", errors.Join(refused, context.Canceled)), false, false},
		"whatever":  {errors.New("the API server's revision went backwards"), false, false},
	} {
		if gone, lost := IsGone(tt.err), IsLost(tt.err); gone != tt.gone || lost != tt.lost {
			t.Errorf("%s: gone %v, lost %v; want %v, %v", name, gone, lost, tt.gone, tt.lost)
		}
	}
}

func anyRead(t *testing.T) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://a", nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestSilenceIsToldFromSlowness has the time of a request run out while the API server
// says that it is well, and while it says nothing.
func TestSilenceIsToldFromSlowness(t *testing.T) {
	for name, silent := range map[string]bool{"slow": false, "silent": true} {
		t.Run(name, func(t *testing.T) {
			srv := origin(t, func(_ http.ResponseWriter, r *http.Request) {
				if silent || r.URL.Path != "/livez" {
					<-r.Context().Done()
				}
			})
			u, _ := before(t, configOf(srv))
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			r, err := http.NewRequestWithContext(ctx, http.MethodGet, srv.URL+"/api/v1/pods", nil)
			if err != nil {
				t.Fatal(err)
			}
			res, err := u.Own().RoundTrip(r)
			if err == nil {
				res.Body.Close()
			}
			if !errors.Is(err, context.DeadlineExceeded) || IsGone(err) != silent {
				t.Errorf("gone %v: %v; want %v", IsGone(err), err, silent)
			}
		})
	}
}
