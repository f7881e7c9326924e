package views

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
)

// twiceMarker is one that a Secret tells of in two ways.
const (
	twiceMarker   = "MARKERMARKER"
	twiceAsBase64 = "TUFSS0VSTUFSS0VS"
)

// sly are wordings of Accept that more than one form may be read out of.
var sly = []string{
	"",
	"application/json;sv=x, " + asTable, "application/json;as=Foo;g=x;v=y, " + asTable, "application/json;as=Foo;g=meta.k8s.io;v=v1, " + asTable,
	"application/json;stream=x, " + asTable, "application/json;stream=watch;sv=x, " + asTable + ";stream=watch",
	"application/json;sv=x, */*;as=Table;g=meta.k8s.io;v=v1", "*/*;sv=x, " + asTable, "application/json;q=0.9;sv=x, " + asTable + ";q=0.5",
	"application/json;sv=x, " + strings.Replace(asTable, "v=v1", "v=v1beta1", 1), asTable + ", application/json", asTable, "Application/JSON, " + asTable,
	"application/json;sv=x, application/vnd.kubernetes.protobuf", "application/json;sv=x, application/vnd.kubernetes.protobuf;as=Table;g=meta.k8s.io;v=v1",
	"application/vnd.kubernetes.protobuf", "application/vnd.kubernetes.protobuf;stream=watch, application/json;sv=x",
	"application/json;sv=x, application/yaml", "application/yaml", "application/json;sv=x, application/cbor", "application/cbor-seq, application/cbor",
	"application/json;sv=x, application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1", "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
}

const asTable = "application/json;as=Table;g=meta.k8s.io;v=v1"

// TestNoFormTellsWhatIsMasked asks for a Secret that kubectl applied in all the ways
// in which it may be answered.
func TestNoFormTellsWhatIsMasked(t *testing.T) {
	apply(t, namespace("forms", ""))
	admin(t, `apiVersion: v1
kind: Secret
metadata: {name: key, namespace: forms}
stringData: {password: `+twiceMarker+`}
`, "apply", "-f", "-")
	p := newProxy(t)
	show(t, "forms", "  subjects: {users: [ruth]}\n  masks:\n  - resources: [{resource: secrets}]\n    paths: [/data/*]\n")
	r := newTenant(t, p, "ruth")
	const all, secret = "/api/v1/namespaces/forms/secrets", "/api/v1/namespaces/forms/secrets/key"
	var good, failed atomic.Int64
	ask := func(t *testing.T, method, path, body, accept string) {
		switch code := r.ask(t, method, path, body, accept); {
		case code == http.StatusOK:
			good.Add(1)
		case code >= http.StatusInternalServerError:
			failed.Add(1)
		}
	}
	t.Run("asked", func(t *testing.T) {
		for i, accept := range sly {
			t.Run(accept, func(t *testing.T) {
				t.Parallel()
				for _, path := range []string{
					secret + "?x=y", all + "?x=y", all + "?resourceVersion=0", all + "?watch=true&timeoutSeconds=1", "/api/v1/watch/namespaces/forms/secrets/key?timeoutSeconds=1",
					all + "?watch=true&timeoutSeconds=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true",
				} {
					ask(t, "GET", path, "", accept)
					ask(t, "GET", path+"&includeObject=Object", "", accept)
				}
				ask(t, "PATCH", secret+"?includeObject=Object", asMerge+fmt.Sprintf(`{"metadata":{"labels":{"n":"%d"}}}`, i), accept)
				ask(t, "PUT", secret+"?includeObject=Object", asJSON+`{"apiVersion":"v1","kind":"Secret","metadata":{"name":"key"}}`, accept)
				ask(t, "PUT", secret+"?includeObject=Object&dryRun=All", asJSON+`{"apiVersion":"v1","kind":"Secret","metadata":{"name":"key"}}`, accept)
			})
		}
	})
	if good.Load() < 100 || failed.Load() > 0 {
		t.Errorf("%d were good, %d failed", good.Load(), failed.Load())
	}
	r.is(t, "PATCH", secret, asOps+`[{"op":"copy","from":"/metadata/annotations/kubectl.kubernetes.io~1last-applied-configuration","path":"/metadata/annotations/x"}]`, 403)
	r.is(t, "PATCH", secret, asOps+`[{"op":"test","path":"/metadata/managedFields/0/fieldsV1/f:data/f:password","value":{}}]`, 403)
	r.is(t, "PUT", secret, asJSON+`{"apiVersion":"v1","kind":"Secret","metadata":{"name":"key"},"stringData":{"password":"mine"}}`, 403)
	r.is(t, "PATCH", secret, asMerge+`{"stringData":{"password":"mine"}}`, 403)
	r.neverSaw(t, twiceMarker, twiceAsBase64)
	if got := admin(t, "", "get", "secret", "--namespace=forms", "key", "-o", "jsonpath={.data.password}"); got != twiceAsBase64 {
		t.Errorf("it is now %s", got)
	}
}

// ask sends a request for an answer in a form, and returns its code.
func (a *tenant) ask(t *testing.T, method, path, body, accept string) int {
	t.Helper()
	media, text, _ := strings.Cut(body, "|")
	r, err := http.NewRequestWithContext(t.Context(), method, a.cfg.Host+path, strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", media)
	if accept != "" {
		r.Header.Set("Accept", accept)
	}
	res, err := a.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		t.Errorf("%s %s as %s: %v", method, path, accept, err)
	}
	return res.StatusCode
}
