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
		`{}`:                                `{"limits":[]}`,
		`{"verbs": "list"}`:                 `there is no input.verbs`,
		`{"options": {"resource": ""}}`:     `there is no input.options.resource`,
		`{"user": "joe"}`:                   `input.user is no object`,
		`{"user": {"extra": {"k": ["v"]}}}`: `{"limits":[]}`,
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
