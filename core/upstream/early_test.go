package upstream

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/go-logr/logr"

	"github.com/portico-proxy/portico/core/pipeline"
)

// TestAnswerDoesNotWaitForTheBody sends a request whose body does not end until
// the answer has: that is what clients do that stop sending once they are
// refused.
func TestAnswerDoesNotWaitForTheBody(t *testing.T) {
	srv := origin(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, "no")
	})
	u, _ := before(t, configOf(srv))
	proxy := httptest.NewUnstartedServer(&pipeline.Server{Handler: u, Log: logr.Discard()})
	// Over HTTP/1.1 net/http's servers, kube-apiserver among them, read the body
	// before they answer.
	proxy.EnableHTTP2 = true
	proxy.StartTLS()
	t.Cleanup(proxy.Close)

	// The first request opens the connection; its answer takes another way
	// through net/http.
	for range 2 {
		answeredEarly(t, proxy)
	}
}

func answeredEarly(t *testing.T, proxy *httptest.Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	unfinished, body := io.Pipe()
	defer body.Close()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, proxy.URL, unfinished)
	if err != nil {
		t.Fatal(err)
	}
	res, err := proxy.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusForbidden || string(answer) != "no" {
		t.Errorf("got %d %q, %v", res.StatusCode, answer, err)
	}
}
