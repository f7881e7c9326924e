package cache

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/portico-proxy/portico/core/cache/wire"
)

func TestFormsAreRememberedWithinBounds(t *testing.T) {
	var s forms
	ask := func(accept string, v verb) (form, bool) {
		return s.negotiate(&http.Request{Header: http.Header{"Accept": {accept}}}, v, false)
	}
	const tables = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
	for range 2 { // said, and remembered
		if f, ok := ask("application/json", list); !ok || f != (form{Format: wire.JSON}) {
			t.Errorf("JSON: %v, %v", f, ok)
		}
		if f, ok := ask(tables, get); !ok || f != (form{Format: wire.JSON, partial: true}) {
			t.Errorf("metadata of one: %v, %v", f, ok)
		}
		if f, ok := ask(tables, list); ok {
			t.Errorf("metadata of one for a list: %v", f)
		}
	}
	for i := range 2 * maxForms {
		if _, ok := ask(fmt.Sprintf("application/json;q=0.%d", i+1), list); !ok {
			t.Fatalf("%d-th is refused", i)
		}
	}
	if _, ok := ask("application/json"+fmt.Sprintf(", text/%0*d", maxAccept, 0), list); !ok {
		t.Error("a long one is refused")
	}
	if len(s.known) != maxForms {
		t.Errorf("%d are remembered, not %d", len(s.known), maxForms)
	}
}
