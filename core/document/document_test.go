package document

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
)

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
			edit := func() ([]byte, error) { return Remove(from, tt.pointer) }
			if tt.value != "" {
				edit = func() ([]byte, error) { return Set(from, tt.pointer, []byte(tt.value)) }
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

func TestChildrenAreAllThatThereAre(t *testing.T) {
	b := []byte(`{"a":[{"b":1}, 2 ,[]],"x/y" : {"q\"~":1, "z":null},"e":{},"f":[],"s":"t"}`)
	for pointer, want := range map[string][]string{
		"":      {"/a", "/x~1y", "/e", "/f", "/s"},
		"/a":    {"/a/0", "/a/1", "/a/2"},
		"/x~1y": {"/x~1y/q\"~0", "/x~1y/z"},
		"/e":    nil, "/f": nil, "/s": nil, "/none": nil, "/a/2": nil,
	} {
		if diff := cmp.Diff(want, Children(b, pointer)); diff != "" {
			t.Errorf("%q: %s", pointer, diff)
		}
	}
}
