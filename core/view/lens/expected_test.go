package lens

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/portico-proxy/portico/core/view"
)

// TestNothingIsShownOfWhatWasNotExpected has the API server answer in another form
// than was agreed on.
func TestNothingIsShownOfWhatWasNotExpected(t *testing.T) {
	const (
		object  = `{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a"}}`
		hidden  = `{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"MARKER","labels":{"secret":""}}}`
		table   = `{"kind":"Table","apiVersion":"meta.k8s.io/v1","columnDefinitions":[{"name":"Name"}],"rows":[{"cells":["MARKER"],"object":` + hidden + `}]}`
		partial = `{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{"name":"MARKER"}}`
		strange = `{"kind":"Mystery","apiVersion":"other/v1","metadata":{},"inner":` + hidden + `}`
		unnamed = `{"kind":"ConfigMap","apiVersion":"v1","metadata":{},"inner":` + hidden + `}`
	)
	for _, document := range []string{table, partial, strange, unnamed} {
		for _, verb := range []string{"get", "update", "patch", "delete", "create"} {
			if out, _ := through(t, verb, false, []byte(document)); len(out) > 0 && (verb != "create" || document != unnamed) {
				t.Errorf("%s: %s", verb, out)
			}
		}
		if document == unnamed {
			continue
		}
		for _, kind := range []string{"ADDED", "MODIFIED", "BOOKMARK", "ERROR"} {
			out, _ := through(t, "watch", false, []byte(`{"type":"`+kind+`","object":`+document+"}\n"))
			if strings.Contains(string(out), "MARKER") || !strings.Contains(string(out), `"code":500`) {
				t.Errorf("%s: %s", kind, out)
			}
		}
	}
	if out, whole := through(t, "list", false, []byte(table)); whole || strings.Contains(string(out), "MARKER") {
		t.Errorf("list: %s", out)
	}
	for _, table := range []bool{false, true} {
		if out, whole := through(t, "get", table, []byte(object)); !whole || strings.TrimSpace(string(out)) != object {
			t.Errorf("got %s", out)
		}
	}
}

func TestOneFormIsAskedFor(t *testing.T) {
	const of = ";g=meta.k8s.io;v=v1"
	for accept, want := range map[string]string{
		"application/json;sv=x, application/json;as=Table" + of:       "application/json;as=Table" + of,
		"application/json;sv=v1, application/json;as=Table" + of:      "application/json",
		"application/json;as=Table" + of + ", application/json":       "application/json;as=Table" + of + ",application/json",
		"*/*;as=Foo" + of + ", application/json;q=0.1;pretty=1":       "application/json;pretty=1",
		"application/json;as=PartialObjectMetadata" + of + ",*/*":     "application/json",
		"application/json;as=PartialObjectMetadataList" + of + ",*/*": "application/json;as=PartialObjectMetadataList" + of,
		"application/json;sv=x, application/vnd.kubernetes.protobuf":  "",
		"application/cbor": "", "application/yaml, text/html": "", "Application/JSON": "",
	} {
		r := httptest.NewRequest(http.MethodGet, "/api/v1/namespaces/shop/configmaps/a", nil)
		r.Header["Accept"] = []string{accept, "application/vnd.kubernetes.protobuf"}
		info := &request.RequestInfo{IsResourceRequest: true, Verb: "get", APIVersion: "v1", Resource: "configmaps", Namespace: "shop", Name: "a"}
		r, err := On(r.WithContext(view.With(request.WithRequestInfo(r.Context(), info), narrow{})))
		if (err == nil) != (want != "") || err == nil && strings.Join(r.Header["Accept"], "|") != want {
			t.Errorf("%s: %v", accept, err)
			if r != nil {
				t.Errorf("asked for %q", r.Header["Accept"])
			}
		}
	}
}
