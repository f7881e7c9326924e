package wasm

import (
	"context"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"testing"

	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/portico-proxy/portico/core/pipeline"
	"github.com/portico-proxy/portico/core/view"
	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
)

// glassInC hides what is labelled and masks what is secret. It fails where it is
// told to, and where it learns of a header.
const glassInC = `
typedef unsigned int u32;
typedef unsigned long long u64;
HOST(object_get) u64 object_get(const char *, u32, char *, u32);
HOST(object_set) u32 object_set(const char *, u32, const char *, u32);
HOST(header_get) u64 header_get(const char *, u32, char *, u32);
HOST(attr_get) u64 attr_get(u32, char *, u32);
static char buf[64];
#define AT(p) object_get(p, sizeof(p) - 1, buf, 0)
#define SET(p, v) object_set(p, sizeof(p) - 1, v, sizeof(v) - 1)
EXPORT(on_object) int on_object(void) {
  if (AT("/data/fail") || header_get("X-Case", 6, buf, 64) || attr_get(17, buf, 64)) __builtin_trap();
  if (AT("/metadata/labels/hidden")) return 1;
  if (AT("/data/rename")) return SET("/metadata/name", "\"other\"") ? 0 : 2;
  if (AT("/data/secret")) { SET("/data/secret", "\"xxx\""); return 2; }
  return 0;
}
`

func viewBinding(name string, change func(*v1alpha1.FilterBindingSpec)) *v1alpha1.FilterBinding {
	b := bindingTo(name)
	b.Spec.Phase = v1alpha1.PhaseView
	if change != nil {
		change(&b.Spec)
	}
	return b
}

// views returns those that a request is sent on with, whose modules stay for the test.
func views(t *testing.T, f *Filter) (view.Views, error) {
	t.Helper()
	r := httptest.NewRequest("GET", "/api/v1/secrets", nil)
	r.Header.Set("X-Case", "any")
	r.Header.Set("Audit-Id", "any")
	info := &request.RequestInfo{IsResourceRequest: true, Verb: "list", APIVersion: "v1", Resource: "secrets"}
	ctx := request.WithUser(request.WithRequestInfo(r.Context(), info), &user.DefaultInfo{Name: "jane"})
	got, err, done := make(chan view.Views), make(chan error, 1), make(chan struct{})
	go func() {
		err <- f.ServeHTTP(httptest.NewRecorder(), r.WithContext(ctx), pipeline.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) error {
			got <- view.From(r.Context())
			<-done
			return nil
		}))
	}()
	select {
	case v := <-got:
		t.Cleanup(func() {
			close(done)
			if err := <-err; err != nil {
				t.Error(err)
			}
		})
		return v, nil
	case err := <-err:
		return nil, err
	}
}

func TestModulesSayWhatIsSeen(t *testing.T) {
	l, _ := shelfOf(t, Options{})
	w := wasmFilter("glass", v1alpha1.WasmSource{Inline: base64.StdEncoding.EncodeToString(hostile(t, glassInC))})
	enforce := viewBinding("glass", nil)
	ignore := viewBinding("glass", func(s *v1alpha1.FilterBindingSpec) { s.FailurePolicy = v1alpha1.FailurePolicyIgnore })
	audit := viewBinding("glass", func(s *v1alpha1.FilterBindingSpec) { s.Mode = v1alpha1.ModeAudit })
	const plain, named = `{"metadata":{"name":"a","resourceVersion":"1"}}`, `{"metadata":{"name":"a","resourceVersion":"1"},"data":`
	const hidden = `{"metadata":{"name":"a","resourceVersion":"1","labels":{"hidden":""}}}`
	type outcome struct {
		seen string
		code int32
	}
	for name, tt := range map[string]struct {
		binding *v1alpha1.FilterBinding
		want    map[string]outcome
	}{
		"enforced": {enforce, map[string]outcome{
			plain: {plain, 0}, hidden: {"", 0}, named + `{"secret":"y"}}`: {named + `{"secret":"xxx"}}`, 0},
			`{"metadata":{"name":"a","resourceVersion":"1","managedFields":[{}],"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"y","b":"c"}},"data":{"secret":"y"}}`: {`{"metadata":{"name":"a","resourceVersion":"1","annotations":{"b":"c"}},"data":{"secret":"xxx"}}`, 0},
			named + `{"fail":""}}`: {"", 500}, named + `{"rename":""}}`: {named + `{"rename":""}}`, 0},
		}},
		"ignored": {ignore, map[string]outcome{hidden: {"", 0}, named + `{"fail":""}}`: {named + `{"fail":""}}`, 0}}},
		"audited": {audit, map[string]outcome{hidden: {hidden, 0}, named + `{"secret":"y"}}`: {named + `{"secret":"y"}}`, 0}, named + `{"fail":""}}`: {named + `{"fail":""}}`, 0}}},
	} {
		t.Run(name, func(t *testing.T) {
			f, _ := l.Compile(snapshot(w, tt.binding))
			all, err := views(t, f)
			if err != nil || len(all) != 1 {
				t.Fatalf("got %d views, %v", len(all), err)
			}
			for object, want := range tt.want {
				seen, err := all.See(context.WithoutCancel(t.Context()), view.Object{Name: "a", ResourceVersion: 1, JSON: []byte(object)})
				got := outcome{seen: string(seen)}
				if err != nil {
					got.code = pipeline.StatusOf(err).Code
				}
				if got != want {
					t.Errorf("%s: got %+v, want %+v", object, got, want)
				}
			}
		})
	}
}

func TestViewsEndWhenTheirModuleOrBindingChanges(t *testing.T) {
	l, _ := shelfOf(t, Options{})
	w := wasmFilter("glass", v1alpha1.WasmSource{Inline: base64.StdEncoding.EncodeToString(hostile(t, glassInC))})
	f, _ := l.Compile(snapshot(w, viewBinding("glass", nil)))
	all, err := views(t, f)
	if err != nil {
		t.Fatal(err)
	}
	isOver := func() bool {
		select {
		case <-all[0].Changed():
			return true
		default:
			return false
		}
	}
	f, _ = l.Compile(snapshot(w, viewBinding("glass", nil), bindingTo("glass")))
	again, err := views(t, f)
	if err != nil {
		t.Fatal(err)
	}
	if isOver() || again.Key() != all.Key() {
		t.Error("another binding ends the view")
	}
	l.Compile(snapshot(w, viewBinding("glass", func(s *v1alpha1.FilterBindingSpec) { s.Match.Verbs = []string{"list"} })))
	if !isOver() {
		t.Error("the view goes on under another binding")
	}
	// Its module stays for who looks through it.
	if seen, err := all.See(context.WithoutCancel(t.Context()), view.Object{Name: "a", JSON: []byte(`{"metadata":{"name":"a"}}`)}); err != nil || seen == nil {
		t.Errorf("got %s, %v", seen, err)
	}
}

func TestModulesWithCapabilitiesAreNoViews(t *testing.T) {
	l, _ := shelfOf(t, Options{})
	w := wasmFilter("glass", v1alpha1.WasmSource{Inline: base64.StdEncoding.EncodeToString(hostile(t, glassInC))})
	w.Spec.Capabilities = []v1alpha1.WasmCapability{v1alpha1.WasmClock}
	f, found := l.Compile(snapshot(w, viewBinding("glass", nil)))
	if _, err := views(t, f); err == nil || pipeline.StatusOf(err).Code != http.StatusServiceUnavailable {
		t.Errorf("got %v", err)
	}
	if len(found) < 2 {
		t.Errorf("found %v", found)
	}
}

func TestIgnoredFailuresAreNotRemembered(t *testing.T) {
	l, _ := shelfOf(t, Options{})
	w := wasmFilter("glass", v1alpha1.WasmSource{Inline: base64.StdEncoding.EncodeToString(hostile(t, glassInC))})
	f, _ := l.Compile(snapshot(w, viewBinding("glass", func(s *v1alpha1.FilterBindingSpec) { s.FailurePolicy = v1alpha1.FailurePolicyIgnore })))
	all, err := views(t, f)
	if err != nil {
		t.Fatal(err)
	}
	remembering := (&view.Memo{}).Of(all, 1)
	// The same object, at which the module fails and then does not.
	for _, tt := range []struct{ object, want string }{
		{`{"metadata":{"name":"a"},"data":{"fail":""}}`, `{"metadata":{"name":"a"},"data":{"fail":""}}`},
		{`{"metadata":{"name":"a"},"data":{"secret":"y"}}`, `{"metadata":{"name":"a"},"data":{"secret":"xxx"}}`},
	} {
		seen, err := remembering.See(context.WithoutCancel(t.Context()), view.Object{Name: "a", UID: "u", ResourceVersion: 1, JSON: []byte(tt.object)})
		if err != nil || string(seen) != tt.want {
			t.Errorf("got %s, %v", seen, err)
		}
	}
}
