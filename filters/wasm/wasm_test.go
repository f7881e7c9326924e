package wasm

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/portico-proxy/portico/core/body"
	"github.com/portico-proxy/portico/core/pipeline"
	"github.com/portico-proxy/portico/core/telemetry"
	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
)

// outcome is what became of a request: its body as upstream would get it, or
// the code it was refused with.
type outcome struct {
	Code    int32
	Body    string
	Warning string
}

func post(t *testing.T, f *Filter, body string, headers ...string) outcome {
	t.Helper()
	return outcomeOf(t, f, facts(headers...), strings.NewReader(body))
}

// outcomeOf is what becomes of a request, whose sender is nil if nobody knows him.
func outcomeOf(t *testing.T, f *Filter, of Facts, body io.Reader) outcome {
	t.Helper()
	r := httptest.NewRequest("POST", of.Request.URL.Path, body)
	r.Header = of.Request.Header
	ctx := request.WithRequestInfo(r.Context(), of.Info)
	if of.User != nil {
		ctx = request.WithUser(ctx, of.User)
	}
	w, got := httptest.NewRecorder(), outcome{}
	err := f.ServeHTTP(w, r.WithContext(ctx), pipeline.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) error {
		b, err := io.ReadAll(r.Body)
		if int64(len(b)) != r.ContentLength {
			t.Errorf("%d bytes are announced as %d", len(b), r.ContentLength)
		}
		got.Body = string(b)
		return err
	}))
	if err != nil {
		got.Code = pipeline.StatusOf(err).Code
	}
	got.Warning = w.Header().Get("Warning")
	return got
}

func bound(t *testing.T, m *Module, change func(*v1alpha1.FilterBindingSpec)) *Filter {
	t.Helper()
	b := &binding{name: "test", spec: &v1alpha1.FilterBindingSpec{}, module: m}
	if change != nil {
		change(b.spec)
	}
	m.hold() // the test closes it
	f := newFilter([]*binding{b}, nil, body.NewRooms(), unobserved, logr.Discard())
	t.Cleanup(func() { f.retire(context.WithoutCancel(t.Context()), nil) })
	return f
}

func TestFilterDoesWhatItsModuleSays(t *testing.T) {
	m := load(t, spec(fromC(t, guestInC)))
	const plain, stamped = `{"kind":"Pod","metadata":{"name":"web"}}`, `{"kind":"Pod","metadata":{"labels":{"team":"web"},"name":"web"}}`
	audit := func(s *v1alpha1.FilterBindingSpec) { s.Mode = v1alpha1.ModeAudit }
	for name, tt := range map[string]struct {
		change  func(*v1alpha1.FilterBindingSpec)
		body    string
		headers []string
		want    outcome
	}{
		"stamp":        {nil, plain, nil, outcome{Body: stamped}},
		"warn":         {nil, plain, []string{"X-Case", "warn"}, outcome{Body: stamped, Warning: `299 - "jane"`}},
		"deny":         {nil, plain, []string{"X-Case", "deny"}, outcome{Code: 403}},
		"drop":         {nil, `{"metadata":{"labels":{"hide":"yes"}}}`, nil, outcome{Code: 403}},
		"audit-stamp":  {audit, plain, nil, outcome{Body: plain}},
		"audit-deny":   {audit, plain, []string{"X-Case", "deny"}, outcome{Body: plain}},
		"twice":        {nil, `{"metadata":{"labels":{"hide":"yes"}},"metadata":{"name":"web"}}`, nil, outcome{Code: 400}},
		"unknown-type": {nil, plain, []string{"Content-Type", "application/cbor"}, outcome{Code: 415}},
		"no-protobuf":  {nil, plain, []string{"Content-Type", "application/vnd.kubernetes.protobuf"}, outcome{Code: 415}},
		"compressed":   {nil, plain, []string{"Content-Encoding", "gzip"}, outcome{Code: 415}},
		"yaml":         {nil, "kind: Pod\nmetadata: {labels: {team: x}}\n", []string{"Content-Type", "application/yaml"}, outcome{Body: "kind: Pod\nmetadata: {labels: {team: x}}\n"}},
		"other-user":   {func(s *v1alpha1.FilterBindingSpec) { s.Match.Users = []string{"joe"} }, plain, []string{"X-Case", "deny"}, outcome{Body: plain}},
		"group":        {func(s *v1alpha1.FilterBindingSpec) { s.Match.Users, s.Match.Groups = []string{"joe"}, []string{"devs"} }, plain, []string{"X-Case", "deny"}, outcome{Code: 403}},
		"other-verb":   {func(s *v1alpha1.FilterBindingSpec) { s.Match.Verbs = []string{"update"} }, plain, []string{"X-Case", "deny"}, outcome{Body: plain}},
		"other-space":  {func(s *v1alpha1.FilterBindingSpec) { s.Match.Namespaces = []string{"bank"} }, plain, nil, outcome{Body: plain}},
		"this-resource": {func(s *v1alpha1.FilterBindingSpec) {
			s.Match.Resources = []v1alpha1.MatchedResource{{Resource: "pods"}}
		}, plain, nil, outcome{Body: stamped}},
		"subresource": {func(s *v1alpha1.FilterBindingSpec) {
			s.Match.Resources = []v1alpha1.MatchedResource{{Resource: "pods/exec"}}
		}, plain, nil, outcome{Body: plain}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, post(t, bound(t, m, tt.change), tt.body, tt.headers...)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestFilterFailsClosedUnlessTold(t *testing.T) {
	m := load(t, spec(hostile(t, `EXPORT(on_request) int f(void) { __builtin_trap(); }`)))
	if got := post(t, bound(t, m, nil), "{}"); got.Code != 500 {
		t.Errorf("got %+v", got)
	}
	ignore := func(s *v1alpha1.FilterBindingSpec) { s.FailurePolicy = v1alpha1.FailurePolicyIgnore }
	if got := post(t, bound(t, m, ignore), "{}"); got.Code != 0 || got.Body != "{}" {
		t.Errorf("ignored: got %+v", got)
	}
}

func TestWhatCannotBeJudgedPassesIfToldOnly(t *testing.T) {
	m := load(t, spec(fromC(t, guestInC)))
	const twice = `{"metadata":{"labels":{"hide":"yes"}},"metadata":{"name":"web"}}`
	long := `{"metadata":{"name":"` + strings.Repeat("x", body.Max) + `"}}`
	for name, tt := range map[string]struct {
		verb, media, body string
		unknown           bool
		want              int32
	}{
		"unknown":     {"create", "application/json", plainPod, true, 401},
		"unreadable":  {"create", "application/cbor", plainPod, false, 415},
		"no-protobuf": {"create", "application/vnd.kubernetes.protobuf", plainPod, false, 415},
		"twice":       {"create", "application/json", twice, false, 400},
		"long":        {"create", "application/json", long, false, 413},
		"long-patch":  {"patch", "application/merge-patch+json", long, false, 413},
	} {
		for mode, change := range map[string]func(*v1alpha1.FilterBindingSpec){
			"enforced": nil,
			"audited":  func(s *v1alpha1.FilterBindingSpec) { s.Mode = v1alpha1.ModeAudit },
			"ignored":  func(s *v1alpha1.FilterBindingSpec) { s.FailurePolicy = v1alpha1.FailurePolicyIgnore },
		} {
			f, decided := bound(t, m, change), ""
			f.bindings[0].spec.Match.Users = []string{"jane"} // who the unknown one may be
			f.observe = func(_ *v1alpha1.FilterBindingSpec, _, decision string, _ time.Duration) { decided = decision }
			of := facts("Content-Type", tt.media)
			of.Info.Verb = tt.verb
			if tt.unknown {
				of.User = nil
				of.Request.Header.Set("Authorization", "Bearer nobodys")
			}
			want := outcome{Code: tt.want}
			if change != nil {
				want = outcome{Body: tt.body}
			}
			if got := outcomeOf(t, f, of, strings.NewReader(tt.body)); got != want || decided != telemetry.DecisionError {
				t.Errorf("%s, %s: got %d with %d bytes, %s", name, mode, got.Code, len(got.Body), decided)
			}
		}
	}
}

func TestBodyThatBreaksOffStaysBroken(t *testing.T) {
	m := load(t, spec(fromC(t, guestInC)))
	f := bound(t, m, func(s *v1alpha1.FilterBindingSpec) { s.Mode = v1alpha1.ModeAudit })
	of := facts()
	of.Request = httptest.NewRequest("POST", "/", io.MultiReader(strings.NewReader("{"), iotest.ErrReader(io.ErrUnexpectedEOF)))
	r, err := f.judgeObject(httptest.NewRecorder(), f.bindings[0], of, nil)
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(r.Body); string(body) != "{" || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %q, %v", body, err)
	}
}
