package view

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/portico-proxy/portico/core/view"
	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
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
			over("", "/a"), `{"metadata":{"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"{\"apiVersion\":\"v1\",\"a\":1}\n"}}}`, `{"metadata":{"annotations":{}}}`,
		},
		"last-applied-unread": {
			over("", "/a"), `{"metadata":{"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"{\"a"}}}`, `{"metadata":{"annotations":{}}}`,
		},
		"last-applied-innocent": {
			over("", "/a"), `{"metadata":{"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"{\"apiVersion\":\"v1\",\"b\":1}\n"}}}`,
			`{"metadata":{"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"{\"apiVersion\":\"v1\",\"b\":1}\n"}}}`,
		},
		"last-applied-of-what-is-called-otherwise": {
			over("", "/a"), `{"a":2,"metadata":{"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"{\"apiVersion\":\"v1\",\"b\":1}\n"}}}`, `{"metadata":{"annotations":{}}}`,
		},
		"last-applied-in-another-version": {
			over("", "/a"), `{"metadata":{"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"{\"apiVersion\":\"v2\",\"b\":1}\n"}}}`, `{"metadata":{"annotations":{}}}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, changed, err := tt.mask.applyToObject([]byte(tt.from), schema.GroupVersion{Version: "v1"})
			if err != nil || string(got) != tt.to || changed != (tt.from != tt.to) {
				t.Errorf("got %s, %v, %v\nwant %s", got, changed, err, tt.to)
			}
		})
	}
	if _, _, err := over("", "/a").applyToObject([]byte(`{"a":1`), schema.GroupVersion{}); err == nil {
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
			got, err := tt.mask.restore(view.Object{JSON: []byte(pod)}, sent)
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
		`[{"op":"test","path":"/data/a","value":"x"}]`:                                                                                      true,
		`[{"op":"copy","from":"/data/a","path":"/metadata/labels/x"}]`:                                                                      true,
		`[{"op":"test","path":"/spec/containers/0","value":{}}]`:                                                                            true,
		`[{"op":"replace","path":"","value":{}}]`:                                                                                           true,
		`[{"op":"add","path":"/metadata/annotations/a~1b","value":"x"}]`:                                                                    true,
		`[{"op":"add","path":"/metadata/annotations/c","value":"x"}]`:                                                                       false,
		`[{"op":"replace","path":"/spec/containers/0/image","value":"x"}]`:                                                                  false,
		`[{"op":"copy","from":"/metadata/annotations/kubectl.kubernetes.io~1last-applied-configuration","path":"/metadata/annotations/x"}]`: true,
		`[{"op":"move","from":"/metadata/annotations","path":"/metadata/labels"}]`:                                                          true,
		`[{"op":"copy","from":"/metadata/managedFields/0","path":"/metadata/annotations/x"}]`:                                               true,
		`[{"op":"copy","from":"","path":"/spec/x"}]`:                                                                                        true,
		`[{"op":"test","path":"/metadata","value":{}}]`:                                                                                     true,
		`[{"op":"test","path":"/metadata/managedFields/0/fieldsV1/f:data/f:password","value":{}}]`:                                          true,
		`[{"op":"remove","path":"/metadata/managedFields/0/fieldsV1/f:data/f:password"}]`:                                                   true,
		`[{"op":"add","path":"/metadata/managedFields/0/fieldsV1/f:data/f:password/x","value":{}}]`:                                         true,
		`[{"op":"test","path":"/metadata/labels/x","value":"y"}]`:                                                                           false,
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

// TestSecretsAreHiddenByWhateverNameTheyAreWritten has one that kubectl applied with
// stringData, and somebody who does not see what is in it.
func TestSecretsAreHiddenByWhateverNameTheyAreWritten(t *testing.T) {
	text := "***"
	for _, tt := range []struct{ path, note, sent string }{
		{"/data/*", `{"password":"MARKER"}`, `{"password":"mine"}`},
		{"/data/password", `{"password":"MARKER"}`, `{"password":"***"}`},
		{"/data", `{"password":"MARKER"}`, `{"password":"mine"}`},
	} {
		l, err := newLens(&v1alpha1.VirtualView{Spec: v1alpha1.VirtualViewSpec{Masks: []v1alpha1.ViewMask{{
			Resources: []v1alpha1.ViewResource{{Resource: "*"}}, Paths: []string{tt.path}, Replacement: &text,
		}}}}, "")
		if err != nil {
			t.Fatal(err)
		}
		note, _ := json.Marshal(`{"apiVersion":"v1","kind":"Secret","stringData":` + tt.note + "}\n")
		o := view.Object{Resource: corev1.SchemeGroupVersion.WithResource("secrets"), Namespace: "n", Name: "s"}
		for _, data := range []string{`,"data":{"password":"TUFSS0VS"}`, ``} {
			o.JSON = []byte(`{"metadata":{"name":"s","annotations":{"` + corev1.LastAppliedConfigAnnotation + `":` + string(note) + `}}` + data + `}`)
			if seen, err := l.See(t.Context(), o); err != nil || strings.Contains(string(seen), "MARKER") || strings.Contains(string(seen), "TUFSS0VS") {
				t.Errorf("%s: %s, %v", tt.path, seen, err)
			}
			back := strings.ReplaceAll(data, "TUFSS0VS", text)
			sent, _ := decode([]byte(`{"metadata":{"name":"s"}` + back + `,"stringData":` + tt.sent + `}`))
			if merged, err := l.masksOf(secretResource).restore(o, sent); err == nil {
				t.Errorf("%s: it became %v", tt.path, merged)
			}
			delete(sent, "data")
			p := patch{object: sent}
			if !p.touches(l.masksOf(secretResource)) {
				t.Errorf("%s: a patch would be made", tt.path)
			}
		}
	}
}
