package rego

import (
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/go-logr/logr/testr"
	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/portico-proxy/portico/core/config"
	"github.com/portico-proxy/portico/core/pipeline"
	"github.com/portico-proxy/portico/core/view"
	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
)

// selected asks a policy of some selectors about looper.
func selected(t *testing.T, selectors ...string) (Answer, error) {
	t.Helper()
	rego := "package a\n\n"
	for _, s := range selectors {
		rego += "selectors contains " + s + "\n\n"
	}
	return compiled(t, rego).Selectors(t.Context(), sent(t, "GET", "/api/v1/pods", looper))
}

func TestSelectorsSayWhatExists(t *testing.T) {
	pods, maps := []v1alpha1.ViewResource{{Resource: "pods"}}, []v1alpha1.ViewResource{{Resource: "configmaps"}}
	team := &metav1.LabelSelector{MatchLabels: map[string]string{"team": "looper"}}
	for name, tt := range map[string]struct {
		selectors []string
		want      []v1alpha1.VirtualViewSpec
	}{
		"labels": {
			[]string{`{"resources": [{"resource": "pods"}], "selector": {"matchLabels": {"team": input.workload.serviceAccount}}}`},
			[]v1alpha1.VirtualViewSpec{{Objects: []v1alpha1.ViewRule{{Resources: pods, Selector: team}}}},
		},
		"fields": {
			[]string{`{"resources": [{"resource": "pods"}], "fields": [{"path": "/spec/nodeName", "value": input.node.name}]}`},
			[]v1alpha1.VirtualViewSpec{{Objects: []v1alpha1.ViewRule{{Resources: pods, Fields: []v1alpha1.ViewField{{Path: "/spec/nodeName", Value: "n1"}}}}}},
		},
		"of-several-resources": {
			[]string{
				`{"resources": [{"resource": "pods"}], "names": ["a"]}`, `{"resources": [{"resource": "configmaps"}], "names": ["b"]}`, `{"namespaces": ["shop"]}`,
			},
			[]v1alpha1.VirtualViewSpec{{
				Namespaces: &v1alpha1.ViewNamespaces{Names: []string{"shop"}},
				Objects:    []v1alpha1.ViewRule{{Resources: pods, Names: []string{"a"}}, {Resources: maps, Names: []string{"b"}}},
			}},
		},
		"all-of-one-resource": {
			[]string{`{"resources": [{"resource": "pods"}], "names": ["a"]}`, `{"resources": [{"group": "*", "resource": "*"}], "names": ["b"]}`},
			[]v1alpha1.VirtualViewSpec{
				{Objects: []v1alpha1.ViewRule{{Resources: pods, Names: []string{"a"}}}},
				{Objects: []v1alpha1.ViewRule{{Resources: []v1alpha1.ViewResource{{Group: "*", Resource: "*"}}, Names: []string{"b"}}}},
			},
		},
		"both-of-two-sets-of-namespaces": {
			[]string{`{"namespaces": ["a", "b"]}`, `{"namespaces": ["b", "c"]}`},
			[]v1alpha1.VirtualViewSpec{
				{Namespaces: &v1alpha1.ViewNamespaces{Names: []string{"a", "b"}}}, {Namespaces: &v1alpha1.ViewNamespaces{Names: []string{"b", "c"}}},
			},
		},
		"all-namespaces": {[]string{`{"namespaces": ["*"]}`}, nil},
		"no-namespaces": {
			[]string{`{"namespaces": [n | some n in input.user.groups; n == "none"]}`},
			[]v1alpha1.VirtualViewSpec{{Namespaces: &v1alpha1.ViewNamespaces{Names: []string{}}}},
		},
		"no-names":  {[]string{`{"resources": [{"resource": "pods"}], "names": []}`}, []v1alpha1.VirtualViewSpec{{Hidden: pods}}},
		"no-owners": {[]string{`{"resources": [{"resource": "pods"}], "owners": []}`}, []v1alpha1.VirtualViewSpec{{Hidden: pods}}},
		"no-values": {
			[]string{`{"resources": [{"resource": "pods"}], "selector": {"matchExpressions": [{"key": "team", "operator": "In", "values": set()}]}}`},
			[]v1alpha1.VirtualViewSpec{{Hidden: pods}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			a, err := selected(t, tt.selectors...)
			if err != nil {
				t.Fatal(err)
			}
			var got []v1alpha1.VirtualViewSpec
			for _, w := range a.Worlds {
				got = append(got, *w.Spec)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// ofPods is about those that a label selector fits.
func ofPods(selector string) string {
	return `{"resources": [{"resource": "pods"}], "selector": ` + selector + `}`
}

// TestSelectorsThatSayNothingAreErrors has mistakes that would show more than is
// meant, were they let pass.
func TestSelectorsThatSayNothingAreErrors(t *testing.T) {
	for selector, want := range map[string]string{
		`{"namespaces": ["shop"]} if input.user.name == "joe"`: "selectors is empty for this caller",
		`"pods"`:                                "element 1: it is no object",
		`{}`:                                    "element 1: [selectors.resources: Required value",
		`{"namespaces": null}`:                  "namespaces is null",
		`{"namespaces": "shop"}`:                "cannot unmarshal string",
		`{"namespace": ["shop"]}`:               `unknown field "namespace"`,
		`{"resources": [], "names": []}`:        "selectors.resources: Required value",
		`{"resources": [{"resource": "pods"}]}`: "set names, selector, owners or fields",
		`{"resources": [{"resource": "pods"}], "fields": []}`: "fields is empty",
		ofPods(`{}`): `selector is empty, which anything fits: let it have matchLabels or matchExpressions, or write "names": ["*"]`,
		ofPods(`{"matchLabels": {g: "x" | some g in input.user.groups; g == "none"}}`):                  "selector is empty",
		ofPods(`{"matchExpressions": []}`):                                                              "selector is empty",
		ofPods(`{"matchLabels": null}`):                                                                 "selector.matchLabels is null",
		ofPods(`{"matchLabels": {"team": null}}`):                                                       "selector.matchLabels.team is null",
		ofPods(`{"matchExpressions": [{"key": "team", "operator": "In", "values": ["a", null]}]}`):      "selector.matchExpressions.0.values.1 is null",
		`{"resources": [{"resource": "pods/log"}], "names": []}`:                                        "selectors.resources[0].resource",
		`{"resources": [{"resource": "pods"}], "names": ["a"], "namespaces": ["b"]}`:                    "namespaces stands alone",
		`{"resources": [{"resource": "pods"}], "selector": {"matchLabels": {"user": input.user.name}}}`: "selectors.selector: Invalid value",
		`{"resources": [{"resource": "pods"}], "fields": [{"path": "spec.nodeName"}]}`:                  "must be a JSON pointer",
		`{"namespaces": [x | some i in numbers.range(1, 9000); x := sprintf("%d", [i])]}`:               "it is longer than 16384 bytes",
		`{"namespaces": [x]} if { some i in numbers.range(1, 65); x := sprintf("%d", [i]) }`:            "selectors has 65 elements, and may have 64",
		`{"namespaces": [x]} if x := to_number(input.user.name)`:                                        "evaluate: ",
	} {
		a, err := selected(t, selector)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %+v, %v, want %s", selector, a, err, want)
		}
	}
}

// TestSelectorsDependOnTheCallerAlone refuses what would show one thing to who lists
// and another to who watches.
func TestSelectorsDependOnTheCallerAlone(t *testing.T) {
	const start = "package a\n\nselectors contains {\"namespaces\": [\"shop\"]} if "
	for condition, want := range map[string]string{
		`input.verb == "list"`:                      "line 3, column 48: selectors may not depend on input.verb, but on input.user, input.workload, input.node only: ",
		"lists\n\nlists if input.resource == \"x\"": "line 5, column 10: selectors may not depend on input.resource, ",
		`object.get(input, "verb", "") == "list"`:   "selectors may not depend on input, ",
		`input.observed.lists > 3`:                  "selectors may not depend on input.observed.lists, ",
	} {
		if _, err := Compile(Source{Name: "test", Rego: start + condition + "\n"}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", condition, err)
		}
	}
	// What is asked for otherwise may.
	compiled(t, "package a\n\nselectors contains {\"namespaces\": [input.workload.namespace, input.node.name]} if input.user.name != \"\"\n\ndeny contains \"x\" if input.verb == \"list\"\n")
}

func TestOneAnswerForAllRequestsOfACaller(t *testing.T) {
	p := compiled(t, "package a\n\nselectors contains {\"namespaces\": input.user.groups}\n")
	for _, path := range []string{"/api/v1/pods", "/api/v1/pods?watch=1", "/apis/apps/v1/namespaces/shop/deployments/web"} {
		if a, err := p.Selectors(t.Context(), sent(t, "GET", path, looper)); err != nil || len(a.Worlds) != 1 {
			t.Errorf("%s: got %+v, %v", path, a, err)
		}
	}
	if n := p.selectors.cache.size(); n != 1 {
		t.Errorf("%d answers are remembered of one caller", n)
	}
}

const narrows = `package a

selectors contains {"namespaces": [sprintf("%s-1", [input.user.name])]}
`

const showsAll = `package a

selectors contains {"namespaces": ["*"]}
`

var ofAll = func(s *v1alpha1.FilterBindingSpec) { s.Match.Groups = []string{"all"} }

// narrowed is what a request is narrowed to, and by whom.
func narrowed(t *testing.T, l *Library, caller user.Info, header http.Header, objects ...runtime.Object) ([]view.Narrowing, error) {
	t.Helper()
	f, _ := l.Compile(&config.Snapshot{Objects: objects})
	return narrowedBy(t, f, caller, header)
}

func narrowedBy(t *testing.T, f *Filter, caller user.Info, header http.Header) (all []view.Narrowing, err error) {
	t.Helper()
	r := sent(t, "GET", "/api/v1/pods", caller).Request
	maps.Copy(r.Header, header)
	if caller != nil {
		r = r.WithContext(request.WithUser(r.Context(), caller))
	}
	err = f.ServeHTTP(httptest.NewRecorder(), r, pipeline.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) error {
		all = view.NarrowingsFrom(r.Context())
		return nil
	}))
	return all, err
}

// namespacesOf are those that are left, one list for each view.
func namespacesOf(all []view.Narrowing) (names []string) {
	for _, n := range all {
		if n.Spec.Namespaces == nil {
			names = append(names, "*")
			continue
		}
		names = append(names, strings.Join(n.Spec.Namespaces.Names, " "))
	}
	return names
}

func TestBindingsNarrowWhatExists(t *testing.T) {
	all := &user.DefaultInfo{Name: "jane", Groups: []string{"all"}}
	as := http.Header{"Impersonate-User": {"joe"}, "Impersonate-Group": {"all"}}
	ignore := func(s *v1alpha1.FilterBindingSpec) { ofAll(s); s.FailurePolicy = v1alpha1.FailurePolicyIgnore }
	audit := func(s *v1alpha1.FilterBindingSpec) { ofAll(s); s.Mode = v1alpha1.ModeAudit }
	const silent = "package a\n\nselectors contains {\"namespaces\": [\"x\"]} if input.user.name == \"ann\"\n"
	for name, tt := range map[string]struct {
		rego   string
		change func(*v1alpha1.FilterBindingSpec)
		caller user.Info
		header http.Header
		want   []string
		err    string
	}{
		"narrowed":     {narrows, ofAll, all, nil, []string{"jane-1"}, ""},
		"other":        {narrows, ofAll, joe, nil, nil, ""},
		"as-other":     {narrows, ofAll, all, as, []string{"jane-1", "joe-1"}, ""},
		"only-other":   {narrows, ofAll, jane, as, []string{"joe-1"}, ""},
		"audited":      {narrows, audit, all, nil, []string{"jane-1"}, ""},
		"unknown":      {narrows, ofAll, nil, http.Header{"Authorization": {"Bearer x"}}, nil, "a policy of this proxy concerns the request"},
		"anonymous":    {narrows, ofAll, nil, nil, nil, ""},
		"silent":       {silent, ofAll, all, nil, nil, "filter b: selectors is empty for this caller"},
		"silent-open":  {silent, ignore, all, nil, []string{"*"}, ""},
		"shows-all":    {showsAll, ofAll, all, nil, []string{"*"}, ""},
		"audits-all":   {showsAll, audit, all, nil, nil, ""},
		"no-selectors": {restricts, ofAll, all, nil, nil, "filter b: the policy has no selectors"},
		"mistake":      {"package a\n\nx", ofAll, all, nil, nil, "filter b: line 3, column 1: "},
		"no-policy":    {"", ofAll, all, nil, nil, "filter b: there is no such RegoPolicy"},
	} {
		t.Run(name, func(t *testing.T) {
			objects := []runtime.Object{bind("p", v1alpha1.PhaseView, tt.change)}
			if tt.rego != "" {
				objects = append(objects, policy("p", tt.rego))
			}
			got, err := narrowed(t, NewLibrary(Options{Log: testr.New(t)}), tt.caller, tt.header, objects...)
			text := ""
			if err != nil {
				text = pipeline.StatusOf(err).Message
			}
			if !strings.HasPrefix(text, tt.err) || tt.err == "" && err != nil || !slices.Equal(namespacesOf(got), tt.want) {
				t.Errorf("got %v, %q", namespacesOf(got), text)
			}
			for _, n := range got {
				if n.Policy != "b" || n.Audits != (name == "audited") || n.Key == "" || n.Spec.Namespaces != nil && n.Size == 0 {
					t.Errorf("got %+v", n)
				}
			}
		})
	}
}

func isOver(n view.Narrowing) bool {
	select {
	case <-n.Changed:
		return true
	default:
		return false
	}
}

// TestWatchesEndWithThePolicyTheyBeganUnder has what a caller sees change with the
// policy and its binding, and with nothing else.
func TestWatchesEndWithThePolicyTheyBeganUnder(t *testing.T) {
	all := &user.DefaultInfo{Name: "jane", Groups: []string{"all"}}
	l := NewLibrary(Options{Log: testr.New(t)})
	binding, p := bind("p", v1alpha1.PhaseView, ofAll), policy("p", narrows)
	first, _ := l.Compile(&config.Snapshot{Objects: []runtime.Object{binding, p}})
	was, err := narrowedBy(t, first, all, nil)
	if err != nil || len(was) != 1 {
		t.Fatal(was, err)
	}
	for name, tt := range map[string]struct {
		objects []runtime.Object
		goes    bool
	}{
		"same":            {[]runtime.Object{binding.DeepCopy(), p.DeepCopy()}, true},
		"another-besides": {[]runtime.Object{bind("q", v1alpha1.PhaseThrottle, nil), binding, p}, true},
		"mistake":         {[]runtime.Object{binding, policy("p", "package a\n\nx")}, true}, // the one before stays in force
	} {
		now, err := narrowed(t, l, all, nil, tt.objects...)
		if err != nil || len(now) != 1 || now[0].Changed != was[0].Changed || isOver(was[0]) {
			t.Errorf("%s: got %v, %v", name, now, err)
		}
	}
	for name, objects := range map[string][]runtime.Object{
		"policy":  {binding, policy("p", narrows+"\n# and more\n")},
		"binding": {bind("p", v1alpha1.PhaseView, func(s *v1alpha1.FilterBindingSpec) { ofAll(s); s.Priority = 3 }), p},
		"gone":    {p},
	} {
		l := NewLibrary(Options{Log: testr.New(t)})
		began, _ := l.Compile(&config.Snapshot{Objects: []runtime.Object{binding, p}})
		was, _ := narrowedBy(t, began, all, nil)
		l.Compile(&config.Snapshot{Objects: objects})
		now, err := narrowedBy(t, began, all, nil) // with a chain of before
		if err != nil || !isOver(was[0]) || slices.ContainsFunc(now, isOver) || len(now) == 0 != (name == "gone") {
			t.Errorf("%s: got %+v, %v", name, now, err)
		}
	}
}

// TestWatchesOfAllEndWhenLessIsShown has a policy that shows all, and one that failed
// and was ignored, be followed by one that does not.
func TestWatchesOfAllEndWhenLessIsShown(t *testing.T) {
	all := &user.DefaultInfo{Name: "jane", Groups: []string{"all"}}
	ignore := func(s *v1alpha1.FilterBindingSpec) { ofAll(s); s.FailurePolicy = v1alpha1.FailurePolicyIgnore }
	for name, began := range map[string][]runtime.Object{
		"all":    {bind("p", v1alpha1.PhaseView, ofAll), policy("p", showsAll)},
		"failed": {bind("p", v1alpha1.PhaseView, ignore), policy("p", "package a\n\nselectors contains 1\n")},
		"none":   {bind("p", v1alpha1.PhaseView, ignore)},
	} {
		l := NewLibrary(Options{Log: testr.New(t)})
		was, err := narrowed(t, l, all, nil, began...)
		if err != nil || len(was) != 1 || isOver(was[0]) {
			t.Fatalf("%s: got %+v, %v", name, was, err)
		}
		now, err := narrowed(t, l, all, nil, began[0], policy("p", narrows))
		if err != nil || !isOver(was[0]) || !slices.Equal(namespacesOf(now), []string{"jane-1"}) {
			t.Errorf("%s: got %v, %v", name, namespacesOf(now), err)
		}
	}
}

func TestOwnObjectsOfTeams(t *testing.T) {
	text, err := os.ReadFile("../../plugins/policies/own_objects/own_objects.rego")
	if err != nil {
		t.Fatal(err)
	}
	settings := map[string]any{"label": "team", "groupPrefix": "team:", "resources": []any{map[string]any{"resource": "pods"}}}
	p, err := Compile(Source{Name: "own-objects", Rego: string(text), Settings: settings, Deadline: maxDeadline})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		groups []string
		hidden bool
		values []string
	}{{[]string{"team:red", "x", "team:blue"}, false, []string{"blue", "red"}}, {[]string{"x"}, true, nil}} {
		a, err := p.Selectors(t.Context(), sent(t, "GET", "/api/v1/pods", &user.DefaultInfo{Name: "joe", Groups: tt.groups}))
		if err != nil || len(a.Worlds) != 1 {
			t.Fatal(a, err)
		}
		spec := a.Worlds[0].Spec
		if len(spec.Hidden) > 0 != tt.hidden || !tt.hidden && !slices.Equal(spec.Objects[0].Selector.MatchExpressions[0].Values, tt.values) {
			t.Errorf("%v: got %+v", tt.groups, spec)
		}
	}
	// No label has such a value: it is refused, and nothing shown.
	_, err = p.Selectors(t.Context(), sent(t, "GET", "/api/v1/pods", &user.DefaultInfo{Name: "joe", Groups: []string{"team:a b"}}))
	if err == nil || errors.Is(err, errSilent) {
		t.Errorf("got %v", err)
	}
}

// TestWhatSelectorsNameIsTold has a policy name a resource once it is asked.
func TestWhatSelectorsNameIsTold(t *testing.T) {
	const names = "package a\n\nselectors contains {\"resources\": [{\"group\": \"apps\", \"resource\": \"deployment\"}, {\"resource\": \"pods\"}], \"names\": [input.user.name]}\n"
	l := NewLibrary(Options{Log: testr.New(t)})
	objects := []runtime.Object{bind("p", v1alpha1.PhaseView, ofAll), policy("p", names)}
	f, _ := l.Compile(&config.Snapshot{Objects: objects})
	if got := l.Selected("p"); len(got) > 0 {
		t.Errorf("before anybody asks it names %v", got)
	}
	for _, name := range []string{"jane", "joe"} {
		if _, err := narrowedBy(t, f, &user.DefaultInfo{Name: name, Groups: []string{"all"}}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if got := l.Selected("p"); !slices.Equal(got, []schema.GroupResource{{Group: "apps", Resource: "deployment"}, {Resource: "pods"}}) {
		t.Errorf("it names %v", got)
	}
	if len(l.faulted) != 1 || l.Selected("other") != nil {
		t.Error("nobody is told, or of another policy")
	}
	many := make([]Selector, 2*maxSelected)
	for i := range many {
		many[i].Resources = []v1alpha1.ViewResource{{Resource: strings.Repeat("x", i+1)}}
	}
	var s choices
	if s.add(many); len(s.list()) != maxSelected {
		t.Errorf("%d are remembered", len(s.list()))
	}
}
