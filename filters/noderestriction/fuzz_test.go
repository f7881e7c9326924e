package noderestriction

import (
	"encoding/json"
	"strings"
	"testing"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
)

// FuzzTouched has the API server's own libraries apply a patch that is taken, and
// looks whether anything but what it is said to touch is another after it.
func FuzzTouched(f *testing.F) {
	const pod = `{"kind":"Pod","metadata":{"name":"p","labels":{"a":"1","b/c":"2"}},"spec":{"nodeName":"n","containers":[{"name":"c","image":"i"}]},"status":{"phase":"Running"}}`
	f.Add(uint8(0), []byte(pod), []byte(`{"status":{"phase":"Failed"},"metadata":{"labels":{"b/c":null}}}`))
	f.Add(uint8(1), []byte(pod), []byte(`[{"op":"replace","path":"/status/phase","value":"Failed"},{"op":"move","from":"/metadata/labels/a","path":"/spec/x"}]`))
	f.Add(uint8(2), []byte(pod), []byte(`{"spec":{"containers":[{"$patch":"replace"},{"name":"d"}]},"status":{"$patch":"delete"}}`))
	f.Add(uint8(2), []byte(pod), []byte(`{"metadata":{"$retainKeys":["labels"],"labels":{}},"spec":{"$setElementOrder/containers":[{"name":"c"}]}}`))
	f.Fuzz(func(t *testing.T, kind uint8, object, patch []byte) {
		media := []string{"application/merge-patch+json", "application/json-patch+json", "application/strategic-merge-patch+json"}[kind%3]
		touched, err := touchedBy(media, patch)
		if err != nil {
			return
		}
		after, ok := patched(media, object, patch)
		var was, will map[string]any
		if !ok || json.Unmarshal(object, &was) != nil || json.Unmarshal(after, &will) != nil || was == nil || will == nil {
			return
		}
		for _, pointer := range differences(was, will, "") {
			if !isTouched(pointer, touched) {
				t.Fatalf("%s is said to touch %q; of %s it made %s, which differs at %q", patch, touched, object, after, pointer)
			}
		}
	})
}

// patched is what the API server makes of an object
// (k8s.io/apiserver/pkg/endpoints/handlers/patch.go).
func patched(media string, object, patch []byte) ([]byte, bool) {
	switch media {
	case "application/merge-patch+json":
		after, err := jsonpatch.MergePatch(object, patch)
		return after, err == nil
	case "application/json-patch+json":
		operations, err := jsonpatch.DecodePatch(patch)
		if err != nil {
			return nil, false
		}
		after, err := operations.Apply(object)
		return after, err == nil
	}
	after, err := strategicpatch.StrategicMergePatch(object, patch, &corev1.Pod{})
	return after, err == nil
}

// isTouched reports whether one of touched leads to the field, above it, or below
// it. A directive touches what it stands in.
func isTouched(field string, touched []string) bool {
	for _, pointer := range touched {
		if at := strings.Index(pointer, "/$"); at >= 0 {
			pointer = pointer[:at]
		}
		if isAtOrBelow(field, pointer) || isAtOrBelow(pointer, field) {
			return true
		}
	}
	return false
}

func isAtOrBelow(pointer, above string) bool {
	return pointer == above || strings.HasPrefix(pointer, above+"/")
}
