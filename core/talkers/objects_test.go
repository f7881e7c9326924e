package talkers

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
)

func pods(n int) *corev1.PodList {
	list := &corev1.PodList{TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}, ListMeta: metav1.ListMeta{ResourceVersion: "7", Continue: `["{`}}
	for range n {
		list.Items = append(list.Items, corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "web", Annotations: map[string]string{"items": `{"items":[{}]}`}},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Args: []string{`"`, "items"}}, {Name: "d"}}},
		})
	}
	return list
}

func encoded(t *testing.T, o runtime.Object) (asJSON, asProtobuf []byte) {
	t.Helper()
	asJSON, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	if err := protobuf.NewSerializer(nil, nil).Encode(o, &buf); err != nil {
		t.Fatal(err)
	}
	return asJSON, buf.Bytes()
}

// count reads an answer in parts of a size.
func count(verb, contentType string, answer []byte, size int) int64 {
	o := &Objects{Verb: verb}
	for len(answer) > 0 {
		n := min(size, len(answer))
		o.Read(contentType, answer[:n])
		answer = answer[n:]
	}
	return o.N
}

func TestObjectsAreCountedInAnyParts(t *testing.T) {
	for _, n := range []int{0, 1, 7} {
		asJSON, asProtobuf := encoded(t, pods(n))
		oneJSON, oneProtobuf := encoded(t, &pods(1).Items[0])
		framed := binary.BigEndian.AppendUint32(nil, uint32(len(oneProtobuf)))
		framed = append(framed, oneProtobuf...)
		for name, tt := range map[string]struct {
			verb, contentType string
			answer            []byte
			want              int
		}{
			"json-list":      {"list", "application/json", asJSON, n},
			"protobuf-list":  {"list", "application/vnd.kubernetes.protobuf", asProtobuf, n},
			"json-watch":     {"watch", "application/json", bytes.Repeat(append(oneJSON, '\n'), n), n},
			"protobuf-watch": {"watch", "application/vnd.kubernetes.protobuf;stream=watch", bytes.Repeat(framed, n), n},
			"get":            {"get", "application/json", oneJSON, 1},
			"something-else": {"list", "text/html", asJSON, 0},
			"no-protobuf":    {"list", "application/vnd.kubernetes.protobuf", []byte("k8 whatever"), 0},
		} {
			for _, size := range []int{1, 3, 1 << 20} {
				if got := count(tt.verb, tt.contentType, tt.answer, size); got != int64(tt.want) {
					t.Errorf("%s of %d in parts of %d: counted %d, want %d", name, n, size, got, tt.want)
				}
			}
		}
	}
}

func FuzzObjects(f *testing.F) {
	f.Add([]byte(`{"items":[{}]}`))
	f.Add([]byte("k8s\x00\x0a\x02xx\x12\x04\x12\x02yy"))
	f.Fuzz(func(t *testing.T, answer []byte) {
		for _, verb := range []string{"list", "watch"} {
			for _, contentType := range []string{"application/json", "application/vnd.kubernetes.protobuf"} {
				if whole, parts := count(verb, contentType, answer, 1<<20), count(verb, contentType, answer, 1); whole != parts {
					t.Errorf("%s of %s: %d as a whole, %d in parts", verb, contentType, whole, parts)
				}
			}
		}
	})
}
