package wire

import (
	"bytes"
	"encoding/json"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
)

// What is read must come out again as it went in, and nothing may panic.

func FuzzList(f *testing.F) {
	list := &corev1.PodList{TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}, Items: []corev1.Pod{*pod("a")}}
	f.Add(true, encode(f, Protobuf, list))
	f.Add(false, encode(f, JSON, list))
	f.Add(false, []byte(`{"items":null}`))
	f.Fuzz(func(t *testing.T, proto bool, b []byte) {
		format := formatOf(proto)
		_, _ = podSchema.ReadList(format, bytes.NewReader(b), func(o *Object) error {
			checkObject(t, format, o)
			return nil
		})
	})
}

func FuzzFrames(f *testing.F) {
	f.Add(true, frame(f, Protobuf, watch.Added, pod("a")))
	f.Add(false, frame(f, JSON, watch.Added, pod("a")))
	f.Add(false, []byte("{\"type\":\"ADDED\",\"object\":{\"kind\":\"Pod\",\"apiVersion\":\"v1\",}}\n"))
	f.Fuzz(func(t *testing.T, proto bool, b []byte) {
		format := formatOf(proto)
		r := podSchema.NewFrameReader(format, bytes.NewReader(b))
		for {
			e, err := r.Next()
			if err != nil {
				return
			}
			if o, err := podSchema.Parse(format, e.Raw); err == nil {
				checkObject(t, format, o)
			}
			if mark, err := NewBookmark(format, e.Raw); err == nil {
				_, _ = mark.At(5, mark.HasInitial())
			}
			_, _ = BookmarkResourceVersion(format, e.Raw)
		}
	})
}

func FuzzObject(f *testing.F) {
	f.Add(true, mustItem(f, Protobuf))
	f.Add(false, mustItem(f, JSON))
	f.Add(false, []byte(`{"metadata":{"name":"\"","resourceVersion":"1","labels":{"\u003c":"\\"}},"spec":{"nodeName":null}}`))
	f.Fuzz(func(t *testing.T, proto bool, b []byte) {
		if o, err := podSchema.Parse(formatOf(proto), b); err == nil {
			checkObject(t, formatOf(proto), o)
		}
	})
}

func formatOf(proto bool) Format {
	if proto {
		return Protobuf
	}
	return JSON
}

// checkObject edits o's resourceVersion and reads the result.
func checkObject(t *testing.T, f Format, o *Object) {
	t.Helper()
	if f == JSON && !json.Valid(o.Raw) {
		return // nobody but an API server writes these, by a JSON library
	}
	raw, err := o.WithResourceVersion(f, 77)
	if err != nil {
		t.Fatalf("edit %q: %v", o.Raw, err)
	}
	later, err := podSchema.Parse(f, raw)
	if err != nil || later.ResourceVersion != 77 || later.Key != o.Key || later.UID != o.UID {
		t.Fatalf("edited %q: %+v %v", raw, later, err)
	}
}
