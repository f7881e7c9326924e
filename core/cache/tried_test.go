package cache

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestDeletionsWithOptionsAreNotTakenForTries(t *testing.T) {
	for _, tt := range []struct {
		method, query, body string
		want                bool
	}{
		{http.MethodDelete, "?dryRun=All", "", true},
		{http.MethodDelete, "?dryRun=All", "{}", false}, // the API server reads the body alone
		{http.MethodDelete, "", "", false},
		{http.MethodPut, "?dryRun=All", "{}", true},
	} {
		r := httptest.NewRequestWithContext(t.Context(), tt.method, "/api/v1/pods"+tt.query, strings.NewReader(tt.body))
		if got := isTried(r); got != tt.want {
			t.Errorf("%s%s with body %q: %v", tt.method, tt.query, tt.body, got)
		}
	}
}
