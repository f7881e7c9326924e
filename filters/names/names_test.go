package names

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/portico-proxy/portico/core/config"
	"github.com/portico-proxy/portico/core/names"
	"github.com/portico-proxy/portico/core/pipeline"
	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
)

// views are those of anna, who has a prefix, of bert, who has two, and of the
// members of a group, who have their own names for all.
func views() *config.Snapshot {
	of := func(name, prefix string, subjects v1alpha1.ViewSubjects, mode v1alpha1.FilterMode) *v1alpha1.VirtualView {
		return &v1alpha1.VirtualView{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.VirtualViewSpec{
			Subjects: subjects, Namespaces: &v1alpha1.ViewNamespaces{Prefix: prefix}, Mode: mode,
		}}
	}
	users := func(names ...string) v1alpha1.ViewSubjects { return v1alpha1.ViewSubjects{Users: names} }
	s := &config.Snapshot{}
	s.Objects = append(s.Objects,
		of("a", "a-", users("anna", "bert"), ""), of("b", "b-", users("bert"), ""), of("again", "a-", users("anna", "system:serviceaccount:x:web"), ""),
		of("all", "c-", v1alpha1.ViewSubjects{Groups: []string{"c"}}, ""), of("tried", "d-", users("dora"), v1alpha1.ModeAudit))
	return s
}

// send sends a request of somebody's through the filter to next.
func send(t *testing.T, r *http.Request, caller user.Info, next pipeline.HandlerFunc) (*httptest.ResponseRecorder, error) {
	t.Helper()
	f, _ := Compile(views(), nil)
	resources := &request.RequestInfoFactory{APIPrefixes: sets.NewString("api", "apis"), GrouplessAPIPrefixes: sets.NewString("api")}
	info, err := resources.NewRequestInfo(r)
	if err != nil {
		t.Fatal(err)
	}
	ctx := request.WithRequestInfo(t.Context(), info)
	if caller != nil {
		ctx = request.WithUser(ctx, caller)
	}
	w := httptest.NewRecorder()
	return w, f.ServeHTTP(w, r.WithContext(ctx), next)
}

func TestCallersHaveTheNamesOfTheirView(t *testing.T) {
	for name, tt := range map[string]struct {
		caller user.Info
		as     string
		want   string // empty is refused
	}{
		"anna":            {&user.DefaultInfo{Name: "anna"}, "", "a-x"},
		"of-a-group":      {&user.DefaultInfo{Name: "x", Groups: []string{"c"}}, "", "c-x"},
		"nobody":          {&user.DefaultInfo{Name: "x"}, "", "x"},
		"only-tried-out":  {&user.DefaultInfo{Name: "dora"}, "", "x"},
		"contradictory":   {&user.DefaultInfo{Name: "bert"}, "", ""},
		"as-anna":         {&user.DefaultInfo{Name: "x"}, "anna", "a-x"},
		"anna-as-another": {&user.DefaultInfo{Name: "anna", Groups: []string{"c"}}, "x", ""},
		"anna-as-nobody":  {&user.DefaultInfo{Name: "anna"}, "x", "a-x"},
		"unknown":         {nil, "", ""},
	} {
		r := httptest.NewRequest("GET", "/api/v1/namespaces/x/pods", nil)
		r.Header.Set("Authorization", "Bearer x")
		r.Header.Set("Accept", "application/vnd.kubernetes.protobuf,application/json")
		if tt.as != "" {
			r.Header.Set("Impersonate-User", tt.as)
		}
		got := ""
		_, err := send(t, r, tt.caller, func(_ http.ResponseWriter, r *http.Request) error {
			info, _ := request.RequestInfoFrom(r.Context())
			got = info.Namespace
			if !strings.Contains(r.URL.Path, got) || (names.From(r.Context()) != nil) != (got != "x") {
				t.Errorf("%s: %s, mapped by %v", name, r.URL, names.From(r.Context()))
			}
			if accept := r.Header.Get("Accept"); (accept == "application/json") != (got != "x") {
				t.Errorf("%s: takes %s", name, accept)
			}
			return nil
		})
		if got != tt.want || (err != nil) != (tt.want == "") {
			t.Errorf("%s: it is %q, %v", name, got, err)
		}
	}
}

func TestWhoActsAsATenantNamesHimAsTheClusterDoes(t *testing.T) {
	for caller, want := range map[string]string{"anna": "system:serviceaccount:a-x:web", "operator": "system:serviceaccount:x:web"} {
		r := httptest.NewRequest("GET", "/api/v1/pods", nil)
		r.Header.Set("Impersonate-User", "system:serviceaccount:x:web")
		r.Header.Set("Impersonate-Group", "a")
		got := ""
		_, err := send(t, r, &user.DefaultInfo{Name: caller}, func(_ http.ResponseWriter, r *http.Request) error {
			got = r.Header.Get("Impersonate-User")
			if names.From(r.Context()) == nil {
				t.Errorf("%s: he has the cluster's names", caller)
			}
			return nil
		})
		if err != nil || got != want {
			t.Errorf("%s would act as %s, %v", caller, got, err)
		}
	}
}

func TestContradictionsAreReported(t *testing.T) {
	s := views()
	_, found := Compile(s, nil)
	if len(found) != 1 || len(found[s.Objects[1]]) != 1 || found[s.Objects[1]][0].Reason != "Contradiction" || !strings.Contains(found[s.Objects[1]][0].Message, "VirtualView a has other names for the namespaces of bert") {
		t.Errorf("found %v", found)
	}
}

// prefixed is a view of a user's namespaces by a prefix, made at a second of
// Unix time.
func prefixed(name, user, prefix string, made int64) *v1alpha1.VirtualView {
	return &v1alpha1.VirtualView{ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: metav1.Unix(made, 0)}, Spec: v1alpha1.VirtualViewSpec{
		Subjects: v1alpha1.ViewSubjects{Users: []string{user}}, Namespaces: &v1alpha1.ViewNamespaces{Prefix: prefix},
	}}
}

func TestOverlapsHideNothing(t *testing.T) {
	first, second, third, torn := prefixed("one", "anna", "team-", 1), prefixed("two", "bert", "team-a-", 2), prefixed("three", "carl", "team-a-b-", 3), prefixed("torn", "anna", "team-x-", 4)
	_, found := Compile(&config.Snapshot{Objects: []runtime.Object{first, second, third, torn}}, nil)
	if c := found[third]; len(c) != 1 || !strings.Contains(c[0].Message, "VirtualView one,") || !strings.Contains(c[0].Message, "VirtualView two,") {
		t.Errorf("of the one that overlaps with two: %+v", c)
	}
	if c := found[torn]; len(c) != 1 || c[0].Reason != "Contradiction" {
		t.Errorf("of the one that contradicts another: %+v", c)
	}
}

// TestOverlappingPrefixesAreReported has views whose prefixes begin with each other's.
func TestOverlappingPrefixesAreReported(t *testing.T) {
	first, later := prefixed("team", "anna", "team-", 2), prefixed("deep", "bert", "team-a-", 3)
	other, twin := prefixed("other", "carl", "teams-", 1), prefixed("twin", "dora", "team-", 4)
	for name, all := range map[string][]*v1alpha1.VirtualView{"in-order": {first, later, other, twin}, "by-name": {later, other, first, twin}} {
		s := &config.Snapshot{}
		for _, v := range all {
			s.Objects = append(s.Objects, v)
		}
		_, found := Compile(s, nil)
		if len(found) != 2 || len(found[later]) != 1 || len(found[twin]) != 1 {
			t.Fatalf("%s: found %v", name, found)
		}
		if c := found[later][0]; c.Reason != "Overlap" || !strings.Contains(c.Message, "VirtualView team, whose prefix is team-,") {
			t.Errorf("%s: %+v", name, c)
		}
		if c := found[twin][0]; !strings.Contains(c.Message, "VirtualView deep, whose prefix is team-a-,") {
			t.Errorf("%s: %+v", name, c)
		}
	}
}

func TestWhatIsWrittenHasTheClustersNames(t *testing.T) {
	const object = `{"metadata":{"namespace":"x"}}`
	for name, tt := range map[string]struct {
		method, path, media, body, want string
		code                            int
	}{
		"create":     {"POST", "pods", "application/json", object, `{"metadata":{"namespace":"a-x"}}`, 200},
		"yaml":       {"PUT", "pods/web", "application/yaml", "metadata: {namespace: x}", `{"metadata":{"namespace":"a-x"}}`, 200},
		"apply":      {"PATCH", "pods/web", "application/apply-patch+yaml", object, `{"metadata":{"namespace":"a-x"}}`, 200},
		"merge":      {"PATCH", "pods/web", "application/merge-patch+json", object, `{"metadata":{"namespace":"a-x"}}`, 200},
		"strategic":  {"PATCH", "pods/web", "application/strategic-merge-patch+json", object, `{"metadata":{"namespace":"a-x"}}`, 200},
		"operations": {"PATCH", "pods/web", "application/json-patch+json", `[{"op":"add","path":"/metadata/namespace","value":"x"}]`, `[{"op":"add","path":"/metadata/namespace","value":"a-x"}]`, 200},
		"twice":      {"PATCH", "pods/web", "application/merge-patch+json", `{"metadata":{"namespace":"x","namespace":"y"}}`, "", 400},
		"operating":  {"PATCH", "pods/web", "application/json-patch+json", `[{"op":"add","path":"/spec/affinity/podAffinity/requiredDuringSchedulingIgnoredDuringExecution/0/namespaceSelector/matchExpressions/-","value":{"key":"a","key":"kubernetes.io/metadata.name","values":["kube-system"]}}]`, "", 400},
		"placed":     {"PATCH", "pods/web", "application/json-patch+json", `[{"op":"copy","from":"/a","path":"/metadata/namespace"}]`, "", 400},
		"copied":     {"PATCH", "pods/web", "application/json-patch+json", `[{"op":"copy","from":"/metadata/namespace","path":"/a"}]`, "", 400},
		"parameter":  {"PATCH", "pods/web", "application/merge-patch+json; x", object, `{"metadata":{"namespace":"a-x"}}`, 200},
		"applying":   {"PATCH", "pods/web", "application/apply-patch+yaml; x", object, `{"metadata":{"namespace":"a-x"}}`, 200},
		"listing":    {"PATCH", "pods/web", "application/json-patch+json; x", `[{"op":"add","path":"x/metadata/namespace","value":"x"}]`, "", 400},
		"untyped":    {"PATCH", "pods/web", "", object, "", 415},
		"cbor":       {"POST", "pods", "application/cbor", "x", "", 415},
		"delete":     {"DELETE", "pods/web", "application/json", object, object, 200},
		"exec":       {"POST", "pods/web/exec", "application/json", object, object, 200},
		"token":      {"POST", "serviceaccounts/web/token", "application/json", object, "", 403},
	} {
		r := httptest.NewRequest(tt.method, "/api/v1/namespaces/x/"+tt.path, strings.NewReader(tt.body))
		r.Header.Set("Content-Type", tt.media)
		got := ""
		_, err := send(t, r, &user.DefaultInfo{Name: "anna"}, func(_ http.ResponseWriter, r *http.Request) error {
			raw, err := io.ReadAll(r.Body)
			got = string(raw)
			return err
		})
		code := 200
		if err != nil {
			code = int(pipeline.StatusOf(err).Code)
		}
		if got != tt.want || code != tt.code {
			t.Errorf("%s: %d, %s", name, code, got)
		}
	}
}

func TestRefusalsFromBelowHaveTheCallersNames(t *testing.T) {
	r := httptest.NewRequest("GET", "/api/v1/namespaces/x", nil)
	w, err := send(t, r, &user.DefaultInfo{Name: "anna"}, func(http.ResponseWriter, *http.Request) error {
		return apierrors.NewNotFound(schema.GroupResource{Resource: "namespaces"}, "a-x")
	})
	if err == nil || err.Error() != `namespaces "x" not found` || w.Body.Len() > 0 {
		t.Errorf("got %v", err)
	}
}
