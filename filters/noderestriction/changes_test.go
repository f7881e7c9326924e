package noderestriction

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
)

func TestPatchesSayWhatTheyTouch(t *testing.T) {
	const merge, strategic, operations = "application/merge-patch+json", "application/strategic-merge-patch+json", "application/json-patch+json"
	for name, tt := range map[string]struct {
		media, patch string
		want         []string // nil is refused
	}{
		"label":           {merge, `{"metadata":{"labels":{"a/b":"c","d":null}}}`, []string{"/metadata/labels/a~1b", "/metadata/labels/d"}},
		"nothing":         {merge, `{"metadata":{"labels":{}}}`, []string{}},
		"all-labels":      {merge, `{"metadata":{"labels":null}}`, []string{"/metadata/labels"}},
		"all":             {merge, `{"metadata":null}`, []string{"/metadata"}},
		"directive":       {strategic, `{"metadata":{"$patch":"replace","labels":{"a":"b"}}}`, []string{"/metadata/$patch", "/metadata/labels/a"}},
		"taints":          {strategic, `{"spec":{"taints":[],"unschedulable":false}}`, []string{"/spec/taints", "/spec/unschedulable"}},
		"no-object":       {merge, `[]`, nil},
		"twice":           {merge, `{"metadata":{"labels":{"a":"b"}},"metadata":{}}`, nil},
		"twice-in-list":   {operations, `[{"op":"add","path":"/status","path":"/spec","value":1}]`, nil},
		"operations":      {operations, `[{"op":"add","path":"/metadata/labels/a","value":"b"},{"op":"remove","path":"/spec/taints"}]`, []string{"/metadata/labels/a", "/spec/taints"}},
		"copy":            {operations, `[{"op":"copy","from":"/spec/x","path":"/metadata/annotations/a"}]`, []string{"/metadata/annotations/a", "/spec/x"}},
		"whole":           {operations, `[{"op":"replace","path":"","value":{}}]`, nil},
		"identity":        {operations, `[{"op":"replace","path":"/metadata/name","value":"b"}]`, nil},
		"test":            {operations, `[{"op":"test","path":"/metadata/uid","value":"b"}]`, []string{"/metadata/uid"}},
		"from-there":      {operations, `[{"op":"copy","from":"x/spec/x","path":"/metadata/annotations/a"}]`, nil},
		"pathless":        {operations, `[{"op":"remove"}]`, nil},
		"no-list":         {operations, `{}`, nil},
		"apply":           {"application/apply-patch+yaml", `{"metadata":{}}`, nil},
		"unknown":         {"application/cbor", `{}`, nil},
		"no-json":         {merge, `{`, nil},
		"nothing-at-all":  {merge, ``, nil},
		"other-case":      {operations, `[{"op":"replace","path":"/spec/taints","Path":"/status/x","value":[]}]`, nil},
		"other-case-only": {operations, `[{"op":"replace","Path":"/status/x","value":[]}]`, nil},
		"no-text":         {operations, `[{"op":"replace","path":null,"value":[]}]`, nil},
		"from-nowhere":    {operations, `[{"op":"copy","path":"/status/x","from":null}]`, []string{"/status/x", ""}},
		"too-deep":        {merge, strings.Repeat(`{"status":`, 200) + "1" + strings.Repeat("}", 200), nil},
		"too-much":        {merge, members(maxTouched + 1), nil},
		"other-case-name": {merge, `{"Spec":{"taints":[]}}`, []string{"/Spec/taints"}},
	} {
		got, err := touchedBy(tt.media, []byte(tt.patch))
		if (err != nil) != (tt.want == nil) {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(append([]string{}, tt.want...), append([]string{}, got...)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// members is an object of n members.
func members(n int) string {
	all := make([]string, n)
	for i := range all {
		all[i] = `"` + strconv.Itoa(i) + `":1`
	}
	return "{" + strings.Join(all, ",") + "}"
}

// TestLargestPatchIsReadOnce takes no time that anybody would notice; when each
// leaf was looked for from the root, this took minutes.
func TestLargestPatchIsReadOnce(t *testing.T) {
	long := `"` + strings.Repeat("x", 64) + `":`
	got, err := touchedBy("application/merge-patch+json", []byte(`{"status":{`+long+members(maxTouched)+`}}`))
	if err != nil || len(got) != maxTouched {
		t.Errorf("got %d, %v", len(got), err)
	}
}

func TestPodsAreReadByExactNames(t *testing.T) {
	p, err := podOf([]byte(`{"spec":{"volumes":[{"name":"a","secret":{"secretName":"s"}}],"Volumes":[]}}`))
	if err != nil || len(p.Spec.Volumes) != 1 {
		t.Errorf("got %v, %v", p.Spec.Volumes, err)
	}
}

func TestDifferencesAreFound(t *testing.T) {
	for name, tt := range map[string]struct {
		was, will string
		want      []string
	}{
		"none":    {`{"a":1,"b":{"c":[1]}}`, `{"b":{"c":[1]},"a":1}`, nil},
		"empty":   {`{"a":{},"b":[],"c":""}`, `{}`, nil},
		"changed": {`{"a":1}`, `{"a":2}`, []string{"/a"}},
		"removed": {`{"a":{"b/c":"x","d":"y"}}`, `{"a":{"d":"y"}}`, []string{"/a/b~1c"}},
		"added":   {`{}`, `{"spec":{"taints":[{"key":"x"}]}}`, []string{"/spec/taints"}},
		"list":    {`{"a":[1]}`, `{"a":[1,2]}`, []string{"/a"}},
		"kind":    {`{"a":{"b":1}}`, `{"a":"b"}`, []string{"/a"}},
	} {
		var was, will any
		if json.Unmarshal([]byte(tt.was), &was) != nil || json.Unmarshal([]byte(tt.will), &will) != nil {
			t.Fatal(name)
		}
		if diff := cmp.Diff(tt.want, differences(was, will, "")); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestCredentialsNameTheirNodes(t *testing.T) {
	for name, tt := range map[string]struct {
		caller user.DefaultInfo
		node   string
		kind   v1alpha1.NodeCaller
	}{
		"kubelet":        {user.DefaultInfo{Name: "system:node:n1", Groups: []string{"system:nodes"}}, "n1", v1alpha1.CallerKubelet},
		"not-quite":      {user.DefaultInfo{Name: "system:node:n1"}, "n1", v1alpha1.CallerPods},
		"nameless":       {user.DefaultInfo{Name: "system:node:", Groups: []string{"system:nodes"}}, "", v1alpha1.CallerPods},
		"bound":          {user.DefaultInfo{Name: "system:serviceaccount:a:b", Extra: map[string][]string{"authentication.kubernetes.io/node-name": {"n1"}}}, "n1", v1alpha1.CallerPods},
		"unbound":        {user.DefaultInfo{Name: "system:serviceaccount:a:b"}, "", v1alpha1.CallerPods},
		"node-of-others": {user.DefaultInfo{Name: "jane", Groups: []string{"system:nodes"}}, "", v1alpha1.CallerPods},
	} {
		if got := originOf(&tt.caller); got.node != tt.node || got.kind != tt.kind {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestOnlyHealthDiscoveryAndQuestionsAboutOneselfAreOpen(t *testing.T) {
	create := func(group, resource, namespace string) request.RequestInfo {
		return request.RequestInfo{IsResourceRequest: true, Verb: "create", APIGroup: group, Resource: resource, Namespace: namespace}
	}
	for name, tt := range map[string]struct {
		info request.RequestInfo
		want bool
	}{
		"discovery":  {request.RequestInfo{Path: "/apis/apps/v1"}, true},
		"health":     {request.RequestInfo{Path: "/readyz/etcd"}, true},
		"metrics":    {request.RequestInfo{Path: "/metrics"}, false},
		"prefix":     {request.RequestInfo{Path: "/apis-of-mine"}, false},
		"self":       {create("authorization.k8s.io", "selfsubjectaccessreviews", ""), true},
		"who-am-i":   {create("authentication.k8s.io", "selfsubjectreviews", ""), true},
		"of-others":  {create("authorization.k8s.io", "subjectaccessreviews", ""), false},
		"other-verb": {request.RequestInfo{IsResourceRequest: true, Verb: "list", APIGroup: "authentication.k8s.io", Resource: "selfsubjectreviews"}, false},
	} {
		if got := isOpen(&tt.info); got != tt.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
