package lens

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/portico-proxy/portico/core/view"
)

// narrow hides what is labelled secret.
type narrow struct{}

func (narrow) Key() string              { return "narrow" }
func (narrow) Changed() <-chan struct{} { return nil }
func (narrow) See(_ context.Context, o view.Object) ([]byte, error) {
	if o.Labels.Has("secret") {
		return nil, nil
	}
	return o.JSON, nil
}

// through is what is left of an answer of the API server, and whether all of it came.
func through(t *testing.T, verb string, table bool, answer []byte) ([]byte, bool) {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api/v1/namespaces/shop/configmaps", nil)
	if table {
		r.Header.Set("Accept", "application/json;as=Table;g=meta.k8s.io;v=v1")
	}
	info := &request.RequestInfo{IsResourceRequest: true, Verb: verb, APIVersion: "v1", Resource: "configmaps", Namespace: "shop", Name: "a"}
	r, err := On(r.WithContext(view.With(request.WithRequestInfo(r.Context(), info), narrow{})))
	if err != nil {
		t.Fatal(err)
	}
	l := From(r.Context())
	defer l.shown.giveUp()
	res := &http.Response{StatusCode: http.StatusOK, Request: r, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewReader(answer))}
	if l.Apply(res) != nil {
		return nil, false
	}
	defer res.Body.Close()
	out, err := io.ReadAll(res.Body)
	return out, err == nil
}

// item is as much of an object as decides whether it is hidden. What has neither
// name nor UID is not stored, and views are not asked about it.
type item struct {
	Metadata struct {
		Name, Namespace, UID string
		Labels               map[string]string
	}
}

func (i *item) isHidden() bool {
	_, hidden := i.Metadata.Labels["secret"]
	return hidden && i.Metadata.Name+i.Metadata.UID != ""
}

// FuzzList looks at lists that no API server sends: what comes out of a list whole is
// all of it that is not hidden, and nothing that is.
func FuzzList(f *testing.F) {
	f.Add(false, []byte(`{"kind":"ConfigMapList","metadata":{"resourceVersion":"5","remainingItemCount":7},"items":[{"metadata":{"name":"a"}},{"metadata":{"name":"b","labels":{"secret":""}}}]}`))
	f.Add(true, []byte(`{"kind":"Table","apiVersion":"meta.k8s.io/v1","columnDefinitions":[{"name":"Name"}],"rows":[{"cells":["a"],"object":{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a"}}}]}`))
	f.Add(false, []byte(`{"items":null,"items":[{"metadata":{"name":"b","labels":{"s\u0065cret":"1"}}}]}`))
	f.Fuzz(func(t *testing.T, table bool, answer []byte) {
		out, whole := through(t, "list", table, answer)
		if !whole || !json.Valid(answer) || bytes.Contains(bytes.ToLower(answer), []byte(`"kind":"status"`)) {
			return
		}
		var got, want struct {
			Items []item
			Rows  []struct{ Object item }
		}
		if err := json.Unmarshal(out, &got); err != nil {
			t.Fatalf("%s became %s: %v", answer, out, err)
		}
		for _, i := range got.Items {
			if i.isHidden() {
				t.Fatalf("%s became %s", answer, out)
			}
		}
		if !isPlain(answer) || json.Unmarshal(answer, &want) != nil {
			return
		}
		left := []item{}
		for _, i := range want.Items {
			if !i.isHidden() {
				left = append(left, i)
			}
		}
		if !table && len(left) != len(got.Items) {
			t.Fatalf("%s became %s: %d are left, want %d", answer, out, len(got.Items), len(left))
		}
	})
}

// isPlain reports JSON that encoding/json reads as the API server writes it: it would
// take "Items" for "items", and the last of two members.
func isPlain(raw []byte) bool {
	known := []string{"items", "metadata", "labels", "name", "uid", "namespace"}
	d := json.NewDecoder(bytes.NewReader(raw))
	seen := map[string]bool{}
	for {
		token, err := d.Token()
		if err != nil {
			return err == io.EOF
		}
		if name, ok := token.(string); ok {
			if !slices.Contains(known, name) && slices.ContainsFunc(known, func(k string) bool { return strings.EqualFold(k, name) }) || name == "items" && seen[name] {
				return false
			}
			seen[name] = true
		}
	}
}

// FuzzWatch looks at streams that no API server sends: of what is hidden nothing is
// shown but that it is gone, once it was shown.
func FuzzWatch(f *testing.F) {
	f.Add(false, []byte(`{"type":"ADDED","object":{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a","resourceVersion":"1"}}}`+"\n"+`{"type":"MODIFIED","object":{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a","resourceVersion":"2","labels":{"secret":"1"}}}}`+"\n"))
	f.Add(true, []byte(`{"type":"ADDED","object":{"kind":"Table","columnDefinitions":[{"name":"Name"}],"rows":[{"cells":["a"],"object":{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a"}}}]}}`+"\n"))
	f.Add(false, []byte(`{"type":"BOOKMARK","object":{"kind":"ConfigMap","apiVersion":"v1","metadata":{"resourceVersion":"1"}}}`+"\n"+`{"type":"ERROR","object":{"kind":"Status","code":410}}`+"\n"))
	f.Fuzz(func(t *testing.T, table bool, answer []byte) {
		out, _ := through(t, "watch", table, answer)
		shown := map[string]bool{}
		for line := range bytes.Lines(out) {
			var e struct {
				Type   string
				Object item
			}
			if table || json.Unmarshal(line, &e) != nil {
				continue // of objects that are no JSON before either
			}
			key := e.Object.Metadata.Namespace + "/" + e.Object.Metadata.Name
			switch {
			case e.Type == "ERROR" || e.Type == "BOOKMARK":
			case e.Object.isHidden() && isPlain(line):
				t.Fatalf("%s became %s", answer, out)
			case e.Type == "DELETED" && !shown[key] && isPlain(line):
				t.Fatalf("of %s it is told that %q is gone, which was never shown: %s", answer, key, out)
			}
			shown[key] = e.Type != "DELETED"
		}
	})
}

// FuzzObject looks at single objects.
func FuzzObject(f *testing.F) {
	f.Add([]byte(`{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a","labels":{"secret":"1"}}}`))
	f.Add([]byte(`{"kind":"Status","apiVersion":"v1","metadata":{}}`))
	f.Fuzz(func(t *testing.T, answer []byte) {
		out, whole := through(t, "get", false, answer)
		var was, is item
		if !whole || json.Unmarshal(answer, &was) != nil || !isPlain(answer) || json.Unmarshal(out, &is) != nil || bytes.Contains(answer, []byte("Status")) {
			return
		}
		if is.isHidden() {
			t.Fatalf("%s became %s", answer, out)
		}
		if !was.isHidden() {
			if diff := cmp.Diff(string(bytes.TrimSpace(answer)), string(bytes.TrimSpace(out))); diff != "" && was.Metadata.Labels != nil {
				t.Fatalf("(-sent +seen):\n%s", diff)
			}
		}
	})
}
