package view

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/portico-proxy/portico/core/pipeline"
	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
)

// discovering sends a request for discovery, which is answered with a document.
func discovering(t *testing.T, caller, path string, header http.Header, document string) (*httptest.ResponseRecorder, error) {
	t.Helper()
	f, _ := NewLibrary(Options{Log: logr.Discard()}).Compile(snapshot(
		v1alpha1.VirtualViewSpec{Subjects: jane, Hidden: []v1alpha1.ViewResource{{Resource: "secrets"}, {Group: "apps", Resource: "*"}}},
		v1alpha1.VirtualViewSpec{Subjects: jane, Hidden: []v1alpha1.ViewResource{{Group: "*", Resource: "jobs"}}},
		v1alpha1.VirtualViewSpec{Subjects: jane, Hidden: []v1alpha1.ViewResource{{Group: "*", Resource: "*"}}, Mode: v1alpha1.ModeAudit},
	))
	r := httptest.NewRequestWithContext(t.Context(), "GET", path, nil)
	for name := range header {
		r.Header.Set(name, header.Get(name))
	}
	info, err := resources.NewRequestInfo(r)
	if err != nil {
		t.Fatal(err)
	}
	ctx := request.WithUser(request.WithRequestInfo(r.Context(), info), &user.DefaultInfo{Name: caller})
	w := httptest.NewRecorder()
	return w, f.ServeHTTP(w, r.WithContext(ctx), pipeline.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		if r.Header.Get("If-None-Match")+r.Header.Get("Range") != "" && caller == "jane" {
			t.Error("the API server is asked whether the caller has what it would say")
		}
		w.Header().Set("Content-Type", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")
		w.Header().Set("ETag", `"OF-ALL"`)
		w.Header().Set("Vary", "Accept")
		w.Header().Set("Cache-Control", "public")
		_, err := w.Write([]byte(document))
		return err
	}))
}

func TestWhatIsHiddenIsNotDiscovered(t *testing.T) {
	for path, tt := range map[string]struct{ document, want string }{
		"/api": {
			`{"kind":"APIGroupDiscoveryList","items":[{"metadata":{},"versions":[{"version":"v1","resources":[{"resource":"pods","subresources":[]},{"resource":"secrets"}]}]}]}`,
			`{"kind":"APIGroupDiscoveryList","items":[{"metadata":{},"versions":[{"version":"v1","resources":[{"resource":"pods","subresources":[]}]}]}]}`,
		},
		"/apis": {
			`{"kind":"APIGroupDiscoveryList","items":[{"metadata":{"name":"apps"},"versions":[{"version":"v1","resources":[{"resource":"deployments"}]}]},{"metadata":{"name":"batch"},"versions":[{"resources":[{"resource":"jobs"},{"resource":"secrets"}]}]}]}`,
			`{"kind":"APIGroupDiscoveryList","items":[{"metadata":{"name":"batch"},"versions":[{"resources":[{"resource":"secrets"}]}]}]}`,
		},
		"/apis/":      {`{"kind":"APIGroupList","groups":[{"name":"apps"},{"name":"batch"}]}`, `{"kind":"APIGroupList","groups":[{"name":"batch"}]}`},
		"/api/v1":     {`{"kind":"APIResourceList","groupVersion":"v1","resources":[{"name":"pods"},{"name":"secrets"},{"name":"secrets/x"},{"name":"pods/log"}]}`, `{"kind":"APIResourceList","groupVersion":"v1","resources":[{"name":"pods"},{"name":"pods/log"}]}`},
		"/openapi/v3": {`{"paths":{"api/v1":{},"apis/apps":{},"apis/apps/v1":{},"apis/batch/v1":{}}}`, `{"paths":{"api/v1":{},"apis/batch/v1":{}}}`},
		"/apis/batch": {`{"kind":"APIGroup","name":"batch"}`, `{"kind":"APIGroup","name":"batch"}`},
	} {
		w, err := discovering(t, "jane", path, nil, tt.document)
		if got := w.Body.String(); err != nil || got != tt.want {
			t.Errorf("%s: %v\ngot  %s\nwant %s", path, err, got, tt.want)
		}
		tag := w.Header().Get("ETag")
		if h := w.Header(); tag == `"OF-ALL"` || tag == "" || h.Get("Cache-Control") != "private" || strings.Join(h["Vary"], " ") != "Accept Authorization" || !strings.Contains(h.Get("Content-Type"), "g=apidiscovery") {
			t.Errorf("%s: the header is %v", path, h)
		}
		for asked, code := range map[string]int{tag: 304, `"OF-ALL"`: 200, `"x", ` + tag: 304} {
			w, err := discovering(t, "jane", path, http.Header{"If-None-Match": {asked}}, tt.document)
			if err != nil || w.Code != code || (w.Body.Len() == 0) != (code == 304) {
				t.Errorf("%s: who has %s gets %d, %v", path, asked, w.Code, err)
			}
		}
		other, err := discovering(t, "joe", path, http.Header{"If-None-Match": {"x"}}, tt.document)
		if err != nil || other.Body.String() != tt.document || other.Header().Get("ETag") != `"OF-ALL"` {
			t.Errorf("%s: others get %s, %v", path, other.Body, err)
		}
	}
	for _, path := range []string{"/apis/apps", "/apis/apps/v1", "/openapi/v3/apis/apps/v1"} {
		if w, err := discovering(t, "jane", path, nil, "{}"); !apierrors.IsNotFound(err) || w.Body.Len() > 0 {
			t.Errorf("%s: %v, %s", path, err, w.Body)
		}
	}
	if w, err := discovering(t, "jane", "/openapi/v3/apis/batch/v1", http.Header{"If-None-Match": nil}, "as it is"); err != nil || w.Body.String() != "as it is" {
		t.Errorf("a page of another group: %v, %s", err, w.Body)
	}
	if w, err := discovering(t, "jane", "/apis", http.Header{"Range": {"bytes=0-1"}}, `{"kind":"APIGroupList"}`); err != nil || w.Code != http.StatusOK {
		t.Errorf("a part: %v, %d", err, w.Code)
	}
	if w, err := discovering(t, "jane", "/apis", nil, "no JSON"); !apierrors.IsInternalError(err) || w.Body.Len() > 0 {
		t.Errorf("what cannot be read: %v, %s", err, w.Body)
	}
	if w, err := discovering(t, "jane", "/apis", http.Header{"Accept": {"application/vnd.kubernetes.protobuf"}}, "{}"); !apierrors.IsNotAcceptable(err) || w.Body.Len() > 0 {
		t.Errorf("without JSON: %v, %s", err, w.Body)
	}
}

func TestRulesOfWhatIsHiddenAreLeftOut(t *testing.T) {
	l, err := newLens(&v1alpha1.VirtualView{Spec: v1alpha1.VirtualViewSpec{Subjects: jane, Hidden: []v1alpha1.ViewResource{{Resource: "secrets"}, {Group: "apps", Resource: "*"}}}}, "")
	if err != nil {
		t.Fatal(err)
	}
	for rule, want := range map[string]string{
		`{"apiGroups":[""],"resources":["pods","secrets","secrets/x"]}`: `{"apiGroups":[""],"resources":["pods"]}`,
		`{"apiGroups":["apps"],"resources":["deployments"]}`:            ``,
		`{"apiGroups":["apps"],"resources":["*"]}`:                      ``,
		`{"apiGroups":["","batch"],"resources":["secrets"]}`:            `{"apiGroups":["","batch"],"resources":["secrets"]}`,
		`{"apiGroups":["*"],"resources":["*"]}`:                         `{"apiGroups":["*"],"resources":["*"]}`,
	} {
		got, err := l.ruleLeft([]byte(rule))
		if err != nil || string(got) != want {
			t.Errorf("%s: left is %s, %v", rule, got, err)
		}
	}
}
