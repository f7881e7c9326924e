package names

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/endpoints/request"
)

// nobody takes an answer as it comes.
type nobody struct{ header http.Header }

func (n nobody) Header() http.Header         { return n.header }
func (n nobody) Write(p []byte) (int, error) { return len(p), nil }
func (n nobody) WriteHeader(int)             {}

// BenchmarkWatchEvent is what exchanging names costs each watcher of a pod's change.
func BenchmarkWatchEvent(b *testing.B) {
	pod := corev1.Pod{TypeMeta: metav1.TypeMeta{Kind: "Pod", APIVersion: "v1"}, ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "tenant-a-default", UID: "1", ResourceVersion: "7", Labels: map[string]string{"app": "web"}}}
	for i := range 4 {
		c := corev1.Container{Name: fmt.Sprint("c", i), Image: "registry.example.org/team/image:v1.2.3"}
		for j := range 12 {
			c.Env = append(c.Env, corev1.EnvVar{Name: fmt.Sprint("VARIABLE_", j), Value: "some value of no interest"})
		}
		pod.Spec.Containers = append(pod.Spec.Containers, c)
	}
	object, err := json.Marshal(&pod)
	if err != nil {
		b.Fatal(err)
	}
	frame := fmt.Appendf(nil, `{"type":"MODIFIED","object":%s}`+"\n", object)
	info := &request.RequestInfo{IsResourceRequest: true, Verb: "watch", APIVersion: "v1", Resource: "pods", Namespace: "tenant-a-default"}
	r := httptest.NewRequest(http.MethodGet, "/", http.NoBody)
	a := NewAnswer(nobody{http.Header{"Content-Type": {"application/json"}}}, r.WithContext(request.WithRequestInfo(b.Context(), info)), New("tenant-a-", nil))
	b.SetBytes(int64(len(frame)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := a.Write(frame); err != nil {
			b.Fatal(err)
		}
	}
}
