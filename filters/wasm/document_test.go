package wasm

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/portico-proxy/portico/plugins/abi"
)

const web = `{ "kind" : "Pod", "metadata":{"name":"web","labels":{"app.kubernetes.io/name":"shop","q\"~":"x\ny"},"deletionGracePeriodSeconds":30},
 "spec":{"hostNetwork":true,"nodeName":null,"containers":[{"name":"a"},{"name":"b"}],"volumes":[]}}`

func TestReadFollowsPointers(t *testing.T) {
	tests := map[string]struct {
		kind abi.Kind
		want string
	}{
		"/kind": {abi.String, "Pod"},
		"/metadata/labels/app.kubernetes.io~1name": {abi.String, "shop"},
		"/metadata/labels/q\"~0":                   {abi.String, "x\ny"},
		"/metadata/deletionGracePeriodSeconds":     {abi.Number, "30"},
		"/spec/hostNetwork":                        {abi.Bool, "true"},
		"/spec/nodeName":                           {abi.Null, ""},
		"/spec/containers/1/name":                  {abi.String, "b"},
		"/spec/containers/0":                       {abi.Object, `{"name":"a"}`},
		"/spec/volumes":                            {abi.Array, "[]"},
		"":                                         {abi.Object, web},
		"/spec/containers/2":                       {abi.Absent, ""},
		"/spec/containers/01":                      {abi.Absent, ""},
		"/spec/containers/-":                       {abi.Absent, ""},
		"/kind/x":                                  {abi.Absent, ""},
		"/Kind":                                    {abi.Absent, ""},
		"kind":                                     {abi.Absent, ""},
		"/metadata/labels/app.kubernetes.io/name": {abi.Absent, ""},
	}
	for pointer, tt := range tests {
		if kind, got := read([]byte(web), pointer); kind != tt.kind || string(got) != tt.want {
			t.Errorf("%q: got %d %q", pointer, kind, got)
		}
	}
}

func TestEditsLeaveTheOriginalAlone(t *testing.T) {
	tests := map[string]struct {
		from, pointer, value, want string // no value removes
	}{
		"replace":          {`{"a":1,"b":2}`, "/a", `"x"`, `{"a":"x","b":2}`},
		"add":              {`{"a":1}`, "/b", `2`, `{"b":2,"a":1}`},
		"add-to-empty":     {`{ }`, "/b", `2`, `{"b":2 }`},
		"add-parents":      {`{"a":1}`, "/m/l/x~1y", `"z"`, `{"m":{"l":{"x/y":"z"}},"a":1}`},
		"parent-is-null":   {`{"m":null}`, "/m/l", `1`, `{"m":{"l":1}}`},
		"element":          {`{"a":[1,2]}`, "/a/1", `3`, `{"a":[1,3]}`},
		"parent-is-string": {`{"a":"b"}`, "/a/c", `1`, ``},
		"no-pointer":       {`{"a":"b"}`, "a", `1`, ``},
		"remove-first":     {`{"a":1 , "b":2}`, "/a", ``, `{"b":2}`},
		"remove-last":      {`{"a":1 , "b":2 }`, "/b", ``, `{"a":1  }`},
		"remove-only":      {`{ "a":1}`, "/a", ``, `{}`},
		"remove-element":   {`[1,2,3]`, "/2", ``, `[1,2]`},
		"remove-nothing":   {`{"a":1}`, "/b", ``, ``},
		"remove-all":       {`{"a":1}`, "", ``, ``},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			from := []byte(tt.from)
			edit := func() ([]byte, error) { return remove(from, tt.pointer) }
			if tt.value != "" {
				edit = func() ([]byte, error) { return set(from, tt.pointer, []byte(tt.value)) }
			}
			got, err := edit()
			if (err != nil) != (tt.want == "") || string(from) != tt.from {
				t.Errorf("got %q, %v; the original is %q", got, err, from)
			}
			if err != nil {
				return
			}
			var have, want any
			if err := json.Unmarshal(got, &have); err != nil {
				t.Fatalf("%v in %s", err, got)
			}
			if err := json.Unmarshal([]byte(tt.want), &want); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, have); diff != "" {
				t.Error(diff)
			}
		})
	}
}
