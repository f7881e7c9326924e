package cache

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"k8s.io/apiserver/pkg/endpoints/request"
)

func TestLongQueriesAreNotRead(t *testing.T) {
	for size, want := range map[int]bool{1000: true, maxQuery - 100: true, maxQuery: false} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api/v1/pods?labelSelector=x+in+("+strings.Repeat("n,", size/2)+"n)", nil)
		info := &request.RequestInfo{IsResourceRequest: true, Verb: "list", APIVersion: "v1", Resource: "pods"}
		if _, ok := parse(r.WithContext(request.WithRequestInfo(r.Context(), info))); ok != want {
			t.Errorf("a query of %d bytes is read: %v", len(r.URL.RawQuery), ok)
		}
	}
}
