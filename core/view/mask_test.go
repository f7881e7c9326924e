package view_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/portico-proxy/portico/core/view"
)

func TestMasksTakeOutFieldsAndWhatTellsOfThem(t *testing.T) {
	const pod = `{"metadata":{"name":"web","resourceVersion":"7","managedFields":[{"f":"secret"}],"annotations":{"a/b":"secret","c":"d","kubectl.kubernetes.io/last-applied-configuration":"secret"}},` +
		`"spec":{"containers":[{"name":"a","env":[{"value":"secret"}]},{"name":"b"},{"env":[]}],"nodeName":"n1"}}`
	for name, tt := range map[string]struct {
		mask view.Mask
		want string
	}{
		"none": {nil, pod},
		"elements": {
			view.Mask{"/spec/containers/*/env", "/metadata/annotations/a~1b", "/status"},
			`{"metadata":{"name":"web","resourceVersion":"7","annotations":{"c":"d"}},"spec":{"containers":[{"name":"a"},{"name":"b"},{}],"nodeName":"n1"}}`,
		},
		"all-elements":  {view.Mask{"/spec/containers/*", "/metadata/annotations"}, `{"metadata":{"name":"web","resourceVersion":"7"},"spec":{"containers":[],"nodeName":"n1"}}`},
		"all-members":   {view.Mask{"/metadata/annotations/*", "/spec/*"}, `{"metadata":{"name":"web","resourceVersion":"7","annotations":{}},"spec":{}}`},
		"star-and-star": {view.Mask{"/*/annotations/*", "/spec"}, `{"metadata":{"name":"web","resourceVersion":"7","annotations":{}}}`},
	} {
		got, err := tt.mask.Apply([]byte(pod))
		if err != nil || string(got) != tt.want {
			t.Errorf("%s: %v\n got %s\nwant %s", name, err, got, tt.want)
		}
		if len(tt.mask) > 0 && strings.Contains(string(got), "secret") {
			t.Errorf("%s: the value is still there", name)
		}
	}
}

func TestMasksLeaveWhatClientsNeed(t *testing.T) {
	for path, good := range map[string]bool{
		"/data": true, "/metadata/labels/a": true, "/spec/containers/*/env": true,
		"": false, "/": false, "data": false, "/a//b": false,
		"/metadata": false, "/metadata/uid": false, "/*/name": false, "/*": false, "/metadata/*": false, "/kind": false,
	} {
		if err := view.CheckMask(path); (err == nil) != good {
			t.Errorf("%q: %v", path, err)
		}
	}
}

func TestMasksKnowWhatTheyCover(t *testing.T) {
	m := view.Mask{"/spec/containers/*/env", "/data"}
	for pointer, want := range map[string]bool{
		"/data": true, "/data/a": true, "/spec": true, "/spec/containers/0/env/1": true, "/spec/containers/0/name": false, "/metadata": false, "/spec/nodeName": false,
	} {
		if got := m.Covers(pointer); got != want {
			t.Errorf("%s: %v", pointer, got)
		}
	}
}

func TestOnlyMetadataIsLeft(t *testing.T) {
	got, err := view.MetadataOnly([]byte(`{"kind":"Secret","data":{"*":"x","a/b":"x"},"*":1,"metadata":{"name":"n","managedFields":[{"f:data":1}]},"type":"Opaque"}`))
	if want := `{"kind":"Secret","metadata":{"name":"n"}}`; err != nil || string(got) != want {
		t.Errorf("got %s, %v", got, err)
	}
}

func TestMembersMayBeCalledStar(t *testing.T) {
	got, err := view.Mask{"/spec/*/*", "/*/x"}.Apply([]byte(`{"*":{"*":1,"x":2},"spec":{"*":{"*":{"*":1},"b":2}}}`))
	if want := `{"*":{"*":1},"spec":{"*":{}}}`; err != nil || string(got) != want {
		t.Errorf("got %s, %v", got, err)
	}
}

// What a mask has taken out must not be gone through again for the next member: of
// an object as large as one can be that would take hours.
func TestMasksOfManyMembersAreAppliedAtOnce(t *testing.T) {
	data := bytes.NewBufferString(`{"data":{"m":0`)
	for i := 0; data.Len() < 3<<20; i++ {
		fmt.Fprintf(data, `,"m%d":0`, i)
	}
	data.WriteString("}}")
	got, err := view.Mask{"/data/*", "/data/*/*"}.Apply(data.Bytes())
	if want := `{"data":{}}`; err != nil || string(got) != want {
		t.Errorf("%v: %d bytes are left", err, len(got))
	}
}
