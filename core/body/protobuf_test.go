package body

import (
	"bytes"
	"encoding/json"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/client-go/kubernetes/scheme"
)

// sent is a pod as clients send it, whose bytes edit may change.
func sent(t *testing.T, edit func(pod []byte) []byte) []byte {
	t.Helper()
	pod := &corev1.Pod{
		TypeMeta:   metav1.TypeMeta{Kind: "Pod", APIVersion: "v1"},
		ObjectMeta: metav1.ObjectMeta{Name: "web", Labels: map[string]string{"a": "b", "c": "d"}},
		Spec:       corev1.PodSpec{NodeName: "n1", Containers: []corev1.Container{{Name: "c", Image: "i"}}},
	}
	raw, err := pod.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	unknown := &runtime.Unknown{TypeMeta: runtime.TypeMeta{Kind: "Pod", APIVersion: "v1"}, Raw: edit(raw)}
	body, err := unknown.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return append([]byte("k8s\x00"), body...)
}

func TestProtobufIsReadWhereNothingIsLost(t *testing.T) {
	same := func(pod []byte) []byte { return pod }
	field := func(number protowire.Number, value []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, number, protowire.BytesType), value)
	}
	object, err := fromProtobuf(sent(t, same))
	if err != nil {
		t.Fatal(err)
	}
	pod := &corev1.Pod{}
	if err := json.Unmarshal(object, pod); err != nil || pod.Kind != "Pod" || pod.Labels["a"] != "b" || pod.Spec.NodeName != "n1" {
		t.Errorf("%v in %s", err, object)
	}
	var usual bytes.Buffer
	if err := protobuf.NewSerializer(scheme.Scheme, scheme.Scheme).Encode(pod, &usual); err != nil {
		t.Fatal(err)
	}
	if _, err := fromProtobuf(usual.Bytes()); err != nil {
		t.Errorf("as client-go encodes it: %v", err)
	}
	// A client that is older than a field does not send it: here spec.nodeName
	// alone is said, and no empty field.
	older := func([]byte) []byte { return field(2, field(10, []byte("n1"))) }
	if _, err := fromProtobuf(sent(t, older)); err != nil {
		t.Errorf("of an older client: %v", err)
	}
	for name, edit := range map[string]func([]byte) []byte{
		"new-field":       func(pod []byte) []byte { return append(pod, field(777, []byte("x"))...) },
		"new-inner-field": func([]byte) []byte { return field(2, field(777, []byte("x"))) },
		"said-twice": func([]byte) []byte {
			return append(field(2, field(10, []byte("n1"))), field(2, field(10, []byte("n2")))...)
		},
		"no-message": func([]byte) []byte { return []byte{0xff} },
	} {
		if got, err := fromProtobuf(sent(t, edit)); err == nil {
			t.Errorf("%s: read as %s", name, got)
		}
	}
	if _, err := fromProtobuf([]byte("k8s")); err == nil {
		t.Error("three bytes are an object")
	}
}
