package document_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	kjson "sigs.k8s.io/json"

	"github.com/portico-proxy/portico/core/document"
)

// FuzzDocument finds and changes values, and has encoding/json see the same.
func FuzzDocument(f *testing.F) {
	f.Add([]byte(`{"a":{"b/c":[1,"x"]},"d":null}`), "/a/b~1c/1", []byte(`{"e":1}`))
	f.Add([]byte(` [ {"\u0061":"\"]"} , -1.5e3 ] `), "/0/a", []byte(`"y"`))
	f.Add([]byte(`{"m":null}`), "/m/l/k", []byte(`[]`))
	f.Fuzz(func(t *testing.T, b []byte, pointer string, value []byte) {
		var at, with any
		strict, err := kjson.UnmarshalStrict(b, &at)
		if err != nil || len(strict) > 0 || !json.Valid(b) || json.Unmarshal(value, &with) != nil || !json.Valid([]byte(strconv.Quote(pointer))) {
			return // documents are valid, and name nothing twice
		}
		at = decoded(t, b)
		want, there := look(at, pointer)
		got, err := document.Get(b, pointer)
		if (err == nil) != there {
			t.Fatalf("%q of %s is there: %v; got %v", pointer, b, there, err)
		}
		if there {
			compareJSON(t, got, want)
			compareChildren(t, b, pointer, want)
		}
		compareSet(t, b, pointer, value)
		compareRemove(t, b, pointer)
	})
}

func decoded(t *testing.T, b []byte) any {
	t.Helper()
	var v any
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatalf("%q: %v", b, err)
	}
	return v
}

func compareJSON(t *testing.T, got []byte, want any) {
	t.Helper()
	if diff := cmp.Diff(want, decoded(t, got)); diff != "" {
		t.Fatalf("(-want +got):\n%s", diff)
	}
}

// look follows an RFC 6901 pointer through decoded JSON.
func look(at any, pointer string) (any, bool) {
	if pointer == "" {
		return at, true
	}
	if pointer[0] != '/' {
		return nil, false
	}
	for token := range strings.SplitSeq(pointer[1:], "/") {
		switch v := at.(type) {
		case map[string]any:
			next, ok := v[document.Name(token)]
			if !ok {
				return nil, false
			}
			at = next
		case []any:
			n, err := strconv.Atoi(token)
			if err != nil || n < 0 || n >= len(v) || strconv.Itoa(n) != token {
				return nil, false
			}
			at = v[n]
		default:
			return nil, false
		}
	}
	return at, true
}

func compareChildren(t *testing.T, b []byte, pointer string, want any) {
	t.Helper()
	n := 0
	switch v := want.(type) {
	case map[string]any:
		n = len(v)
	case []any:
		n = len(v)
	}
	children := document.Children(b, pointer)
	if len(children) != n {
		t.Fatalf("%q of %s has the children %q, which are not %d", pointer, b, children, n)
	}
	for _, child := range children {
		if _, err := document.Get(b, child); err != nil {
			t.Fatalf("%q of %s: %v", child, b, err)
		}
	}
}

func compareSet(t *testing.T, b []byte, pointer string, value []byte) {
	t.Helper()
	original := bytes.Clone(b)
	changed, err := document.Set(b, pointer, value)
	if !bytes.Equal(b, original) {
		t.Fatalf("%q became %q", original, b)
	}
	if err != nil {
		return
	}
	got, err := document.Get(changed, pointer)
	if err != nil {
		t.Fatalf("%s was set at %q of %s, which is %s now: %v", value, pointer, b, changed, err)
	}
	compareJSON(t, got, decoded(t, value))
	back := changed
	if _, err := document.Get(b, pointer); errors.Is(err, document.ErrNotThere) {
		if back, err = document.Remove(changed, pointer); err != nil {
			t.Fatal(err)
		}
		if parent := pointer[:strings.LastIndexByte(pointer, '/')]; isMap(decoded(t, b), parent) {
			compareJSON(t, back, decoded(t, b))
		}
	}
	compareJSON(t, back, decoded(t, back))
}

func isMap(at any, pointer string) bool {
	v, ok := look(at, pointer)
	_, is := v.(map[string]any)
	return ok && is
}

func compareRemove(t *testing.T, b []byte, pointer string) {
	t.Helper()
	left, err := document.Remove(b, pointer)
	if err != nil {
		return
	}
	parent, token := pointer[:strings.LastIndexByte(pointer, '/')], pointer[strings.LastIndexByte(pointer, '/')+1:]
	was, _ := look(decoded(t, b), parent)
	is, ok := look(decoded(t, left), parent)
	if !ok {
		t.Fatalf("%q of %s was removed, and %s is left", pointer, b, left)
	}
	switch v := was.(type) {
	case map[string]any:
		delete(v, document.Name(token))
	case []any:
		n, _ := strconv.Atoi(token)
		was = slices.Delete(v, n, n+1)
	}
	if diff := cmp.Diff(was, is); diff != "" {
		t.Fatalf("%q of %s was removed (-want +got):\n%s", pointer, b, diff)
	}
}

// FuzzEdit takes every second member out, at each level.
func FuzzEdit(f *testing.F) {
	f.Add([]byte(`{"a":1,"b":[2,3,{"c":4}],"d":{}}`))
	f.Add([]byte(` [ 1 , [ ] , "]" ] `))
	f.Fuzz(func(t *testing.T, b []byte) {
		var v any
		if strict, err := kjson.UnmarshalStrict(b, &v); !json.Valid(b) || err != nil || len(strict) > 0 {
			return
		}
		n := 0
		left, err := document.Edit(b, func(_, value []byte) ([]byte, error) {
			if n++; n%2 == 0 {
				return nil, nil
			}
			return document.Edit(value, func(_, _ []byte) ([]byte, error) { return nil, nil })
		})
		if err != nil {
			t.Fatalf("%s: %v", b, err)
		}
		switch got := decoded(t, left).(type) {
		case map[string]any:
			n = max(n, 0) - len(got)*2
		case []any:
			n = max(n, 0) - len(got)*2
		}
		if n != 0 && n != -1 {
			t.Fatalf("%s is left of %s", left, b)
		}
	})
}
