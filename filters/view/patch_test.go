package view

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/portico-proxy/portico/core/pipeline"
	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
)

// patchedPod has jane, who sees only red pods, patch one that is red and of state 7, and
// returns what the API server is asked for.
func patchedPod(t *testing.T, media, text string) (asked []string, err error) {
	t.Helper()
	const pod = `{"kind":"Pod","apiVersion":"v1","metadata":{"name":"web","namespace":"hers","resourceVersion":"7","labels":{"is":"red"}}}`
	f, _ := NewLibrary(Options{Log: logr.Discard()}).Compile(snapshot(v1alpha1.VirtualViewSpec{
		Subjects: jane, Objects: []v1alpha1.ViewRule{{Resources: pods, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"is": "red"}}}},
	}))
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPatch, podsPath+"/web", strings.NewReader(text))
	r.Header.Set("Content-Type", "application/"+media)
	info, err := resources.NewRequestInfo(r)
	if err != nil {
		t.Fatal(err)
	}
	ctx := request.WithUser(request.WithRequestInfo(r.Context(), info), &user.DefaultInfo{Name: "jane"})
	err = f.ServeHTTP(httptest.NewRecorder(), r.WithContext(ctx), pipeline.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		if r.Method == http.MethodPatch {
			sent, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			asked = append(asked, string(sent))
		}
		_, err := io.WriteString(w, pod)
		return err
	}))
	return asked, err
}

// Somebody else may change the object between the trial of a patch and the patch, so it
// must not be made to what has come of that.
func TestPatchesAreMadeToWhatTheyWereTriedOn(t *testing.T) {
	const pinned = `{"op":"add","path":"/metadata/resourceVersion","value":"7"}`
	const ops, merge, strategic, apply = "json-patch+json", "merge-patch+json", "strategic-merge-patch+json", "apply-patch+yaml"
	for _, tt := range []struct {
		media, text, want string
		code              int32 // of a refusal
	}{
		{ops, `[{"op":"remove","path":"/metadata/resourceVersion"}]`, "", 400},
		{ops, `[{"op":"replace","path":"/metadata/resourceVersion","value":""}]`, "", 400},
		{ops, `[{"op":"replace","path":"/metadata/resourceVersion","value":null}]`, "", 400},
		{ops, `[{"op":"replace","path":"/metadata/resourceVersion","value":"0"}]`, "", 409},
		{ops, `[{"op":"replace","path":"/metadata/resourceVersion","value":"8"}]`, "", 409},
		{ops, `[{"op":"add","path":"/metadata/resourceVersion","value":"7"},{"op":"add","path":"/metadata/resourceVersion","value":"8"}]`, "", 400},
		{ops, `[{"op":"copy","from":"/metadata/labels/is","path":"/metadata/resourceVersion"}]`, "", 400},
		{ops, `[{"op":"move","from":"/metadata/resourceVersion","path":"/metadata/labels/x"}]`, "", 400},
		{ops, `[{"op":"move","from":"/metadata","path":"/x"},{"op":"add","path":"/metadata","value":{"name":"web"}}]`, "", 400},
		{ops, `[{"op":"replace","path":"/metadata","value":{"name":"web","resourceVersion":"7"}}]`, "", 400},
		{ops, `[{"op":"replace","path":"","value":{"metadata":{"name":"web"}}}]`, "", 403},
		{ops, `[{"OP":"remove","Path":"/metadata/resourceVersion"}]`, "", 400},
		{ops, `[{"op":"remove","path":"\u002fmetadata\/resourceVersion"}]`, "", 400},
		{strategic, `{"metadata":{"$deleteFromPrimitiveList/resourceVersion":null}}`, "", 400},
		{strategic, `{"metadata":{"$patch":"delete"}}`, "", 400},
		{strategic, `{"$patch":"delete"}`, "", 400},
		{strategic, `{"$deleteFromPrimitiveList/metadata":null}`, "", 400},
		{merge, `{"metadata":{"resourceVersion":"8"}}`, "", 409},

		{ops, `[{"op":"add","path":"/metadata/labels/x","value":"y"}]`, `[` + pinned + `,{"op":"add","path":"/metadata/labels/x","value":"y"}]`, 0},
		{ops, `[{"op":"test","path":"/metadata/resourceVersion","value":"7"}]`, `[` + pinned + `,{"op":"test","path":"/metadata/resourceVersion","value":"7"}]`, 0},
		{ops, `[{"op":"replace","path":"/metadata/resourceVersion","value":"7"}]`, `[` + pinned + `,{"op":"replace","path":"/metadata/resourceVersion","value":"7"}]`, 0},
		{ops, `[{"op":"copy","from":"/metadata/resourceVersion","path":"/metadata/labels/x"}]`, `[` + pinned + `,{"op":"copy","path":"/metadata/labels/x","from":"/metadata/resourceVersion"}]`, 0},
		{merge, `{"metadata":{"resourceVersion":null}}`, `{"metadata":{"resourceVersion":"7"}}`, 0},
		{merge, `{"metadata":{"resourceVersion":""}}`, `{"metadata":{"resourceVersion":"7"}}`, 0},
		{merge, `{"metadata":null}`, `{"metadata":{"resourceVersion":"7"}}`, 0},
		{strategic, `{"metadata":{"$deleteFromPrimitiveList/finalizers":["x"]}}`, `{"metadata":{"$deleteFromPrimitiveList/finalizers":["x"],"resourceVersion":"7"}}`, 0},
		{apply, `{"metadata":{"resourceVersion":"7"}}`, `{"metadata":{"resourceVersion":"7"}}`, 0},
	} {
		asked, err := patchedPod(t, tt.media, tt.text)
		switch {
		case tt.want == "" && (err == nil || pipeline.StatusOf(err).Code != tt.code || len(asked) > 0):
			t.Errorf("%s: asked for %q, %v", tt.text, asked, err)
		case tt.want != "" && (err != nil || len(asked) != 2 || asked[0] != tt.want || asked[1] != tt.want):
			t.Errorf("%s: asked for %q, %v", tt.text, asked, err)
		}
	}
}
