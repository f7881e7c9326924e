package document

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
)

const found = ` {"kind":"Pod","metadata":{"name":"web","labels":{"a/b":"1","q\"~":"x","":"none"},"annotations":{}},
 "spec":{"containers":[{"name":"a","ports":[{"port":1},{"port":2}]},{"name":"b"}],"hostNetwork":true},"specs":1}`

// pointersOf are those to all values at and below one, and some to nothing.
func pointersOf(b []byte, pointer string) []string {
	all := []string{pointer, pointer + "/none", pointer + "/none/at/all", pointer + "x", pointer + "/0"}
	for _, child := range Children(b, pointer) {
		all = append(all, pointersOf(b, child)...)
	}
	return all
}

func TestFinderFindsWhatGetDoes(t *testing.T) {
	b := []byte(found)
	pointers := append(pointersOf(b, ""), "/"+strings.Repeat("x", 60)+"/y", "kind")
	var f Finder
	for range 20000 {
		pointer := pointers[rand.IntN(len(pointers))]
		want, wantErr := Get(b, pointer)
		got, err := f.Get(b, pointer)
		if string(got) != string(want) || !errors.Is(err, wantErr) {
			t.Fatalf("%q: got %s, %v; want %s, %v", pointer, got, err, want, wantErr)
		}
		if rand.IntN(10) == 0 {
			f.Forget()
		}
	}
	for _, of := range []string{`{"a":{"b":1}}`, `{"a":{"b":2}}`, `{"x":1,"a":{"b":3}}`} {
		if got, err := f.Get([]byte(of), "/a/b"); err != nil || !strings.Contains(of, `"b":`+string(got)) {
			t.Errorf("of another document: got %s, %v", got, err)
		}
	}
}
