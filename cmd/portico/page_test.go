package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// written writes a file for a test, and returns its path.
func written(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestMistakesInCasesNameTheirLine(t *testing.T) {
	for text, want := range map[string]string{
		"":                                     "it must be a list of cases, and has none",
		"- name: a\n  requst: {user: jane}\n":  "line 2: there is no field requst: did you mean request? There are name, phase, request,",
		"- name: a\n  request:\n    usr: jane": "line 3: there is no field usr: did you mean user? There are user, groups, verb,",
		"- {name: a,\n  want: {refused: {codes: 403}}}":                                     "line 2: there is no field codes: did you mean code?",
		"- name: a\n- name: b\n  Want: {}\n":                                                "line 3: there is no field Want: did you mean want?",
		"- name: a\n  request: [jane]\n":                                                    "line 2: here must be an object",
		"name: a\n":                                                                         "line 1: here must be a list",
		"- name: a\n---\n- name: b\n":                                                       "line 2: there is a second document",
		"- name: a\n  name: b\n":                                                            `"name" already`,
		"- name: a\n  request: {user: [jane]}\n":                                            "user",
		"- name: a\n- name: b\n  phase: view\n":                                             `line 2, case "b": phase must be Restrict or View`,
		"- name: a\n  previous: {}\n":                                                       `line 1, case "a": previous, and dropped and event of what is wanted, are for phase: View`,
		"- name: a\n  phase: View\n":                                                        "give object or previous",
		"- {name: a, phase: View, object: {}, want: {refused: {code: 403}}}":                "neither refuses nor warns",
		"- {name: a, object: {}, want: {fields: {spec: 1}}}":                                `"spec" is no JSON pointer`,
		"- name: a\n  request: &x {user: j}\n- name: b\n  request:\n    <<: *x\n    usr: k": "line 6: there is no field usr: did you mean user?",
		"- name: a\n  object: &x {usr: j}\n- name: b\n  request: {<<: *x}\n":                "line 2: there is no field usr: did you mean user?",
		"- name: a\n  request:\n    <<: [{user: j},\n      {usr: j}]\n":                     "line 4: there is no field usr: did you mean user?",
		"- name: a\n  request: {<<: jane}\n":                                                "line 2: here must be an object",
		"- name: a\n  request: {\"<<\": {user: jane}}\n":                                    "line 2: there is no field <<",
		"- name: a\n  request: &x {<<: *x}\n":                                               "line 2: it would be merged with itself",
		"- name: a\n  request: {headers: &x {<<: [*x]}}\n":                                  "line 2: it would be merged with itself",
		"- name: [a": "yaml: ",
	} {
		path := written(t, "cases.yaml", text)
		_, err := readCases(path)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), path) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
}

func TestCasesMayHoldWhateverObjectsDo(t *testing.T) {
	const text = `- name: a
  request: &jane {user: jane, headers: {X-Any: "1"}}
  object: &web {kind: Pod, requst: [1, {want: ~}]}
  known: {pods: [*web]}
- {name: b, request: *jane, object: null}
`
	cases, err := readCases(written(t, "cases.yaml", text))
	if err != nil || len(cases) != 2 || cases[1].Request.User != "jane" || cases[1].Object != nil {
		t.Fatalf("got %+v, %v", cases, err)
	}
	if diff := cmp.Diff(`{"kind":"Pod","requst":[1,{"want":null}]}`, string(cases[0].Known["pods"][0])); diff != "" {
		t.Error(diff)
	}
}

func TestCasesMayBeMergedWithOthers(t *testing.T) {
	const text = `- name: a
  request: &jane {user: jane, headers: &any {X-Any: "1"}}
- {name: b, request: {<<: *jane, verb: get}}
- {name: c, request: {<<: [{user: joe}, {verb: list}], headers: {<<: *any, X-More: "2"}}}
`
	cases, err := readCases(written(t, "cases.yaml", text))
	if err != nil || len(cases) != 3 {
		t.Fatalf("got %+v, %v", cases, err)
	}
	b, c := cases[1].Request, cases[2].Request
	if b.User != "jane" || b.Verb != "get" || c.User != "joe" || c.Verb != "list" {
		t.Errorf("got %+v and %+v", b, c)
	}
	if diff := cmp.Diff(map[string]string{"X-Any": "1", "X-More": "2"}, c.Headers); diff != "" {
		t.Error(diff)
	}
}

// TestPlacesAreOfKeys has values that are called as keys are.
func TestPlacesAreOfKeys(t *testing.T) {
	p, err := readPage(written(t, "input.yaml", "user: verb\nobject:\n  kind: name\n  name:\n    verb: x\nverb: y\n"))
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{"verb": "line 6", "object.name": "line 4", "object.name.verb": "line 5", "object.verb": "line 2", "user.verb": "line 1"} {
		if got := p.at(strings.Split(path, ".")); !strings.HasSuffix(got, want) {
			t.Errorf("%s: got %s, want %s", path, got, want)
		}
	}
}
