package rego

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/portico-proxy/portico/core/limit"
)

var update = flag.Bool("update", false, "write the schema anew")

const schemaDir = "../../plugins/policies/schemas"

// TestSchemaIsTheInputs keeps what OPA's tools are told true to what policies get.
func TestSchemaIsTheInputs(t *testing.T) {
	for file, schema := range map[string]map[string]any{"request.json": Schema(), "view/caller.json": CallerSchema()} {
		file = filepath.Join(schemaDir, file)
		want, err := json.MarshalIndent(schema, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, '\n')
		if *update {
			if err := os.WriteFile(file, want, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Errorf("run go test ./filters/rego -run Schema -update: %s", diff)
		}
	}
}

var infos = request.RequestInfoFactory{APIPrefixes: sets.NewString("api", "apis"), GrouplessAPIPrefixes: sets.NewString("api")}

// sent is a request as policies meet it.
func sent(tb testing.TB, method, path string, caller user.Info) *Facts {
	tb.Helper()
	r := httptest.NewRequestWithContext(tb.Context(), method, path, nil)
	r.Header.Set("User-Agent", "looper/v1")
	info, err := infos.NewRequestInfo(r)
	if err != nil {
		tb.Fatal(err)
	}
	return &Facts{User: caller, Info: info, Request: r.WithContext(request.WithRequestInfo(r.Context(), info)), Node: "n1"}
}

var looper = &user.DefaultInfo{
	Name: "system:serviceaccount:shop:looper", Groups: []string{"system:serviceaccounts", "system:authenticated"},
	Extra: map[string][]string{"authentication.kubernetes.io/pod-name": {"looper-1"}, "authentication.kubernetes.io/node-name": {"n1"}},
}

func quorumList(tb testing.TB) *Policy {
	tb.Helper()
	text, err := os.ReadFile("../../plugins/policies/quorum_list/quorum_list.rego")
	if err != nil {
		tb.Fatal(err)
	}
	p, err := Compile(Source{Name: "quorum-list", Rego: string(text), Settings: map[string]any{"listsPerMinute": 6, "listBurst": 3}, Deadline: time.Minute})
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

func TestPolicySetsLimits(t *testing.T) {
	p := quorumList(t)
	a, err := p.Limits(t.Context(), sent(t, "GET", "/api/v1/pods", looper))
	if err != nil {
		t.Fatal(err)
	}
	want := []limit.Limit{{
		Policy: "quorum-list", ID: "quorum-list", Key: []string{looper.Name, "", "pods"}, Tokens: &limit.Tokens{Rate: 0.1, Burst: 3},
		Cost: limit.Cost{Fixed: 1}, OnExceed: limit.Reject, Applies: limit.Client, Scope: limit.Proxy, MaxDelay: time.Second,
		Message: looper.Name + " lists all pods at their newest version again and again: use an informer, or resourceVersion=0",
	}}
	if diff := cmp.Diff(want, a.Limits); diff != "" {
		t.Error(diff)
	}
	for _, path := range []string{
		"/api/v1/pods?resourceVersion=0", "/api/v1/namespaces/shop/pods", "/api/v1/pods?watch=1", "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1", "/healthz",
	} {
		if a, err := p.Limits(t.Context(), sent(t, "GET", path, looper)); err != nil || len(a.Limits) > 0 {
			t.Errorf("%s: got %+v, %v", path, a, err)
		}
	}
}

func compiled(tb testing.TB, rego string) *Policy {
	tb.Helper()
	p, err := Compile(Source{Name: "test", Rego: rego, Settings: map[string]any{"n": 3, "in": map[string]any{"x": "y"}}, Deadline: time.Minute})
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

func TestMistakesAreNamedByLineAndColumn(t *testing.T) {
	for name, tt := range map[string]struct{ rego, want string }{
		"syntax":          {"package a\n\ndeny contains \"x\" if {\n\tinput.verb =\n}\n", "line 5, column 1: "},
		"misspelt-field":  {"package a\n\ndeny contains \"x\" if {\n\tinput.verbb == \"list\"\n}\n", "line 4, column 2: undefined ref: input.verbb"},
		"wrong-type":      {"package a\n\ndeny contains \"x\" if input.verb == 3\n", "line 3, column 22: match error left : string right : number"},
		"world":           {"package a\n\ndeny contains \"x\" if {\n\thttp.send({\"url\": \"http://example.org\"})\n}\n", "line 4, column 2: undefined function http.send"},
		"chance":          {"package a\n\ndeny contains \"x\" if rand.intn(\"a\", 2) == 1\n", "line 3, column 22: undefined function rand.intn"},
		"time":            {"package a\n\ndeny contains \"x\" if time.now_ns() > 1\n", "line 3, column 22: undefined function time.now_ns"},
		"unused-variable": {"package a\n\ndeny contains \"x\" if {\n\ty := input.verb\n\tinput.verb == \"get\"\n}\n", "line 4, column 2: assigned var y unused"},
		"no-set":          {"package a\n\ndeny if input.verb == \"get\"\n", "line 3, column 1: deny must be a set"},
		"no-settings":     {"package a\n\ndeny contains \"x\" if input.options.limit > data.settings.in.z\n", "line 3, column 44: spec.settings has no in.z"},
		"no-data":         {"package a\n\ndeny contains \"x\" if input.verb in data.verbs\n", "line 3, column 36: there is no data.verbs"},
		"nothing":         {"package a\n\nallow if input.verb == \"get\"\n", "data.a has none of the sets deny, warn, limits and selectors"},
		"older-rego":      {"package a\n\ndeny[\"x\"] { input.verb == \"get\" }\n", "line 3, column 1: "},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Compile(Source{Name: "test", Rego: tt.rego, Settings: map[string]any{"in": map[string]any{"x": "y"}}})
			if err == nil || !strings.HasPrefix(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want %s…", err, tt.want)
			}
		})
	}
}

func TestFailuresAreErrorsAndNotAbsence(t *testing.T) {
	for name, rego := range map[string]string{
		"builtin":          `deny contains "x" if to_number(input.verb) > 3`,
		"division":         `limits contains {"id": "l", "key": ["k"], "tokens": {"rate": 1 / count(input.namespace)}}`,
		"no-text":          `deny contains 3 if input.verb == "get"`,
		"empty-text":       `warn contains "" if input.verb == "get"`,
		"no-limit":         `limits contains "often" if input.verb == "get"`,
		"misspelt-limit":   `limits contains {"id": "l", "key": ["k"], "token": {"rate": 1}}`,
		"nothing-to-count": `limits contains {"id": "l", "key": ["k"]}`,
		"no-key":           `limits contains {"id": "l", "key": [], "tokens": {"rate": 1}}`,
		"negative-rate":    `limits contains {"id": "l", "key": ["k"], "tokens": {"rate": -1}}`,
		"odd-name":         `limits contains {"id": input.path, "key": ["k"], "tokens": {"rate": 1}}`,
		"long-delay":       `limits contains {"id": "l", "key": ["k"], "tokens": {"rate": 1}, "maxDelay": "1h"}`,
		"other-measure":    `limits contains {"id": "l", "key": ["k"], "tokens": {"rate": 1}, "cost": {"from": "cpu"}}`,
	} {
		t.Run(name, func(t *testing.T) {
			p := compiled(t, "package a\n\n"+rego+"\n")
			facts := sent(t, "GET", "/api/v1/pods/web", looper)
			facts.Info.Verb = "get"
			_, err := p.Decide(t.Context(), facts)
			if err == nil {
				_, err = p.Limits(t.Context(), facts)
			}
			if err == nil {
				t.Error("it was taken for a policy that says nothing")
			}
			if p.limits != nil && p.limits.cache.size() > 0 || p.decision != nil && p.decision.cache.size() > 0 {
				t.Error("a failure is remembered")
			}
		})
	}
}

func TestEvaluationHasADeadline(t *testing.T) {
	p, err := Compile(Source{Name: "slow", Deadline: time.Millisecond, Rego: `package a

deny contains "x" if {
	some i in numbers.range(1, 20000)
	some j in numbers.range(1, 20000)
	i * j == -1
	input.verb == "list"
}
`})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Decide(t.Context(), sent(t, "GET", "/api/v1/pods", looper)); !errors.Is(err, errDeadline) {
		t.Errorf("got %v", err)
	}
}

// TestPoliciesReadTheirInput has every field read, alone and as a part.
func TestPoliciesReadTheirInput(t *testing.T) {
	facts := sent(t, "GET", "/apis/apps/v1/namespaces/shop/deployments?limit=7&continue=x&resourceVersion=3&labelSelector=a%3Db&sendInitialEvents=true", looper)
	facts.Servable = true
	p := compiled(t, "package a\n\nwarn contains json.marshal(input)\n")
	whole, err := p.Decide(t.Context(), facts)
	if err != nil {
		t.Fatal(err)
	}
	var input map[string]any
	if err := json.Unmarshal([]byte(whole.Warn[0]), &input); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"verb": "list", "apiGroup": "apps", "apiVersion": "v1", "resource": "deployments", "subresource": "", "namespace": "shop", "name": "",
		"path": "/apis/apps/v1/namespaces/shop/deployments", "userAgent": "looper/v1", "sourceIP": "192.0.2.1",
		"workload": map[string]any{"namespace": "shop", "serviceAccount": "looper", "pod": "looper-1", "node": "n1"},
		"options": map[string]any{
			"limit": 7.0, "continue": true, "resourceVersion": "3", "resourceVersionMatch": "", "labelSelector": "a=b", "fieldSelector": "", "sendInitialEvents": true,
		},
		"cache": map[string]any{"servable": true}, "node": map[string]any{"name": "n1"},
	}
	got := map[string]any{}
	for name := range want {
		got[name] = input[name]
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for i := range fields {
		one, err := compiled(t, "package a\n\nwarn contains json.marshal(input."+fields[i].path+")\n").Decide(t.Context(), facts)
		if err != nil || len(one.Warn) != 1 || !strings.Contains(whole.Warn[0], one.Warn[0]) {
			t.Errorf("%s: got %q, %v", fields[i].path, one.Warn, err)
		}
	}
}

// forms are ways to come by a field.
var forms = []string{
	`warn contains input.verb`,
	`warn contains x if { r := input; x := concat(" ", [r.verb, r.namespace, "."]) }`,
	`warn contains x if { some name in ["verb", "resource"]; x := concat("", [name, input[name]]) }`,
	`warn contains x if { x := concat("", ["g", object.get(input, ["user", "name"], "")]) }`,
	`warn contains "group" if { some g in input.user.groups; g == "g1" }
warn contains concat("", ["x", input.user.extra.k[0]])`,
	`warn contains said(input.options)
said(o) := sprintf("%v %v", [o.limit, o.continue])`,
	`warn contains "deep" if inner
inner if { not outer }
outer if input.namespace == "n1"`,
	`warn contains "walked" if { walk(input.options, [_, v]); v == "7" }`,
	`warn contains x if { o := {k: v | some k in ["verb", "name"]; v := input[k]}; x := json.marshal(o) }`,
	`warn contains "every" if { every g in input.user.groups { startswith(g, input.verb) } }`,
	`warn contains x if { x := sprintf("%s/%s", [input.workload.namespace, input.userAgent]) }`,
}

// TestRememberedAnswersAreTheAnswers asks each form about many requests, and a
// policy that remembers nothing the same.
func TestRememberedAnswersAreTheAnswers(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	pick := func(of ...string) string { return of[random.IntN(len(of))] }
	for i, form := range forms {
		rego := "package a\n\n" + form + "\n"
		remembers := compiled(t, rego)
		for range 200 {
			caller := &user.DefaultInfo{
				Name: pick("jane", "system:serviceaccount:n1:a", "system:serviceaccount:n2:a"), Groups: []string{pick("g1", "g2", "list")},
				Extra: map[string][]string{"k": {pick("1", "2")}},
			}
			facts := sent(t, pick("GET", "DELETE"), "/api/v1/namespaces/"+pick("n1", "n2")+"/"+pick("pods", "secrets")+pick("", "/web")+"?resourceVersion="+pick("", "7")+"&limit="+pick("0", "7"), caller)
			facts.Request.Header.Set("User-Agent", pick("a", "b"))
			got, err := remembers.Decide(t.Context(), facts)
			if err != nil {
				t.Fatal(err)
			}
			all := question{query: remembers.decision.query, input: planInput([]string{""})}
			want, err := remembers.evaluate(t.Context(), &all, all.input.value(facts))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("form %d, %s %s: %s", i, facts.Request.Method, facts.Request.URL, diff)
			}
		}
	}
}

func TestInputsThatDifferHaveDifferentKeys(t *testing.T) {
	plan := planInput([]string{""})
	a := sent(t, "GET", "/api/v1/namespaces/ab/pods/c", &user.DefaultInfo{Name: "u", Groups: []string{"a", "b"}})
	b := sent(t, "GET", "/api/v1/namespaces/ab/pods/c", &user.DefaultInfo{Name: "u", Groups: []string{"ab"}})
	c := sent(t, "GET", "/api/v1/namespaces/ab/pods/c", &user.DefaultInfo{Name: "u", Groups: []string{"a"}, UID: "b"})
	keys := map[string]bool{}
	for _, facts := range []*Facts{a, b, c} {
		keys[string(plan.key(nil, facts))] = true
	}
	if len(keys) != 3 {
		t.Error("two inputs have one key")
	}
}

func TestFewFieldsAreRead(t *testing.T) {
	var paths []string
	for _, f := range quorumList(t).limits.input.used {
		paths = append(paths, f.path)
	}
	want := []string{"user.name", "verb", "apiGroup", "resource", "namespace", "options.continue", "options.resourceVersion", "options.labelSelector", "options.fieldSelector"}
	if diff := cmp.Diff(want, paths); diff != "" {
		t.Error(diff)
	}
}

func TestAnswersAreForgottenByLastUse(t *testing.T) {
	var a answers
	for n := range 20 * generation {
		a.put(fmt.Sprint(n), Answer{})
		if _, ok := a.get([]byte("0")); !ok {
			t.Fatal("what was asked for lately is forgotten")
		}
	}
	if got := a.size(); got > 2*generation+1 {
		t.Errorf("%d answers are kept", got)
	}
	p := compiled(t, "package a\n\nwarn contains input.userAgent\n")
	facts := sent(t, http.MethodGet, "/api/v1/pods", looper)
	facts.Request.Header.Set("User-Agent", strings.Repeat("x", maxKey+1))
	if _, err := p.Decide(t.Context(), facts); err != nil || p.decision.cache.size() != 0 {
		t.Errorf("%v; %d answers to endless questions are kept", err, p.decision.cache.size())
	}
}

func BenchmarkPolicy(b *testing.B) {
	p := quorumList(b)
	for name, path := range map[string]string{"limited": "/api/v1/pods", "not-concerned": "/api/v1/namespaces/shop/pods/web"} {
		facts := sent(b, "GET", path, looper)
		b.Run(name+"/uncached", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				facts.query = nil
				if _, err := p.evaluate(b.Context(), p.limits, p.limits.input.value(facts)); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"/cached", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				facts.query = nil
				if _, err := p.Limits(b.Context(), facts); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
