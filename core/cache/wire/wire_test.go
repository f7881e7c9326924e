package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	kjson "k8s.io/apimachinery/pkg/runtime/serializer/json"
	kproto "k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/scheme"
)

var podSchema = Builtin(corev1.SchemeGroupVersion.WithResource("pods"), "Pod", true)

func pod(name string) *corev1.Pod {
	return &corev1.Pod{
		TypeMeta: metav1.TypeMeta{Kind: "Pod", APIVersion: "v1"},
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Namespace: "shop", UID: "u-" + "1", ResourceVersion: "41",
			Labels:      map[string]string{"app": "web", "quote": `a"b\c<é`},
			Annotations: map[string]string{"resourceVersion": `"resourceVersion":"7"}{[`},
		},
		Spec: corev1.PodSpec{NodeName: "n1", ServiceAccountName: "sa", SchedulerName: "s", RestartPolicy: "Never", HostNetwork: true,
			Containers: []corev1.Container{{Name: "c", Image: "example.org/c"}}},
		Status: corev1.PodStatus{Phase: "Running", PodIP: "10.0.0.1", NominatedNodeName: "n2"},
	}
}

// serializer is the encoder that the API server uses for f.
func serializer(f Format) runtime.Serializer {
	if f == Protobuf {
		return kproto.NewSerializerWithOptions(scheme.Scheme, scheme.Scheme, kproto.SerializerOptions{StreamingCollectionsEncoding: true})
	}
	return kjson.NewSerializerWithOptions(kjson.DefaultMetaFactory, scheme.Scheme, scheme.Scheme, kjson.SerializerOptions{StreamingCollectionsEncoding: true})
}

func encode(t testing.TB, f Format, o runtime.Object) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := serializer(f).Encode(o, &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// frame is a watch event as the API server frames it.
func frame(t testing.TB, f Format, kind watch.EventType, o runtime.Object) []byte {
	t.Helper()
	event := &metav1.WatchEvent{Type: string(kind), Object: runtime.RawExtension{Raw: encode(t, f, o)}}
	if f == JSON {
		out, err := json.Marshal(event)
		if err != nil {
			t.Fatal(err)
		}
		return append(out, '\n')
	}
	var b bytes.Buffer
	raw := kproto.NewRawSerializer(scheme.Scheme, scheme.Scheme)
	if err := raw.Encode(event, kproto.LengthDelimitedFramer.NewFrameWriter(&b)); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func bothFormats(t *testing.T, test func(t *testing.T, f Format)) {
	for _, f := range []Format{JSON, Protobuf} {
		t.Run(f.String(), func(t *testing.T) { test(t, f) })
	}
}

func readList(t testing.TB, s *Schema, f Format, b []byte) ([]*Object, metav1.ListMeta) {
	t.Helper()
	var items []*Object
	meta, err := s.ReadList(f, bytes.NewReader(b), func(o *Object) error { items = append(items, o); return nil })
	if err != nil {
		t.Fatal(err)
	}
	return items, meta
}

func TestListsSurviveReadingAndWriting(t *testing.T) {
	bothFormats(t, func(t *testing.T, f Format) {
		left := int64(3)
		for name, list := range map[string]*corev1.PodList{
			"items": {Items: []corev1.Pod{*pod("a"), *pod("b")}, ListMeta: metav1.ListMeta{ResourceVersion: "50"}},
			"empty": {Items: []corev1.Pod{}, ListMeta: metav1.ListMeta{ResourceVersion: "50"}},
			"page":  {Items: []corev1.Pod{*pod("a")}, ListMeta: metav1.ListMeta{ResourceVersion: "50", Continue: "t", RemainingItemCount: &left}},
		} {
			t.Run(name, func(t *testing.T) {
				list.TypeMeta = metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}
				for i := range list.Items {
					list.Items[i].TypeMeta = metav1.TypeMeta{}
				}
				want := encode(t, f, list)
				items, meta := readList(t, podSchema, f, want)
				if d := cmp.Diff(list.ListMeta, meta); d != "" {
					t.Errorf("metadata: %s", d)
				}
				var got bytes.Buffer
				if err := podSchema.NewWriter(f).List(&got, meta, items); err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(got.Bytes(), want) {
					t.Errorf("got  %q\nwant %q", got.Bytes(), want)
				}
			})
		}
	})
}

func TestFramesSurviveReadingAndWriting(t *testing.T) {
	bothFormats(t, func(t *testing.T, f Format) {
		want := append(frame(t, f, watch.Added, pod("a")), frame(t, f, watch.Deleted, pod("b"))...)
		r := podSchema.NewFrameReader(f, bytes.NewReader(want))
		var got bytes.Buffer
		w := podSchema.NewWriter(f)
		var scratch []byte
		for {
			e, err := r.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if scratch, err = w.Event(&got, scratch, e.Type, e.Raw); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(got.Bytes(), want) {
			t.Errorf("got  %q\nwant %q", got.Bytes(), want)
		}
	})
}

func TestFramesAndListsHoldTheSameBytes(t *testing.T) {
	bothFormats(t, func(t *testing.T, f Format) {
		list := &corev1.PodList{TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}, Items: []corev1.Pod{*pod("a")}}
		list.Items[0].TypeMeta = metav1.TypeMeta{}
		items, _ := readList(t, podSchema, f, encode(t, f, list))
		e, err := podSchema.NewFrameReader(f, bytes.NewReader(frame(t, f, watch.Added, pod("a")))).Next()
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(e.Raw, items[0].Raw) {
			t.Errorf("frame %q\nitem  %q", e.Raw, items[0].Raw)
		}
		single, err := podSchema.ReadObject(f, encode(t, f, pod("a")))
		if err != nil || !bytes.Equal(single.Raw, items[0].Raw) {
			t.Errorf("single %v %q\nitem  %q", err, single.Raw, items[0].Raw)
		}
		var got bytes.Buffer
		if err := podSchema.NewWriter(f).Object(&got, items[0].Raw); err != nil || !bytes.Equal(got.Bytes(), encode(t, f, pod("a"))) {
			t.Errorf("object %v %q", err, got.Bytes())
		}
	})
}

func TestObjectsAreRead(t *testing.T) {
	bothFormats(t, func(t *testing.T, f Format) {
		o, err := podSchema.ReadObject(f, encode(t, f, pod("a")))
		if err != nil {
			t.Fatal(err)
		}
		if o.Key != "shop/a" || o.Namespace() != "shop" || o.Name() != "a" || o.UID != "u-1" || o.ResourceVersion != 41 {
			t.Errorf("got %+v", o)
		}
		if got := o.Labels().Get("quote"); got != `a"b\c<é` {
			t.Errorf("label %q", got)
		}
		want := map[string]string{
			"metadata.name": "a", "metadata.namespace": "shop", "spec.nodeName": "n1", "spec.restartPolicy": "Never", "spec.schedulerName": "s",
			"spec.serviceAccountName": "sa", "spec.hostNetwork": "true", "status.phase": "Running", "status.podIP": "10.0.0.1", "status.nominatedNodeName": "n2",
		}
		for name, value := range want {
			if got := o.Fields().Get(name); got != value {
				t.Errorf("%s = %q, want %q", name, got, value)
			}
		}
	})
}

func TestSelectableFieldsHaveTheirDefaults(t *testing.T) {
	bothFormats(t, func(t *testing.T, f Format) {
		for field, of := range map[string]struct {
			schema *Schema
			object runtime.Object
			want   string
		}{
			"spec.hostNetwork":  {podSchema, &corev1.Pod{}, "false"},
			"spec.nodeName":     {podSchema, &corev1.Pod{}, ""},
			"status.replicas":   {Builtin(corev1.SchemeGroupVersion.WithResource("replicationcontrollers"), "ReplicationController", true), &corev1.ReplicationController{}, "0"},
			"status.successful": {Builtin(batchv1.SchemeGroupVersion.WithResource("jobs"), "Job", true), &batchv1.Job{Status: batchv1.JobStatus{Succeeded: 2}}, "2"},
			"spec.unschedulable": {Builtin(corev1.SchemeGroupVersion.WithResource("nodes"), "Node", false),
				&corev1.Node{Spec: corev1.NodeSpec{Unschedulable: true}}, "true"},
			"type":           {Builtin(corev1.SchemeGroupVersion.WithResource("secrets"), "Secret", true), &corev1.Secret{Type: "Opaque"}, "Opaque"},
			"spec.clusterIP": {Builtin(corev1.SchemeGroupVersion.WithResource("services"), "Service", true), &corev1.Service{Spec: corev1.ServiceSpec{ClusterIP: "10.0.0.9"}}, "10.0.0.9"},
		} {
			o := of.object.(metav1.Object)
			o.SetName("a")
			o.SetResourceVersion("1")
			got, err := of.schema.ReadObject(f, encode(t, f, of.object))
			if err != nil {
				t.Fatal(err)
			}
			if v := got.Fields().Get(field); v != of.want {
				t.Errorf("%s = %q, want %q", field, v, of.want)
			}
		}
	})
}

func TestResourceVersionIsReplaced(t *testing.T) {
	bothFormats(t, func(t *testing.T, f Format) {
		o, err := podSchema.ReadObject(f, encode(t, f, pod("a")))
		if err != nil {
			t.Fatal(err)
		}
		raw, err := o.WithResourceVersion(f, 123456)
		if err != nil {
			t.Fatal(err)
		}
		later := pod("a")
		later.ResourceVersion = "123456"
		want, err := podSchema.ReadObject(f, encode(t, f, later))
		if err != nil || !bytes.Equal(raw, want.Raw) {
			t.Errorf("got %q, want %q (%v)", raw, want.Raw, err)
		}
	})
}

func TestBookmarksAreMadeOfOne(t *testing.T) {
	empty := func(rv string, annotated bool) *corev1.Pod {
		p := &corev1.Pod{TypeMeta: metav1.TypeMeta{Kind: "Pod", APIVersion: "v1"}, ObjectMeta: metav1.ObjectMeta{ResourceVersion: rv}}
		if annotated {
			p.Annotations = map[string]string{metav1.InitialEventsAnnotationKey: "true"}
		}
		return p
	}
	bothFormats(t, func(t *testing.T, f Format) {
		e, err := podSchema.NewFrameReader(f, bytes.NewReader(frame(t, f, watch.Bookmark, empty("7", true)))).Next()
		if err != nil {
			t.Fatal(err)
		}
		b, err := NewBookmark(f, e.Raw)
		if err != nil {
			t.Fatal(err)
		}
		if rv, err := BookmarkResourceVersion(f, e.Raw); rv != 7 || err != nil {
			t.Errorf("resourceVersion %d %v", rv, err)
		}
		for _, initial := range []bool{true, false} {
			raw, err := b.At(1234, initial)
			if err != nil {
				t.Fatal(err)
			}
			var got bytes.Buffer
			if _, err := podSchema.NewWriter(f).Event(&got, nil, watch.Bookmark, raw); err != nil {
				t.Fatal(err)
			}
			if want := frame(t, f, watch.Bookmark, empty("1234", initial)); !bytes.Equal(got.Bytes(), want) {
				t.Errorf("initial=%v: got %q, want %q", initial, got.Bytes(), want)
			}
		}
	})
}

func TestUnknownFieldsSurvive(t *testing.T) {
	// A field of a version newer than this build: protobuf number 900.
	raw := append(mustItem(t, Protobuf), 0xa2, 0x38, 3, 'n', 'e', 'w')
	o, err := podSchema.Parse(Protobuf, raw)
	if err != nil {
		t.Fatal(err)
	}
	later, err := o.WithResourceVersion(Protobuf, 99)
	if err != nil || !bytes.HasSuffix(later, raw[len(raw)-6:]) {
		t.Errorf("lost an unknown field: %q (%v)", later, err)
	}
}

func mustItem(t testing.TB, f Format) []byte {
	t.Helper()
	o, err := podSchema.ReadObject(f, encode(t, f, pod("a")))
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Clone(o.Raw)
}

func TestErrorEventsKeepTheirStatus(t *testing.T) {
	bothFormats(t, func(t *testing.T, f Format) {
		status := &metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Code: 410, Reason: "Expired"}
		want := frame(t, f, watch.Error, status)
		got := ErrorEvent(f, bytes.TrimRight(encode(t, f, status), "\n"))
		if !bytes.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		e, err := podSchema.NewFrameReader(f, bytes.NewReader(want)).Next()
		if err != nil || e.Type != watch.Error {
			t.Fatalf("%v %v", e, err)
		}
		if back, _, err := serializer(f).Decode(e.Raw, nil, &metav1.Status{}); err != nil || back.(*metav1.Status).Code != 410 {
			t.Errorf("status %v %v", back, err)
		}
	})
}

func TestCustomListsAreWrittenSorted(t *testing.T) {
	s := &Schema{Resource: schema.GroupVersionResource{Group: "example.org", Version: "v1", Resource: "cars"}, Kind: "Car", ListKind: "CarList", Custom: true}
	list := &unstructured.UnstructuredList{Object: map[string]any{"kind": "CarList", "apiVersion": "example.org/v1",
		"metadata": map[string]any{"resourceVersion": "9", "continue": ""}}}
	car := unstructured.Unstructured{Object: map[string]any{"kind": "Car", "apiVersion": "example.org/v1",
		"metadata": map[string]any{"name": "a", "namespace": "shop", "resourceVersion": "3"}, "spec": map[string]any{"color": "red"}}}
	list.Items = []unstructured.Unstructured{car, car}
	want := encode(t, JSON, list)
	items, meta := readList(t, s, JSON, want)
	var got bytes.Buffer
	if err := s.NewWriter(JSON).List(&got, meta, items); err != nil || !bytes.Equal(got.Bytes(), want) {
		t.Errorf("got  %q\nwant %q (%v)", got.Bytes(), want, err)
	}
}

func TestCutListsAreErrors(t *testing.T) {
	bothFormats(t, func(t *testing.T, f Format) {
		list := &corev1.PodList{TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}, Items: []corev1.Pod{*pod("a"), *pod("b")}}
		whole := bytes.TrimRight(encode(t, f, list), "\n")
		// The last four bytes of protobuf are two empty fields: without them
		// the list is as whole as with them.
		last := len(whole) - 1
		if f == Protobuf {
			last = len(whole) - len(unknownTail) - 1
		}
		for cut := range last {
			_, err := podSchema.ReadList(f, bytes.NewReader(whole[:cut]), func(*Object) error { return nil })
			if err == nil && !(f == Protobuf && cut < 20) {
				t.Fatalf("cut at %d of %d went unnoticed", cut, len(whole))
			}
		}
	})
}

func TestResourceVersionsAreDecimal(t *testing.T) {
	for v, ok := range map[string]bool{"0": true, "1": true, "18446744073709551615": false, "": false, "-1": false, "1x": false, "999999999999999999999": false, "1152921504606846975": true} {
		if _, err := ParseResourceVersion(v); (err == nil) != ok {
			t.Errorf("%q: %v", v, err)
		}
	}
}

func TestLargeObjectsAreRefused(t *testing.T) {
	if _, err := podSchema.Parse(JSON, []byte(`{"metadata":{"name":"a","resourceVersion":"1"},"x":"`+strings.Repeat("x", MaxObject)+`"}`)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("got %v", err)
	}
	huge := []byte{0xff, 0xff, 0xff, 0xff}
	if _, err := podSchema.NewFrameReader(Protobuf, bytes.NewReader(huge)).Next(); !errors.Is(err, ErrTooLarge) {
		t.Errorf("got %v", err)
	}
}

func TestOnlyObjectsTellWhatWasWritten(t *testing.T) {
	for body, want := range map[string]uint64{
		`{"kind":"Pod","metadata":{"resourceVersion":"7"}}`:                7,
		`{"kind":"Status","metadata":{},"status":"Success"}`:               0,
		`{"kind":"PodList","metadata":{"resourceVersion":"7"},"items":[]}`: 0,
		`{"kind":"Table","metadata":{"resourceVersion":"7"},"rows":[]}`:    0,
		`not JSON`: 0,
	} {
		if got := ResponseVersion([]byte(body)); got != want {
			t.Errorf("%s tells of %d, want %d", body, got, want)
		}
	}
}
