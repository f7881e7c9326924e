package wire

import (
	"bytes"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
)

// FuzzMeaning makes pods of what Kubernetes' own decoders take for one, however odd,
// and has them mean the same here once Kubernetes has written them: in lists, in
// frames of watches, and alone.
func FuzzMeaning(f *testing.F) {
	f.Add(true, encode(f, Protobuf, pod("a")))
	f.Add(false, encode(f, JSON, pod("a")))
	f.Add(false, []byte(`{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a\u0000","resourceVersion":"1","labels":{"":"","k":"\ud800"}}}`))
	f.Fuzz(func(t *testing.T, proto bool, b []byte) {
		decoded, _, err := serializer(formatOf(proto)).Decode(b, nil, &corev1.Pod{})
		p, ok := decoded.(*corev1.Pod)
		if err != nil || !ok || strings.Contains(p.Namespace+p.Name, "/") {
			return // no name that the API server takes has a slash
		}
		p.Kind, p.APIVersion = "Pod", "v1"
		for _, format := range []Format{JSON, Protobuf} {
			checkMeaning(t, format, p)
		}
	})
}

func checkMeaning(t *testing.T, f Format, p *corev1.Pod) {
	t.Helper()
	alone := encode(t, f, p)
	again, _, err := serializer(f).Decode(alone, nil, &corev1.Pod{})
	if err != nil {
		return // Kubernetes cannot read what it has written
	}
	want := again.(*corev1.Pod)
	alone = encode(t, f, want) // text that is none has become text
	o, err := podSchema.ReadObject(f, alone)
	rv, rvErr := strconv.ParseUint(want.ResourceVersion, 10, 60)
	if rvErr != nil || len(want.ResourceVersion) > 20 || want.Name == "" {
		if err == nil && strconv.FormatUint(o.ResourceVersion, 10) != strings.TrimLeft(want.ResourceVersion, "0") {
			t.Fatalf("%s: read a pod %q at %q as %+v", f, want.Name, want.ResourceVersion, o)
		}
		return
	}
	if err != nil {
		t.Fatalf("%s: %v in %q", f, err, alone)
	}
	if o.Key != Key(want.Namespace, want.Name) || o.UID != string(want.UID) || o.ResourceVersion != rv {
		t.Fatalf("%s: %q at %d, %q; want %q, %q at %d, %q", f, o.Key, o.ResourceVersion, o.UID, want.Namespace, want.Name, rv, want.UID)
	}
	if diff := cmp.Diff(labelsOf(want.Labels), slices.Collect(pairs(o))); diff != "" {
		t.Fatalf("%s: labels (-Kubernetes +here):\n%s", f, diff)
	}
	for name, value := range selectable(want) {
		if got := o.Fields().Get(name); got != value {
			t.Fatalf("%s: %s is %q, want %q", f, name, got, value)
		}
	}
	checkPlaces(t, f, want, o)
}

// checkPlaces finds the bytes of o in a list and in a frame.
func checkPlaces(t *testing.T, f Format, p *corev1.Pod, o *Object) {
	t.Helper()
	list := &corev1.PodList{TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}, Items: []corev1.Pod{*p}}
	list.Items[0].TypeMeta = metav1.TypeMeta{}
	list.ResourceVersion = "9"
	n := 0
	meta, err := podSchema.ReadList(f, bytes.NewReader(encode(t, f, list)), func(item *Object) error {
		if n++; !bytes.Equal(item.Raw, o.Raw) {
			t.Fatalf("%s: a list has %q, and the object alone is %q", f, item.Raw, o.Raw)
		}
		return nil
	})
	if err != nil || n != 1 || meta.ResourceVersion != "9" {
		t.Fatalf("%s: read %d items at %q: %v", f, n, meta.ResourceVersion, err)
	}
	e, err := podSchema.NewFrameReader(f, bytes.NewReader(frame(t, f, watch.Modified, p))).Next()
	if err != nil || e.Type != watch.Modified || !bytes.Equal(e.Raw, o.Raw) {
		t.Fatalf("%s: a frame has %s %q, and the object alone is %q: %v", f, e.Type, e.Raw, o.Raw, err)
	}
}

// selectable is what the API server selects pods by (ToSelectableFields in
// k8s.io/kubernetes/pkg/registry/core/pod).
func selectable(p *corev1.Pod) map[string]string {
	return map[string]string{
		"metadata.name": p.Name, "metadata.namespace": p.Namespace,
		"spec.nodeName": p.Spec.NodeName, "spec.restartPolicy": string(p.Spec.RestartPolicy), "spec.schedulerName": p.Spec.SchedulerName,
		"spec.serviceAccountName": p.Spec.ServiceAccountName, "spec.hostNetwork": strconv.FormatBool(p.Spec.HostNetwork),
		"status.phase": string(p.Status.Phase), "status.podIP": p.Status.PodIP, "status.nominatedNodeName": p.Status.NominatedNodeName,
	}
}

type label struct{ Name, Value string }

func labelsOf(all map[string]string) []label {
	var sorted []label
	for _, name := range slices.Sorted(maps.Keys(all)) {
		sorted = append(sorted, label{name, all[name]})
	}
	return sorted
}

// pairs are o's labels by name.
func pairs(o *Object) func(func(label) bool) {
	all := map[string]string{}
	for i := 0; i+1 < len(o.labels); i += 2 {
		all[o.labels[i]] = o.Labels().Get(o.labels[i])
	}
	return slices.Values(labelsOf(all))
}
