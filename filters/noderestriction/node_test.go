package noderestriction

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// answering is a way to an API server.
type answering func(*http.Request) (*http.Response, error)

func (f answering) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestListThatFailedIsNobodysAnswer has two callers ask at once, for whom the pods are
// read once, if they can be.
func TestListThatFailedIsNobodysAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lists, fails := 0, false // of who reads
		client, err := kubernetes.NewForConfigAndClient(&rest.Config{}, &http.Client{Transport: answering(func(r *http.Request) (*http.Response, error) {
			if lists++; fails {
				fails = false
				return nil, errors.New("the line is cut")
			}
			body := io.NopCloser(strings.NewReader(`{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[]}`))
			return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}}, Body: body, Request: r}, nil
		})})
		if err != nil {
			t.Fatal(err)
		}
		n := newNode("n1", client, func() {})
		ask := func() chan error {
			done := make(chan error, 1)
			go func() { done <- n.refresh(t.Context()) }()
			synctest.Wait()
			return done
		}
		if err := <-ask(); err != nil || lists != 1 {
			t.Fatalf("%d lists, %v", lists, err)
		}
		for name, tt := range map[string]struct {
			fails bool
			code  int32
			lists int
		}{"works": {false, http.StatusOK, 1}, "fails": {true, http.StatusServiceUnavailable, 2}} {
			lists, fails = 0, tt.fails
			first, second := ask(), ask() // both wait for the next second
			if got := codeOf(<-first); got != tt.code {
				t.Errorf("%s: the first got %d", name, got)
			}
			if got := codeOf(<-second); got != http.StatusOK || lists != tt.lists {
				t.Errorf("%s: the second got %d by %d lists", name, got, lists)
			}
		}
	})
}
