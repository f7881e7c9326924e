package cache

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metainternalversionscheme "k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/portico-proxy/portico/core/cache/wire"
)

// ask parses a query of pods as a verb's.
func ask(t *testing.T, verb, query string) (*question, bool) {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api/v1/namespaces/shop/pods", nil)
	r.URL.RawQuery = query
	info := &request.RequestInfo{IsResourceRequest: true, Verb: verb, APIVersion: "v1", Resource: "pods", Namespace: "shop"}
	return parse(r.WithContext(request.WithRequestInfo(r.Context(), info)))
}

// FuzzOptions has every query that the cache takes be one that the API server takes,
// and mean the same to both.
func FuzzOptions(f *testing.F) {
	for _, query := range []string{
		"limit=5&resourceVersion=7&resourceVersionMatch=Exact", "continue=abc&limit=1", "timeoutSeconds=9&allowWatchBookmarks=true&watch=1",
		"sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion=", "labelSelector=a+in+(b,c),!d&fieldSelector=spec.nodeName%3Dn", "timeout=1&limit=-1",
	} {
		f.Add(true, query)
		f.Add(false, query)
	}
	f.Fuzz(func(t *testing.T, watches bool, query string) {
		verb := "list"
		if watches {
			verb = "watch"
		}
		q, ok := ask(t, verb, query)
		if !ok {
			return
		}
		want, err := optionsOf(query, watches)
		if err != nil {
			t.Fatalf("%s of %q is taken here, and there it is said: %v", verb, query, err)
		}
		got := internalversion.ListOptions{
			LabelSelector: q.labels, FieldSelector: q.fields, Continue: q.token, Limit: q.limit,
			ResourceVersion: q.resourceVersion, ResourceVersionMatch: q.match, AllowWatchBookmarks: q.bookmarks,
		}
		compareOptions(t, query, got, *want)
		if watches {
			compareWatch(t, query, q, want)
		}
	})
}

// optionsOf reads a query as the API server does (handlers.ListResource in k8s.io/apiserver).
func optionsOf(query string, watches bool) (*internalversion.ListOptions, error) {
	values, err := url.ParseQuery(query)
	if err != nil {
		return nil, err
	}
	options := &internalversion.ListOptions{}
	if err := metainternalversionscheme.ParameterCodec.DecodeParameters(values, metav1.SchemeGroupVersion, options); err != nil {
		return nil, err
	}
	options.Watch = options.Watch || watches
	internalversion.SetListOptionsDefaults(options, true)
	return options, validation.ValidateListOptions(options, true).ToAggregate()
}

func compareOptions(t *testing.T, query string, got, want internalversion.ListOptions) {
	t.Helper()
	if got.Continue != want.Continue || got.Limit != want.Limit || got.ResourceVersion != want.ResourceVersion || got.AllowWatchBookmarks != want.AllowWatchBookmarks {
		t.Fatalf("%q is read as %+v, and there as %+v", query, got, want)
	}
	if want.SendInitialEvents == nil && got.ResourceVersionMatch != want.ResourceVersionMatch {
		t.Fatalf("%q matches %q, and there %q", query, got.ResourceVersionMatch, want.ResourceVersionMatch)
	}
	if want.LabelSelector != nil && got.LabelSelector.String() != want.LabelSelector.String() || want.LabelSelector == nil && !got.LabelSelector.Empty() {
		t.Fatalf("labels of %q: %q, and there %v", query, got.LabelSelector, want.LabelSelector)
	}
	if want.FieldSelector != nil && got.FieldSelector.String() != want.FieldSelector.String() || want.FieldSelector == nil && !got.FieldSelector.Empty() {
		t.Fatalf("fields of %q: %q, and there %v", query, got.FieldSelector, want.FieldSelector)
	}
}

func compareWatch(t *testing.T, query string, q *question, want *internalversion.ListOptions) {
	t.Helper()
	initial := want.SendInitialEvents != nil && *want.SendInitialEvents
	legacy := want.SendInitialEvents == nil && (want.ResourceVersion == "" || want.ResourceVersion == "0")
	if q.initial != (initial || legacy) {
		t.Fatalf("%q begins with the state: %v; want %v", query, q.initial, initial || legacy)
	}
	timeout := time.Duration(0)
	if want.TimeoutSeconds != nil {
		timeout = time.Duration(*want.TimeoutSeconds) * time.Second
	}
	if timeout > 0 && q.timeout != timeout || timeout == 0 && (q.timeout < minWatchTimeout || q.timeout > 2*minWatchTimeout) {
		t.Fatalf("%q lasts %v; want %v", query, q.timeout, timeout)
	}
}

// FuzzContinue reads tokens as etcd's side of the API server does, and has it read ours.
func FuzzContinue(f *testing.F) {
	f.Add("shop", "shop/a", uint64(5), "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6NSwic3RhcnQiOiJhXHUwMDAwIn0")
	f.Add("", "shop/a", uint64(1), "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6LTEsInN0YXJ0IjoiLi4vYSJ9")
	f.Fuzz(func(t *testing.T, namespace, key string, rv uint64, token string) {
		if rv = rv>>4 + 1; strings.ToValidUTF8(namespace+key, "") != namespace+key || strings.Contains(namespace, "/") || namespace != "" && !strings.HasPrefix(key, namespace+"/") {
			return // keys are names
		}
		prefix := "/registry/pods/" + namespace
		if namespace != "" {
			prefix += "/"
		}
		q := &question{namespace: namespace, token: token}
		compareToken(t, q, prefix)
		q.token = q.continueAfter(key, rv)
		compareToken(t, q, prefix)
		if from, at, ok := q.place(); ok && (from != key+"\x00" || at != rv) {
			t.Fatalf("behind %q at %d is read as %q at %d", key, rv, from, at)
		}
	})
}

func compareToken(t *testing.T, q *question, prefix string) {
	t.Helper()
	from, rv, ok := q.place()
	there, at, err := storage.DecodeContinue(q.token, prefix)
	if ok != (err == nil && at > 0) {
		t.Fatalf("%q is taken: %v; there %d, %v", q.token, ok, at, err)
	}
	if ok && (uint64(at) != rv || there != "/registry/pods/"+from) {
		t.Fatalf("%q goes on from %q at %d, and there from %q at %d", q.token, from, rv, there, at)
	}
}

// FuzzSelectors selects a pod by its bytes, and by what Kubernetes decodes of them.
func FuzzSelectors(f *testing.F) {
	f.Add("app in (web,db),!old", "spec.nodeName=n,status.phase!=Failed", "app", "web", "n", "Running")
	f.Add("a>5", "metadata.name==p,spec.host=n", "a", "6", "n", "")
	f.Add("", `spec.nodeName=a\,b\=c`, "", "", "a,b=c", "x")
	f.Fuzz(func(t *testing.T, labelSelector, fieldSelector, name, value, node, phase string) {
		q, ok := ask(t, "list", url.Values{"labelSelector": {labelSelector}, "fieldSelector": {fieldSelector}}.Encode())
		schema := wire.Builtin(corev1.SchemeGroupVersion.WithResource("pods"), "Pod", true)
		if !ok || !q.resolve(schema) {
			return
		}
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "shop", ResourceVersion: "1", Labels: map[string]string{name: value}}}
		pod.Kind, pod.APIVersion, pod.Spec.NodeName, pod.Status.Phase = "Pod", "v1", node, corev1.PodPhase(phase)
		for format, media := range map[wire.Format]string{wire.JSON: "application/json", wire.Protobuf: "application/vnd.kubernetes.protobuf"} {
			compareSelection(t, q, schema, pod, format, media)
		}
	})
}

func compareSelection(t *testing.T, q *question, schema *wire.Schema, pod *corev1.Pod, format wire.Format, media string) {
	t.Helper()
	codec := serializerOf(t, media)
	var raw bytes.Buffer
	if err := codec.Encode(pod, &raw); err != nil {
		t.Fatal(err)
	}
	decoded, _, err := codec.Decode(raw.Bytes(), nil, nil)
	if err != nil {
		return // Kubernetes cannot read what it has written
	}
	p := decoded.(*corev1.Pod)
	o, err := schema.ReadObject(format, raw.Bytes())
	if err != nil {
		t.Fatalf("%s: %v", raw.Bytes(), err)
	}
	set := fields.Set{
		"metadata.name": p.Name, "metadata.namespace": p.Namespace, "spec.nodeName": p.Spec.NodeName, "spec.restartPolicy": string(p.Spec.RestartPolicy),
		"spec.schedulerName": p.Spec.SchedulerName, "spec.serviceAccountName": p.Spec.ServiceAccountName, "spec.hostNetwork": strconv.FormatBool(p.Spec.HostNetwork),
		"status.phase": string(p.Status.Phase), "status.podIP": p.Status.PodIP, "status.nominatedNodeName": p.Status.NominatedNodeName,
	}
	want := q.labels.Matches(labels.Set(p.Labels)) && q.fields.Matches(set)
	if got := q.selects(o); got != want {
		t.Fatalf("labels %q and fields %q select %s: %v, want %v", q.labels, q.fields, raw.Bytes(), got, want)
	}
	for _, part := range q.parts() {
		if part.Field != "" && want && set.Get(part.Field) != part.Value {
			t.Fatalf("fields %q are looked for in %s, and %s lies elsewhere", q.fields, part, raw.Bytes())
		}
	}
}

func serializerOf(t *testing.T, media string) runtime.Serializer {
	t.Helper()
	for _, info := range serializer.NewCodecFactory(scheme.Scheme).SupportedMediaTypes() {
		if info.MediaType == media {
			return info.Serializer
		}
	}
	t.Fatalf("nothing writes %s", media)
	return nil
}
