package view

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/google/go-cmp/cmp"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// over is a mask over some fields.
func over(instead string, pointers ...string) masks {
	m := &mask{}
	for _, p := range pointers {
		if instead == "" {
			m.add(partsOf(p), nil)
		} else {
			m.add(partsOf(p), []byte(instead))
		}
	}
	return masks{m}
}

func TestMasksKeepAllOtherBytes(t *testing.T) {
	for name, tt := range map[string]struct {
		mask     masks
		from, to string
	}{
		"members":        {over("", "/data/*"), `{"kind":"Secret","data": {"a":"b", "c":1.50},"type":"x"}`, `{"kind":"Secret","data":{},"type":"x"}`},
		"replaced":       {over(`"no"`, "/data/*"), `{"data":{"b":"1","a":null}}`, `{"data":{"b":"no","a":"no"}}`},
		"below-elements": {over("", "/c/*/env"), `{"c":[{"name":"a","env":[1]},{"name":"b"}]}`, `{"c":[{"name":"a"},{"name":"b"}]}`},
		"elements":       {over("", "/c/*"), `{"c":[1,2],"d":[1]}`, `{"c":[],"d":[1]}`},
		"escaped":        {over("", "/metadata/annotations/a~1b~0"), `{"metadata":{"annotations":{"a/b~":"1","x":"é\u003c"}}}`, `{"metadata":{"annotations":{"x":"é\u003c"}}}`},
		"not-there":      {over("", "/data/*", "/spec/a/b"), `{"spec": {"a":"b"},"data":null}`, `{"spec": {"a":"b"},"data":null}`},
		"first-and-last": {over("", "/a", "/c"), `{"a":1,"b":2,"c":3}`, `{"b":2}`},
		"managers":       {over("", "/a"), `{"metadata":{"managedFields":[{"f:a":{}}],"name":"n"},"a":1}`, `{"metadata":{"name":"n"}}`},
		"no-managers":    {over("", "/a"), `{"metadata":{"managedFields":[{"f:b":{}}]},"b":1}`, `{"metadata":{"managedFields":[{"f:b":{}}]},"b":1}`},
		"last-applied": {
			over("", "/a"), `{"metadata":{"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"{\"a\":1}\n"}}}`, `{"metadata":{"annotations":{}}}`,
		},
		"last-applied-unread": {
			over("", "/a"), `{"metadata":{"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"{\"a"}}}`, `{"metadata":{"annotations":{}}}`,
		},
		"last-applied-innocent": {
			over("", "/a"), `{"metadata":{"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"{\"b\":1}\n"}}}`,
			`{"metadata":{"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"{\"b\":1}\n"}}}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, changed, err := tt.mask.applyToObject([]byte(tt.from))
			if err != nil || string(got) != tt.to || changed != (tt.from != tt.to) {
				t.Errorf("got %s, %v, %v\nwant %s", got, changed, err, tt.to)
			}
		})
	}
	if _, _, err := over("", "/a").applyToObject([]byte(`{"a":1`)); err == nil {
		t.Error("half an object was masked")
	}
}

func TestWhatIsWrittenBackKeepsWhatIsHidden(t *testing.T) {
	const pod = `{"metadata":{"name":"web","labels":{"a":"b"}},"spec":{"containers":[{"name":"one","env":["s1"],"image":"i"},{"name":"two","image":"j"}],"data":{"k":"v"}}}`
	hidden := over("", "/spec/containers/*/env", "/spec/data/*")
	stars := over(`"***"`, "/spec/data/*")
	for name, tt := range map[string]struct {
		mask       masks
		sent, want string // no want is a refusal
	}{
		"round-trip": {
			hidden, `{"metadata":{"name":"web","labels":{"a":"c"}},"spec":{"containers":[{"name":"one","image":"k"},{"name":"two","image":"j"}],"data":{}}}`,
			`{"metadata":{"name":"web","labels":{"a":"c"}},"spec":{"containers":[{"name":"one","env":["s1"],"image":"k"},{"name":"two","image":"j"}],"data":{"k":"v"}}}`,
		},
		"empty-left-out": {
			hidden, `{"metadata":{"name":"web"},"spec":{"containers":[{"name":"one","image":"i"},{"name":"new"}]}}`,
			`{"metadata":{"name":"web"},"spec":{"containers":[{"name":"one","env":["s1"],"image":"i"},{"name":"new"}],"data":{"k":"v"}}}`,
		},
		"moved": {
			hidden, `{"spec":{"containers":[{"name":"two"},{"name":"one"}]}}`,
			`{"spec":{"containers":[{"name":"two"},{"name":"one","env":["s1"]}],"data":{"k":"v"}}}`,
		},
		"container-taken-away":  {hidden, `{"spec":{"containers":[{"name":"two"}]}}`, ``},
		"hidden-field-set":      {hidden, `{"spec":{"containers":[{"name":"one","env":["s2"]},{"name":"two"}]}}`, ``},
		"hidden-field-guessed":  {hidden, `{"spec":{"containers":[{"name":"one","env":["s1"]},{"name":"two"}]}}`, ``},
		"hidden-field-added":    {hidden, `{"spec":{"containers":[{"name":"one"},{"name":"two"}],"data":{"new":"x"}}}`, ``},
		"unnamed-elements":      {hidden, `{"spec":{"containers":[{},{}]}}`, ``},
		"spec-taken-away":       {hidden, `{"metadata":{"name":"web"}}`, ``},
		"text-in-place":         {stars, `{"spec":{"data":{"k":"***"}}}`, `{"spec":{"data":{"k":"v"}}}`},
		"text-in-place-changed": {stars, `{"spec":{"data":{"k":"x"}}}`, ``},
		"text-taken-away":       {stars, `{"spec":{"data":{}}}`, ``},
		"nothing-hidden":        {over("", "/status"), `{"a":1}`, `{"a":1}`},
	} {
		t.Run(name, func(t *testing.T) {
			sent, err := decode([]byte(tt.sent))
			if err != nil {
				t.Fatal(err)
			}
			got, err := tt.mask.restore([]byte(pod), sent)
			if tt.want == "" {
				if _, refused := errors.AsType[errHidden](err); !refused {
					t.Errorf("got %v, %v", got, err)
				}
				return
			}
			want, _ := decode([]byte(tt.want))
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				t.Errorf("%v\n%s", err, diff)
			}
		})
	}
}

func TestPatchesOfWhatIsHiddenAreRefused(t *testing.T) {
	all := over("", "/data/*", "/spec/containers/*/env", "/metadata/annotations/a~1b")
	for text, want := range map[string]bool{
		`[{"op":"test","path":"/data/a","value":"x"}]`:                     true,
		`[{"op":"copy","from":"/data/a","path":"/metadata/labels/x"}]`:     true,
		`[{"op":"test","path":"/spec/containers/0","value":{}}]`:           true,
		`[{"op":"replace","path":"","value":{}}]`:                          true,
		`[{"op":"add","path":"/metadata/annotations/a~1b","value":"x"}]`:   true,
		`[{"op":"add","path":"/metadata/annotations/c","value":"x"}]`:      false,
		`[{"op":"replace","path":"/spec/containers/0/image","value":"x"}]`: false,
		`{"data":{"a":null}}`:                                                                 true,
		`{"spec":{"containers":[{"name":"a","env":[]}]}}`:                                     true,
		`{"spec":{"containers":[{"name":"a","image":"b"}]}}`:                                  false,
		`{"spec":{"$setElementOrder/containers":[{"name":"a"}],"containers":[{"name":"a"}]}}`: false,
		`{"$deleteFromPrimitiveList/data":["x"]}`:                                             true,
		`{"metadata":{"$deleteFromPrimitiveList/finalizers":["x"]}}`:                          false,
		`{"metadata":{"labels":{"x":"y"}}}`:                                                   false,
	} {
		p := patch{}
		if text[0] == '[' {
			if err := json.Unmarshal([]byte(text), &p.operations); err != nil {
				t.Fatal(err)
			}
		} else {
			p.object, _ = decode([]byte(text))
		}
		if got := p.touches(all); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}

// Who applies them would take them for pointers.
func TestPatchesWithoutPointersAreRefused(t *testing.T) {
	for _, text := range []string{
		`[{"op":"copy","from":"x/data/password","path":"/metadata/annotations/z"}]`,
		`[{"op":"remove","path":"x/data/password"}]`,
	} {
		for _, media := range []string{"application/json-patch+json", "application/json-patch+json; x"} {
			r := httptest.NewRequest(http.MethodPatch, "/", nil)
			r.Header.Set("Content-Type", media)
			if _, err := readPatch(r, []byte(text)); !apierrors.IsBadRequest(err) {
				t.Errorf("%s, %s: %v", media, text, err)
			}
		}
	}
}
