package rego

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestEvaluateCompletesTheInput(t *testing.T) {
	p := quorumList(t)
	for input, want := range map[string]string{
		`{"verb": "list", "resource": "pods", "user": {"name": "joe"}}`:             `{"limits":[{"id":"quorum-list","key":["joe","","pods"],"message":"joe lists all pods at their newest version again and again: use an informer, or resourceVersion=0","tokens":{"burst":3,"rate":0.1}}]}`,
		`{"verb": "list", "resource": "pods", "options": {"resourceVersion": "0"}}`: `{"limits":[]}`,
		`{}`:                                  `{"limits":[]}`,
		`{"verbs": "list"}`:                   `there is no input.verbs: did you mean input.verb?`,
		`{"options": {"resource": ""}}`:       `there is no input.options.resource: did you mean input.options.continue?`,
		`{"user": "joe"}`:                     `input.user is no object`,
		`{"options": {"resourceVersion": 0}}`: `input.options.resourceVersion is a string: put it in quotes`,
		`{"options": {"limit": "5"}}`:         `input.options.limit is a number`,
		`{"cache": {"servable": "yes"}}`:      `input.cache.servable is true or false`,
		`{"user": {"groups": "devs"}}`:        `input.user.groups is a list of strings`,
		`{"user": {"extra": {"k": "v"}}}`:     `input.user.extra is an object of lists of strings`,
		`{"options": {"limit": 5}, "user": {"groups": ["devs"]}}`: `{"limits":[]}`,
		`{"user": {"extra": {"k": ["v"]}}}`:                       `{"limits":[]}`,
	} {
		var in map[string]any
		if err := json.Unmarshal([]byte(input), &in); err != nil {
			t.Fatal(err)
		}
		answer, err := p.Evaluate(t.Context(), in)
		got := ""
		if err != nil {
			got = err.Error()
		} else if text, err := json.Marshal(answer); err == nil {
			got = string(text)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", input, diff)
		}
	}
}

func TestTestsOfPoliciesRun(t *testing.T) {
	files := map[string]string{}
	for _, name := range []string{"quorum_list.rego", "quorum_list_test.rego"} {
		text, err := os.ReadFile("../../plugins/policies/quorum_list/" + name)
		if err != nil {
			t.Fatal(err)
		}
		files[name] = string(text)
	}
	results, err := Test(t.Context(), files)
	if err != nil || len(results) != 2 || results[0].Err != nil || results[1].Err != nil {
		t.Errorf("got %v, %v", results, err)
	}
	files["wrong_test.rego"] = "package wrong_test\n\nimport data.portico.quorum_list\n\ntest_wrong if count(quorum_list.limits) == 1 with input as {\"verb\": \"get\"}\n"
	results, err = Test(t.Context(), files)
	if err != nil || len(results) != 3 || results[2].Name != "wrong_test.test_wrong" || results[2].Err == nil {
		t.Errorf("got %v, %v", results, err)
	}
	files["wrong_test.rego"] = "package wrong_test\n\ntest_wrong if rand.intn(\"x\", 2) == 1\n"
	if _, err = Test(t.Context(), files); err == nil || !strings.Contains(err.Error(), "undefined function rand.intn") {
		t.Errorf("got %v", err)
	}
}

// TestTestsAskWhatRequestsAre has tests that would hold for no other reason than that
// they ask what no request is.
func TestTestsAskWhatRequestsAre(t *testing.T) {
	policy, err := os.ReadFile("../../plugins/policies/quorum_list/quorum_list.rego")
	if err != nil {
		t.Fatal(err)
	}
	const test = `package wrong_test

import data.portico.quorum_list

joe := {
	"user": {"name": "joe"},
	"verbs": "list",
}

test_shared if count(quorum_list.limits) == 0 with input as joe

test_own if {
	count(quorum_list.limits) == 0 with input as {
		"verb": "list",
		"options": {"resourceVersion": 0},
	}
}

test_field if count(quorum_list.limits) == 0 with input.verp as "list"

test_good if count(quorum_list.limits) == 0 with input as {"verb": "get", "user": {"extra": {"k": ["v"]}}}
`
	results, err := Test(t.Context(), map[string]string{"quorum_list.rego": string(policy), "wrong_test.rego": test})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, r := range results {
		if r.Err != nil {
			got[strings.TrimPrefix(r.Name, "wrong_test.")] = r.Err.Error()
		}
	}
	if diff := cmp.Diff(map[string]string{
		"test_shared": "wrong_test.rego, line 7, column 2: there is no input.verbs: did you mean input.verb?",
		"test_own":    "wrong_test.rego, line 15, column 15: input.options.resourceVersion is a string: put it in quotes",
		"test_field":  "wrong_test.rego, line 19, column 1: there is no input.verp: did you mean input.verb?",
	}, got); diff != "" {
		t.Error(diff)
	}
}
