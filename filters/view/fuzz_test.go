package view

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/portico-proxy/portico/core/body"
	"github.com/portico-proxy/portico/core/view"
)

// FuzzMask hides fields of any JSON: nothing of them is left, and all else is.
func FuzzMask(f *testing.F) {
	f.Add([]byte(`{"data":{"a":"b"},"c":[{"env":[1]},{"env":2,"x":{}}]}`), "/c/*/env", "/data")
	f.Add([]byte(`{"metadata":{"annotations":{"a/b~":"1"},"managedFields":[{}]}}`), "/metadata/annotations/a~1b~0", "/x")
	f.Fuzz(func(t *testing.T, raw []byte, one, other string) {
		if !json.Valid(raw) || !body.Unambiguous(raw) || !strings.HasPrefix(one, "/") || !strings.HasPrefix(other, "/") {
			return
		}
		m := over("", one, other)
		seen, changed, err := m.apply(bytes.TrimSpace(raw))
		if err != nil {
			t.Fatalf("%s: %v", raw, err)
		}
		var was, is any
		if err := errors.Join(json.Unmarshal(raw, &was), json.Unmarshal(seen, &is)); err != nil {
			t.Fatalf("%s became %s: %v", raw, seen, err)
		}
		for _, pointer := range []string{one, other} {
			was = without(was, partsOf(pointer))
		}
		if diff := cmp.Diff(was, is); diff != "" {
			t.Fatalf("%s without %q and %q is %s (-want +got):\n%s", raw, one, other, seen, diff)
		}
		if changed == bytes.Equal(seen, bytes.TrimSpace(raw)) {
			t.Fatalf("%s became %s, and is said to have changed: %v", raw, seen, changed)
		}
	})
}

// without is decoded JSON without a field.
func without(v any, parts []string) any {
	switch v := v.(type) {
	case map[string]any:
		for name, member := range v {
			switch {
			case parts[0] != anyPart && parts[0] != name:
			case len(parts) == 1:
				delete(v, name)
			default:
				v[name] = without(member, parts[1:])
			}
		}
	case []any:
		left := []any{}
		for _, element := range v {
			switch {
			case parts[0] != anyPart && parts[0] != anyElement:
				left = append(left, element)
			case len(parts) > 1:
				left = append(left, without(element, parts[1:]))
			}
		}
		return left
	}
	return v
}

// FuzzMerge has a caller who sees part of an object send it back changed: what is
// hidden must be as it was, and what he sees as he wants it.
func FuzzMerge(f *testing.F) {
	f.Add([]byte(`{"a":{"b":1,"h":2},"l":[{"name":"x","h":3}]}`), []byte(`{"a":{"b":2},"l":[{"name":"x"},{"name":"y"}]}`), "/a/h")
	f.Add([]byte(`{"l":[{"name":"x","h":3}],"h":{}}`), []byte(`{"l":[]}`), "/l/*/h")
	f.Fuzz(func(t *testing.T, full, sent []byte, pointer string) {
		if !json.Valid(full) || !json.Valid(sent) || !body.Unambiguous(full) || !body.Unambiguous(sent) || !strings.HasPrefix(pointer, "/") || strings.HasPrefix(pointer, "/metadata") {
			return
		}
		wants, err := decode(sent)
		if err != nil {
			return
		}
		if _, err := decode(full); err != nil {
			return
		}
		m := over("", pointer)
		merged, err := m.restore(view.Object{JSON: full}, wants)
		if err != nil {
			return // it is refused
		}
		after, err := json.Marshal(merged)
		if err != nil {
			t.Fatal(err)
		}
		sees, _, err := m.applyToObject(after, schema.GroupVersion{})
		if err != nil {
			t.Fatal(err)
		}
		compareSeen(t, sees, sent)
		compareHidden(t, m, full, after)
	})
}

// compareSeen is content if what is seen is what was sent, empty or not there.
func compareSeen(t *testing.T, sees, sent []byte) {
	t.Helper()
	got, want := plain(t, sees), plain(t, sent)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("%s was sent, and %s is seen (-sent +seen):\n%s", sent, sees, diff)
	}
}

// compareHidden counts the hidden values that are there after the change and were
// not before.
func compareHidden(t *testing.T, m masks, full, after []byte) {
	t.Helper()
	before := hiddenOf(t, m, full)
	for value := range hiddenOf(t, m, after) {
		if !before[value] {
			t.Fatalf("%s became %s: %s is hidden and was not there", full, after, value)
		}
	}
}

// hiddenOf are the values that are hidden of an object.
func hiddenOf(t *testing.T, m masks, raw []byte) map[string]bool {
	t.Helper()
	all := map[string]bool{}
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	var walk func(v any, s masks)
	walk = func(v any, s masks) {
		if hidden, _ := s.hide(); hidden {
			text, _ := json.Marshal(v)
			all[string(text)] = true
			return
		}
		switch v := v.(type) {
		case map[string]any:
			for name, member := range v {
				walk(member, s.of(name))
			}
		case []any:
			for _, element := range v {
				walk(element, s.of(anyElement))
			}
		}
	}
	walk(v, m)
	return all
}

// plain is decoded JSON without what is empty, which clients may leave out, and
// without who manages what.
func plain(t *testing.T, raw []byte) any {
	t.Helper()
	o, err := decode(raw)
	if err != nil {
		t.Fatal(err)
	}
	dropManagers(o)
	var trim func(v any) any
	trim = func(v any) any {
		if isEmpty(v) {
			return nil
		}
		switch v := v.(type) {
		case map[string]any:
			for name := range v {
				if isEmpty(v[name]) {
					delete(v, name)
				} else {
					v[name] = trim(v[name])
				}
			}
		case []any:
			for i := range v {
				v[i] = trim(v[i])
			}
		}
		return v
	}
	return trim(o)
}
