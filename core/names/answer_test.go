package names

import (
	"bytes"
	"encoding/base64"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/endpoints/request"
)

// asked is a tenant's request, with what the server reads of it.
func asked(t *testing.T, method, path string) *http.Request {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, path, nil)
	factory := request.RequestInfoFactory{APIPrefixes: sets.NewString("api", "apis"), GrouplessAPIPrefixes: sets.NewString("api")}
	info, err := factory.NewRequestInfo(r)
	if err != nil {
		t.Fatal(err)
	}
	return r.WithContext(request.WithRequestInfo(r.Context(), info))
}

func token(start string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(`{"rv":7,"start":"` + start + `","v":"meta.k8s.io/v1"}`))
}

func TestRequestsGoOnByTheClustersNames(t *testing.T) {
	for from, to := range map[string]string{
		"/api/v1/namespaces/x":                                                             "/api/v1/namespaces/tenant-a-x",
		"/api/v1/namespaces/x/finalize":                                                    "/api/v1/namespaces/tenant-a-x/finalize",
		"/api/v1/namespaces":                                                               "/api/v1/namespaces",
		"/api/v1/namespaces/x/pods/web/exec?command=x":                                     "/api/v1/namespaces/tenant-a-x/pods/web/exec?command=x",
		"/api/v1/namespaces/x/services/https:a:1/proxy/a%2Fb/c/":                           "/api/v1/namespaces/tenant-a-x/services/https:a:1/proxy/a%2Fb/c/",
		"/api/v1/watch/namespaces/x/pods":                                                  "/api/v1/watch/namespaces/tenant-a-x/pods",
		"/api/v1/watch/namespaces/x":                                                       "/api/v1/watch/namespaces/tenant-a-x",
		"/apis/apps/v1/namespaces/namespaces/deployments":                                  "/apis/apps/v1/namespaces/tenant-a-namespaces/deployments",
		"/api/v1/pods?fieldSelector=metadata.namespace%3Dx&limit=1":                        "/api/v1/pods?fieldSelector=metadata.namespace%3Dtenant-a-x&limit=1",
		"/api/v1/pods?fieldSelector=metadata.name%3Dx":                                     "/api/v1/pods?fieldSelector=metadata.name%3Dx",
		"/api/v1/namespaces?fieldSelector=metadata.name%3Dx":                               "/api/v1/namespaces?fieldSelector=metadata.name%3Dtenant-a-x",
		"/api/v1/events?fieldSelector=involvedObject.kind=Namespace,involvedObject.name=x": "/api/v1/events?fieldSelector=involvedObject.kind%3DNamespace%2CinvolvedObject.name%3Dtenant-a-x",
		"/api/v1/events?fieldSelector=involvedObject.namespace!%3Dx":                       "/api/v1/events?fieldSelector=involvedObject.namespace%21%3Dtenant-a-x",
		"/api/v1/namespaces?labelSelector=kubernetes.io/metadata.name+in+(x,y),a":          "/api/v1/namespaces?labelSelector=a%2Ckubernetes.io%2Fmetadata.name+in+%28tenant-a-x%2Ctenant-a-y%29",
		"/api/v1/pods?labelSelector=a=x&fieldSelector=(":                                   "/api/v1/pods?labelSelector=a=x&fieldSelector=(",
		"/api/v1/pods?continue=" + token(`/x/web\u0000`):                                   "/api/v1/pods?continue=" + token(`/tenant-a-x/web\u0000`),
		"/api/v1/pods?continue=" + token(`x/web\u0000`):                                    "/api/v1/pods?continue=" + token(`tenant-a-x/web\u0000`),
		"/api/v1/namespaces/x/pods?continue=" + token(`/web\u0000`):                        "/api/v1/namespaces/tenant-a-x/pods?continue=" + token(`/web\u0000`),
		"/api/v1/namespaces?continue=" + token(`/x\u0000`):                                 "/api/v1/namespaces?continue=" + token(`/tenant-a-x\u0000`),
		"/api/v1/nodes?continue=" + token(`/x\u0000`):                                      "/api/v1/nodes?continue=" + token(`/x\u0000`),
		"/api/v1/pods?continue=nonsense":                                                   "/api/v1/pods?continue=nonsense",
	} {
		got, err := tenant.Request(asked(t, "GET", from))
		if err != nil {
			t.Errorf("%s: %v", from, err)
			continue
		}
		if got.URL.RequestURI() != to || got.RequestURI != to {
			t.Errorf("%s\ngot  %s\nwant %s", from, got.URL.RequestURI(), to)
		}
		info, _ := request.RequestInfoFrom(got.Context())
		if again, _ := request.RequestInfoFrom(asked(t, "GET", to).Context()); again.Namespace != info.Namespace || again.Name != info.Name || again.Path != info.Path || strings.Join(again.Parts, " ") != strings.Join(info.Parts, " ") {
			t.Errorf("%s is read as %+v, and %s as %+v", from, info, to, again)
		}
	}
	for _, bad := range []string{"/api/v1/namespaces/x%2Fpods/y", "/api/v1/namespaces/x%2fy", "/api/v1/namespaces/%78", "/api%2Fv1/namespaces/y/services/foo/proxy/namespaces/y", "/api/v1%2Fnamespaces/y/pods/foo/proxy/namespaces/y"} {
		if got, err := tenant.Request(asked(t, "GET", bad)); !apierrors.IsBadRequest(err) {
			t.Errorf("%s: got %v, %v", bad, got.URL, err)
		}
	}
	r := asked(t, "GET", "/api/v1/namespaces/x/pods")
	r.Header.Set("Impersonate-User", "system:serviceaccount:x:web")
	r.Header["Impersonate-Group"] = []string{"system:serviceaccounts", "system:serviceaccounts:x"}
	got, err := tenant.Request(r)
	if err != nil {
		t.Fatal(err)
	}
	tenant.Impersonate(got.Header)
	if got.Header.Get("Impersonate-User") != "system:serviceaccount:tenant-a-x:web" || got.Header["Impersonate-Group"][1] != "system:serviceaccounts:tenant-a-x" || r.Header.Get("Impersonate-User") != "system:serviceaccount:x:web" {
		t.Errorf("he would act as %v, %v", got.Header, err)
	}
}

// Names that nothing can be called are no labels of namespaces, and select none.
func TestSelectorsSelectNothingByNamesThatNoNamespaceHas(t *testing.T) {
	plain, long := New("", map[string]string{"default": "shop"}), strings.Repeat("n", 63)
	for _, tt := range []struct {
		m        *Mapping
		selector string
		selects  string // of those below, by the cluster's names
	}{
		{plain, "kubernetes.io/metadata.name=shop", ""},
		{plain, "kubernetes.io/metadata.name==default", "shop"},
		{plain, "kubernetes.io/metadata.name in (shop,default,7)", "7 shop"},
		{plain, "kubernetes.io/metadata.name!=shop", "7 default shop tenant-a-x"},
		{plain, "kubernetes.io/metadata.name notin (shop,default)", "7 default tenant-a-x"},
		{plain, "kubernetes.io/metadata.name>5", ""},
		{plain, "kubernetes.io/metadata.name", "7 default shop tenant-a-x"},
		{tenant, "kubernetes.io/metadata.name in (x," + long + ")", "tenant-a-x"},
		{tenant, "kubernetes.io/metadata.name notin (x," + long + ")", "7 default shop"},
		{tenant, "kubernetes.io/metadata.name!=" + long, "7 default shop tenant-a-x"},
		{tenant, "!kubernetes.io/metadata.name", ""},
	} {
		for _, path := range []string{"/api/v1/namespaces?", "/api/v1/namespaces?watch=true&", "/api/v1/watch/namespaces?"} {
			r, err := tt.m.Request(asked(t, "GET", path+url.Values{"labelSelector": {tt.selector}}.Encode()))
			if err != nil {
				t.Fatal(err)
			}
			text := r.URL.Query().Get("labelSelector")
			selector, err := labels.Parse(text)
			if err != nil {
				t.Errorf("%s became %s: %v", tt.selector, text, err)
				continue
			}
			var selected []string
			for _, name := range []string{"7", "default", "shop", "tenant-a-x"} {
				if selector.Matches(labels.Set{nameLabelKey: name}) {
					selected = append(selected, name)
				}
			}
			info, _ := request.RequestInfoFrom(r.Context())
			if got := strings.Join(selected, " "); got != tt.selects || info.LabelSelector != text && info.LabelSelector != "" {
				t.Errorf("%s%s became %s, and %q, and selects %s, not %s", path, tt.selector, text, info.LabelSelector, got, tt.selects)
			}
		}
	}
}

// most is what is held of an answer in tests, in bytes.
const most = 64 << 10

// answer has a tenant get what is written in pieces of some size.
func answer(t *testing.T, r *http.Request, code, piece int, media, text string) (*httptest.ResponseRecorder, error) {
	t.Helper()
	r, err := tenant.Request(r)
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	a := NewAnswer(w, r, tenant)
	a.most = most
	a.Header().Set("Content-Type", media)
	a.Header().Set("Warning", `299 - "in tenant-a-x"`)
	a.Header().Set("Content-Length", "7")
	a.WriteHeader(code)
	for len(text) > 0 {
		n := min(piece, len(text))
		if _, err := a.Write([]byte(text[:n])); err != nil {
			return w, err
		}
		text = text[n:]
	}
	return w, a.Finish(nil)
}

func TestAnswersHaveTheTenantsNames(t *testing.T) {
	const json, pods = "application/json", "/api/v1/namespaces/x/pods"
	for name, tt := range map[string]struct {
		path  string
		code  int
		media string
		text  string
		want  string
	}{
		"object":    {pods + "/web", 200, json, `{"kind":"Pod","metadata":{"namespace":"tenant-a-x"}}`, `{"kind":"Pod","metadata":{"namespace":"x"}}`},
		"namespace": {"/api/v1/namespaces/x", 200, json, `{"kind":"Namespace","metadata":{"name":"tenant-a-x","labels":{"kubernetes.io/metadata.name":"tenant-a-x"}}}`, `{"kind":"Namespace","metadata":{"name":"x","labels":{"kubernetes.io/metadata.name":"x"}}}`},
		"status":    {"/api/v1/namespaces/x", 404, json, `{"kind":"Status","apiVersion":"v1","metadata":{},"message":"namespaces \"tenant-a-x\" not found","details":{"name":"tenant-a-x","causes":[{"message":"tenant-a-x"}]}}`, `{"kind":"Status","apiVersion":"v1","metadata":{},"message":"namespaces \"x\" not found","details":{"name":"x","causes":[{"message":"x"}]}}`},
		"said":      {pods + "/tenant-a-web", 404, json, `{"kind":"Status","apiVersion":"v1","message":"pods \"tenant-a-web\" not found in tenant-a-x","details":{"name":"tenant-a-web"}}`, `{"kind":"Status","apiVersion":"v1","message":"pods \"tenant-a-web\" not found in x","details":{"name":"tenant-a-web"}}`},
		"list": {"/api/v1/pods", 200, json, `{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"9","continue":"` + token(`/tenant-a-x/web\u0000`) + `"},"items":[{"metadata":{"name":"a, ]\\\"{","namespace":"tenant-a-x"}} , {"metadata":{"namespace":"tenant-a-y"}}]}`,
			`{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"9","continue":"` + token(`/x/web\u0000`) + `"},"items":[{"metadata":{"name":"a, ]\\\"{","namespace":"x"}},{"metadata":{"namespace":"y"}}]}`},
		"empty-list": {"/api/v1/pods", 200, json, `{"kind":"PodList","items":[],"a":null}`, `{"kind":"PodList","items":[],"a":null}`},
		"null-list":  {"/api/v1/pods", 200, json, `{"kind":"PodList","items":null}`, `{"kind":"PodList","items":null}`},
		"table": {"/api/v1/namespaces", 200, json, `{"kind":"Table","columnDefinitions":[{"name":"Name"},{"name":"Status"}],"rows":[{"cells":["tenant-a-x","Active"],"object":{"metadata":{"name":"tenant-a-x"}}}]}`,
			`{"kind":"Table","columnDefinitions":[{"name":"Name"},{"name":"Status"}],"rows":[{"cells":["x","Active"],"object":{"metadata":{"name":"x"}}}]}`},
		"one-row": {"/apis/a.b/v1/namespaces/x/things/tenant-a-x", 200, json, `{"kind":"Table","columnDefinitions":[{"name":"Name"},{"name":"Home"}],"rows":[{"cells":["tenant-a-x","tenant-a-x"],"object":{"metadata":{"name":"tenant-a-x","namespace":"tenant-a-x"}}}]}`,
			`{"kind":"Table","columnDefinitions":[{"name":"Name"},{"name":"Home"}],"rows":[{"cells":["tenant-a-x","x"],"object":{"metadata":{"name":"tenant-a-x","namespace":"x"}}}]}`},
		"no-object": {"/apis/a.b/v1/namespaces/x/things", 200, json, `{"kind":"Table","columnDefinitions":[{"name":"Name"},{"name":"Home"}],"rows":[{"cells":["tenant-a-y","tenant-a-x"],"object":null}]}`,
			`{"kind":"Table","columnDefinitions":[{"name":"Name"},{"name":"Home"}],"rows":[{"cells":["tenant-a-y","x"],"object":null}]}`},
		"told": {"/api/v1/events", 200, json, `{"kind":"Table","columnDefinitions":[{"name":"Object"},{"name":"Message"}],"rows":[{"cells":["pod/web","assigned tenant-a-x/web"],"object":null}]}`,
			`{"kind":"Table","columnDefinitions":[{"name":"Object"},{"name":"Message"}],"rows":[{"cells":["pod/web","assigned x/web"],"object":null}]}`},
		"watch": {"/api/v1/pods?watch=true", 200, json, "{\"type\":\"ADDED\",\"object\":{\"metadata\":{\"namespace\":\"tenant-a-x\"}}}\n{\"type\":\"ERROR\",\"object\":{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"message\":\"tenant-a-x\"}}\n",
			"{\"type\":\"ADDED\",\"object\":{\"metadata\":{\"namespace\":\"x\"}}}\n{\"type\":\"ERROR\",\"object\":{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"message\":\"x\"}}\n"},
		"log":     {pods + "/web/log", 200, "text/plain", "tenant-a-x", "tenant-a-x"},
		"no-log":  {pods + "/web/log", 404, json, `{"kind":"Status","apiVersion":"v1","message":"tenant-a-x"}`, `{"kind":"Status","apiVersion":"v1","message":"x"}`},
		"proxied": {pods + "/web/proxy/", 200, json, `{"metadata":{"namespace":"tenant-a-x"}}`, `{"metadata":{"namespace":"tenant-a-x"}}`},
		"page":    {pods + "/web/proxy/", 200, "text/html", `<a href="/api/v1/namespaces/tenant-a-x/pods">`, `<a href="/api/v1/namespaces/x/pods">`},
		"plain":   {pods + "/web", 502, "text/plain", `in tenant-a-x`, `in x`},
	} {
		for _, piece := range []int{1, 7, 1 << 20} {
			w, err := answer(t, asked(t, "GET", tt.path), tt.code, piece, tt.media, tt.text)
			if got := w.Body.String(); err != nil || w.Code != tt.code || strings.TrimSpace(got) != strings.TrimSpace(tt.want) {
				t.Errorf("%s, by %d: %d, %v\ngot  %s\nwant %s", name, piece, w.Code, err, got, tt.want)
			}
			if got := w.Header().Get("Warning"); got != `299 - "in x"` {
				t.Errorf("%s: the warning is %s", name, got)
			}
		}
	}
}

func TestWhatCannotBeToldIsNotShown(t *testing.T) {
	const json = "application/json"
	for name, tt := range map[string]struct {
		path, media, text string
		code              int
	}{
		"foreign":       {"/api/v1/namespaces/x/pods/web", json, `{"metadata":{"namespace":"MARKER"}}`, 200},
		"foreign-item":  {"/api/v1/pods", json, `{"items":[{"metadata":{"namespace":"MARKER"}}]}`, 200},
		"foreign-event": {"/api/v1/pods?watch=true", json, `{"type":"ADDED","object":{"metadata":{"namespace":"MARKER"}}}`, 200},
		"foreign-page":  {"/api/v1/pods", json, `{"metadata":{"continue":"` + token(`/MARKER/a`) + `"},"items":[]}`, 200},
		"protobuf":      {"/api/v1/pods", "application/vnd.kubernetes.protobuf", "k8s\x00MARKER", 200},
		"its-status":    {"/api/v1/namespaces/x/pods/web/log", "application/vnd.kubernetes.protobuf", "k8s\x00MARKER", 404},
		"nonsense":      {"/api/v1/namespaces/x/pods/web", json, `MARKER`, 200},
		"half":          {"/api/v1/namespaces/x/pods/web", json, `{"a":"MARKER`, 200},
		"half-a-list":   {"/api/v1/pods", json, `{"items":[{"a":"MARKER`, 200},
		"long":          {"/api/v1/namespaces/x/pods/web", json, `{"a":"` + strings.Repeat("MARKER", most/6) + `"}`, 200},
		"long-item":     {"/api/v1/pods", json, `{"items":["` + strings.Repeat("MARKER", most/5) + `"]}`, 200},
	} {
		w, err := answer(t, asked(t, "GET", tt.path), tt.code, 4<<10, tt.media, tt.text)
		if err == nil || bytes.Contains(w.Body.Bytes(), []byte("MARKER")) {
			t.Errorf("%s: %v, %.100q", name, err, w.Body)
		}
	}
}

func TestRefusalsAreInTheTenantsWords(t *testing.T) {
	r, err := tenant.Request(asked(t, "GET", "/api/v1/namespaces/x/pods/web"))
	if err != nil {
		t.Fatal(err)
	}
	a := NewAnswer(httptest.NewRecorder(), r, tenant)
	got := a.Finish(apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "web", errors.New("not in tenant-a-x")))
	if !apierrors.IsForbidden(got) || got.Error() != `pods "web" is forbidden: not in x` {
		t.Errorf("got %v", got)
	}
}

// What a container says as a Status may be of any depth, and each step would be one more
// reading of the rest.
func TestAStatusIsReadOnlyAsDeepAsOneIs(t *testing.T) {
	const depth = 5000
	deep := strings.Repeat(`{"a":"tenant-a-x","b":[`, depth) + strings.Repeat(`]}`, depth)
	read := 0
	e := edit{Mapping: tenant, out: true}
	got, err := e.status([]byte(deep), func(was string) (string, error) {
		read++
		return e.Text(was), nil
	}, statusDepth)
	if want := `{"a":"x","b":[{"a":"x"}]}`; err != nil || string(got) != want || read != 2 {
		t.Errorf("%d texts were read, %v, which gave %.100s", read, err, got)
	}
	text := `{"kind":"Status","apiVersion":"v1","message":"in tenant-a-x","details":{"causes":[{"message":"tenant-a-x","more":{"a":"tenant-a-x"}}]}}`
	w, err := answer(t, asked(t, "GET", "/api/v1/namespaces/x/pods/web/proxy/"), 404, 1<<20, "application/json", text)
	if want := `{"kind":"Status","apiVersion":"v1","message":"in x","details":{"causes":[{"message":"x"}]}}`; err != nil || w.Body.String() != want {
		t.Errorf("got %s, %v", w.Body, err)
	}
}

func FuzzPiecesMakeNoDifference(f *testing.F) {
	f.Add(`{"kind":"PodList","items":[{"a":"\"]"},{},7],"b":[{"c":null}]}`, 3)
	f.Add(` { "items" : [ ] , "rows":[[],"x"]}`, 1)
	f.Fuzz(func(t *testing.T, text string, piece int) {
		if piece < 1 || piece > 100 || len(text) > 2000 {
			return
		}
		split := func(piece int) (string, error) {
			var out []byte
			s := splitter{list: true, most: most, read: func(_, _ string, value []byte) ([]byte, error) { return value, nil }}
			for rest := text; rest != ""; {
				n := min(piece, len(rest))
				got, err := s.write([]byte(rest[:n]))
				if err != nil {
					return "", err
				}
				out, rest = append(out, got...), rest[n:]
			}
			return string(out), s.close()
		}
		whole, err := split(len(text) + 1)
		pieces, alsoErr := split(piece)
		if (err == nil) != (alsoErr == nil) || err == nil && whole != pieces {
			t.Errorf("whole: %q, %v; in pieces: %q, %v", whole, err, pieces, alsoErr)
		}
	})
}
