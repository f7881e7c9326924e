package lens_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/portico-proxy/portico/core/pipeline"
	"github.com/portico-proxy/portico/core/view"
	"github.com/portico-proxy/portico/core/view/lens"
)

// TestWatchesOnWebSocketsTellNothing asks for one, with and without views.
func TestWatchesOnWebSocketsTellNothing(t *testing.T) {
	r := httptest.NewRequest(http.MethodGet, "/api/v1/secrets?watch=1", nil)
	r.Header.Set("Upgrade", "websocket")
	ctx := request.WithRequestInfo(t.Context(), &request.RequestInfo{IsResourceRequest: true, Verb: "watch", Resource: "secrets"})
	if _, err := lens.On(r.WithContext(ctx)); err != nil {
		t.Errorf("without views: %v", err)
	}
	_, err := lens.On(r.WithContext(view.With(ctx, newGlass("socket", "hidden"))))
	if err == nil || pipeline.StatusOf(err).Code != http.StatusBadRequest {
		t.Errorf("got %v", err)
	}
}
