package body

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	kjson "k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/client-go/kubernetes/scheme"
)

// FuzzObject has filters see in a body what the API server sees in it.
func FuzzObject(f *testing.F) {
	f.Add(uint8(0), []byte(`{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a"},"spec":{"nodeName":"n","priority":9007199254740993}}`))
	f.Add(uint8(1), []byte("kind: Pod\napiVersion: v1\nmetadata: {name: a, labels: {b: \"yes\", c: '0x10'}}\nspec:\n  &a x: 1\n"))
	f.Add(uint8(2), []byte("k8s\x00\x0a\x09\x0a\x02v1\x12\x03Pod\x12\x05\x0a\x03\x0a\x01a\x1a\x00\x22\x00"))
	f.Fuzz(func(t *testing.T, kind uint8, raw []byte) {
		media := []string{"application/json", "application/yaml", "application/vnd.kubernetes.protobuf"}[kind%3]
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/api/v1/namespaces/shop/pods", bytes.NewReader(raw))
		r.Header.Set("Content-Type", media)
		_, object, err := Object(r)
		if err != nil {
			return
		}
		var got map[string]any
		if err := json.Unmarshal(object, &got); err != nil {
			t.Fatalf("%q is read as %q: %v", raw, object, err)
		}
		there, ok := upstream(media, raw)
		if !ok {
			return
		}
		var want map[string]any
		if err := json.Unmarshal(there, &want); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("%q is read as another object than there (-there +here):\n%s", raw, diff)
		}
	})
}

// upstream is the object that the API server's decoders read, as JSON.
func upstream(media string, raw []byte) ([]byte, bool) {
	if media == "application/vnd.kubernetes.protobuf" {
		o, _, err := protobuf.NewSerializer(scheme.Scheme, scheme.Scheme).Decode(raw, nil, nil)
		if err != nil {
			return nil, false
		}
		out, err := json.Marshal(o)
		return out, err == nil
	}
	s := kjson.NewSerializerWithOptions(kjson.DefaultMetaFactory, runtime.NewScheme(), runtime.NewScheme(), kjson.SerializerOptions{Yaml: media == "application/yaml"})
	o := &unstructured.Unstructured{}
	if _, _, err := s.Decode(raw, nil, o); err != nil {
		return nil, false
	}
	out, err := json.Marshal(o.Object)
	return out, err == nil
}
