package wasm

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/portico-proxy/portico/core/body"
	"github.com/portico-proxy/portico/core/pipeline"
	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
)

// patching sends a merge patch. made answers the dry run; what else came to it is
// returned.
func patching(t *testing.T, f *Filter, query string, made pipeline.Handler) (sent []string, err error) {
	t.Helper()
	of := facts("Content-Type", "application/merge-patch+json", "Accept-Encoding", "gzip")
	r := httptest.NewRequest("PATCH", "/api/v1/namespaces/shop/pods/web"+query, strings.NewReader(`{"patch":1}`))
	r.Header = of.Request.Header
	of.Info.Verb, of.Info.Name = "patch", "web"
	ctx := request.WithUser(request.WithRequestInfo(r.Context(), of.Info), of.User)
	err = f.ServeHTTP(httptest.NewRecorder(), r.WithContext(ctx), pipeline.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		body, err := io.ReadAll(r.Body)
		if err != nil || string(body) != `{"patch":1}` {
			t.Errorf("%v, %s", err, body)
		}
		if r.URL.Query().Get("dryRun") == "All" && r.Header.Get("Accept") == "application/json" && r.Header.Get("Accept-Encoding") == "" {
			return made.ServeHTTP(w, r)
		}
		sent = append(sent, r.URL.RawQuery)
		return nil
	}))
	return sent, err
}

func makes(code int, body string) pipeline.Handler {
	return pipeline.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) error {
		w.WriteHeader(code)
		_, err := io.WriteString(w, body)
		return err
	})
}

func TestPatchesAreJudgedByWhatTheyMake(t *testing.T) {
	m := load(t, spec(fromC(t, guestInC)))
	gone := pipeline.HandlerFunc(func(http.ResponseWriter, *http.Request) error {
		return apierrors.NewNotFound(schema.GroupResource{Resource: "pods"}, "web")
	})
	audit := func(s *v1alpha1.FilterBindingSpec) { s.Mode = v1alpha1.ModeAudit }
	for name, tt := range map[string]struct {
		change func(*v1alpha1.FilterBindingSpec)
		made   pipeline.Handler
		want   int32 // 0 passes
	}{
		"kept":          {nil, makes(200, `{"metadata":{"labels":{"team":"x"}}}`), 0},
		"refused":       {nil, makes(200, `{"metadata":{"labels":{"hide":"yes"}}}`), 403},
		"to-be-changed": {nil, makes(200, `{"metadata":{"name":"web"}}`), 403},
		"conflict":      {nil, makes(409, `{"kind":"Status","status":"Failure","code":409,"reason":"Conflict"}`), 409},
		"gone":          {nil, gone, 404},
		"nonsense":      {nil, makes(200, `half an obj`), 500},
		"false-status":  {nil, makes(502, `{"kind":"Status","status":"Failure","code":409}`), 500},
		"too-long":      {nil, makes(200, `"`+strings.Repeat("x", body.Max)+`"`), 500},
		"audited":       {audit, makes(200, `{"metadata":{"labels":{"hide":"yes"}}}`), 0},
		"audited-error": {audit, gone, 0},
	} {
		t.Run(name, func(t *testing.T) {
			sent, err := patching(t, bound(t, m, tt.change), "?fieldManager=x", tt.made)
			code := int32(0)
			if err != nil {
				code = pipeline.StatusOf(err).Code
			}
			if passed := len(sent) == 1 && sent[0] == "fieldManager=x"; code != tt.want || passed != (tt.want == 0) {
				t.Errorf("got %d, %v; sent %v", code, err, sent)
			}
		})
	}
}

// What is judged and what is made are two requests, between which an object can
// change: no promise, but what the documentation says.
func TestPatchIsJudgedBeforeItIsMade(t *testing.T) {
	f, tried := bound(t, load(t, spec(fromC(t, guestInC))), nil), 0
	sent, err := patching(t, f, "", pipeline.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		tried++
		return makes(200, `{"metadata":{"labels":{"team":"x"}}}`).ServeHTTP(w, r)
	}))
	if err != nil || tried != 1 || len(sent) != 1 {
		t.Errorf("tried %d times, sent %d times, %v", tried, len(sent), err)
	}
}

func TestApplyIsJudgedByWhatIsApplied(t *testing.T) {
	f := bound(t, load(t, spec(fromC(t, guestInC))), nil)
	of := facts("Content-Type", "application/apply-patch+yaml")
	of.Info.Verb, of.Info.Name = "patch", "web"
	for applied, want := range map[string]outcome{
		`{"metadata":{"labels":{"team":"x"}}}`:   {Body: `{"metadata":{"labels":{"team":"x"}}}`}, // whatever the object has beside
		`{"metadata":{"labels":{"hide":"yes"}}}`: {Code: http.StatusForbidden},
	} {
		if got := outcomeOf(t, f, of, strings.NewReader(applied)); got != want {
			t.Errorf("%s: got %+v", applied, got)
		}
	}
}
