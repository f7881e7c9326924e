package authn

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"syscall"
	"testing"
	"time"

	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/portico-proxy/portico/core/pipeline"
	"github.com/portico-proxy/portico/core/upstream"
)

// TestCallersOfBeforeAreInDoubt reviews a token while the API server is there, and asks
// whose it is while it is gone.
func TestCallersOfBeforeAreInDoubt(t *testing.T) {
	down := fmt.Errorf("review: %w", syscall.ECONNREFUSED)
	later := jwt(2000)
	for name, tt := range map[string]struct {
		first, token string
		within       time.Duration
		at           int64
		err          error
		known        bool
	}{
		"known":         {first: later, token: later, within: time.Minute, at: 1001, err: down, known: true},
		"no-policy":     {first: later, token: later, at: 1001, err: down},
		"too-long-ago":  {first: later, token: later, within: time.Minute, at: 1061, err: down},
		"expired":       {first: later, token: later, within: time.Hour, at: 2000, err: down},
		"another-token": {first: later, token: "bad", within: time.Minute, at: 1001, err: down},
		"nobody-s":      {first: "bad", token: "bad", within: time.Minute, at: 1001, err: down},
		"slow":          {first: later, token: later, within: time.Minute, at: 1001, err: context.DeadlineExceeded},
		"unknown":       {first: later, token: later, within: time.Minute, at: 1001, err: io.ErrNoProgress},
		"may-not-ask":   {first: later, token: later, within: time.Minute, at: 1001, err: errForbidden},
	} {
		t.Run(name, func(t *testing.T) {
			tokens := &reviews{}
			f := New(Options{
				Tokens: tokens, Needed: func(r *http.Request) (*http.Request, bool) { return r, true },
				Stale: func(*http.Request) time.Duration { return tt.within }, Before: &Before{},
			})
			now := int64(1000)
			f.now = func() time.Time { return time.Unix(now, 0) }
			if _, err := pass(t, f, withHeader("Authorization", "Bearer "+tt.first)); err != nil {
				t.Fatal(err)
			}
			now, tokens.err = tt.at, tt.err
			err := f.ServeHTTP(httptest.NewRecorder(), withHeader("Authorization", "Bearer "+tt.token), pipeline.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) error {
				if _, known := request.UserFrom(r.Context()); known != tt.known || upstream.InDoubt(r.Context()) != tt.known {
					t.Errorf("known %v, in doubt %v; want both %v", known, upstream.InDoubt(r.Context()), tt.known)
				}
				return nil
			}))
			if err != nil {
				t.Error(err)
			}
		})
	}
}
