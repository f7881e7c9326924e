package views

import (
	"context"
	"fmt"
	"maps"
	"os"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/portico-proxy/portico/test/proxy"
)

// selects puts a policy that says what exists in force, until the test ends.
func selects(t *testing.T, name, match, settings, rego string) {
	t.Helper()
	apply(t, `apiVersion: proxy.elf.io/v1alpha1
kind: FilterBinding
metadata: {name: `+name+`}
spec:
  filterRef: {kind: RegoPolicy, name: `+name+`}
  phase: View
  match: `+match+`
---
apiVersion: proxy.elf.io/v1alpha1
kind: RegoPolicy
metadata: {name: `+name+`}
spec:
  deadline: 10s
  settings: `+settings+`
  rego: |
    `+strings.ReplaceAll(rego, "\n", "\n    ")+"\n")
	admin(t, "", "wait", "--for=condition=Programmed", "--timeout=2m", "regopolicy/"+name, "filterbinding/"+name)
}

const (
	ofTeams = `{label: team, groupPrefix: "team:", resources: [{resource: configmaps}, {group: apps, resource: deployments}]}`
	teams   = `{groups: ["team:red", "team:blue", "team:none"]}`
)

func ownObjects(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../../plugins/policies/own_objects/own_objects.rego")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestSelectorsOfAPolicyHoldAsAViewDoes sends what is sent to a VirtualView.
func TestSelectorsOfAPolicyHoldAsAViewDoes(t *testing.T) {
	apply(t, namespace("selected", ""))
	p := newProxy(t)
	selects(t, "of-rita", "{users: [rita]}", "{}", `package of_rita

selectors contains {"resources": [{"resource": "configmaps"}], "selector": {"matchLabels": {"tenant": "c"}}} if input.user.name == "rita"
`)
	existByLabel(t, newTenant(t, p, "rita"), "selected")
}

// team writes the n-th change: objects of two teams are made, change hands and are
// deleted, each with a marker of whose they are.
func team(t *testing.T, c kubernetes.Interface, n int) {
	t.Helper()
	of := []string{"red", "blue"}[n/5%2]
	marker := fmt.Sprint("OF-", strings.ToUpper(of), "-", n)
	meta := metav1.ObjectMeta{Name: fmt.Sprintf("object-%d", n%7), Labels: map[string]string{"team": of}, Annotations: map[string]string{"n": marker}}
	configMap := &corev1.ConfigMap{ObjectMeta: meta, Data: map[string]string{"n": marker}}
	pod := corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"a": "b"}}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
	deployment := &appsv1.Deployment{ObjectMeta: meta, Spec: appsv1.DeploymentSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}}, Template: pod}}
	configMaps, deployments := c.CoreV1().ConfigMaps("teams"), c.AppsV1().Deployments("teams")
	_, err := configMaps.Create(t.Context(), configMap, metav1.CreateOptions{})
	_, alsoErr := deployments.Create(t.Context(), deployment, metav1.CreateOptions{})
	switch {
	case apierrors.IsAlreadyExists(err) && n%3 == 0:
		err = configMaps.Delete(t.Context(), meta.Name, metav1.DeleteOptions{})
		alsoErr = deployments.Delete(t.Context(), meta.Name, metav1.DeleteOptions{})
	case apierrors.IsAlreadyExists(err):
		_, err = configMaps.Update(t.Context(), configMap, metav1.UpdateOptions{})
		_, alsoErr = deployments.Update(t.Context(), deployment, metav1.UpdateOptions{})
	}
	if err != nil || alsoErr != nil {
		t.Fatalf("%v, %v", err, alsoErr)
	}
}

// dueTo is what there is of a team, seen past the proxy.
func dueTo(t *testing.T, c kubernetes.Interface, selector string) map[string]string {
	t.Helper()
	all, options := map[string]string{}, metav1.ListOptions{LabelSelector: selector}
	deployments, err := c.AppsV1().Deployments("").List(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range deployments.Items {
		all["deployment "+d.Namespace+"/"+d.Name] = d.ResourceVersion
	}
	configMaps, err := c.CoreV1().ConfigMaps("").List(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range configMaps.Items {
		all["configmap "+m.Namespace+"/"+m.Name] = m.ResourceVersion
	}
	return all
}

// TestTeamsSeeTheirOwnObjects has two teams follow, by informers, what changes hands
// between them, and the policy change meanwhile.
func TestTeamsSeeTheirOwnObjects(t *testing.T) {
	apply(t, namespace("teams", ""))
	direct, err := kubernetes.NewForConfig(world.Config())
	if err != nil {
		t.Fatal(err)
	}
	team(t, direct, 0)
	p := newProxy(t)
	selects(t, "own-objects", teams, ofTeams, ownObjects(t))
	red, blue := follow(t, newTenant(t, p, "rita"), "rita"), follow(t, newTenant(t, p, "bill"), "bill")
	for n := 1; n < 60; n++ {
		team(t, direct, n)
		if n == 30 {
			admin(t, "", "patch", "regopolicy", "own-objects", "--type=merge", "-p", `{"spec":{"rego":`+quoted(ownObjects(t)+"\n# and changed\n")+`}}`)
		}
	}
	for f, selector := range map[*follower]string{red: "team=red", blue: "team=blue"} {
		until(t, f.name+" has all that there is", func() bool { return maps.Equal(f.has(t), dueTo(t, direct, selector)) })
	}
	red.neverSaw(t, "OF-BLUE")
	blue.neverSaw(t, "OF-RED")
	out := must(t, p.Kubeconfig(world.Token("rita")), "", "get", "configmaps,deployments", "--namespace=teams", "--chunk-size=1", "-L", "team")
	if strings.Contains(out, "blue") {
		t.Errorf("a table shows\n%s", out)
	}
	if out := must(t, p.Kubeconfig(world.Token("nora")), "", "get", "configmaps", "--all-namespaces", "-o", "name"); out != "" {
		t.Errorf("who is in no team sees %s", out)
	}
}

// TestOtherWaysToWhatAnotherTeamHas lead nowhere.
func TestOtherWaysToWhatAnotherTeamHas(t *testing.T) {
	web := func(team string) string {
		return `---
apiVersion: apps/v1
kind: Deployment
metadata: {name: ` + team + `, namespace: ways, labels: {team: ` + team + `}, annotations: {note: MARKER-` + team + `}}
spec:
  selector: {matchLabels: {app: web}}
  template: {metadata: {labels: {app: web}}, spec: {containers: [{name: one, image: one}]}}
---
apiVersion: v1
kind: Event
metadata: {name: of-` + team + `, namespace: ways}
involvedObject: {apiVersion: apps/v1, kind: Deployment, namespace: ways, name: ` + team + `}
message: MARKER-` + team + `
`
	}
	apply(t, namespace("ways", "")+web("red")+web("blue"))
	p := newProxy(t)
	selects(t, "own-objects", teams, ofTeams, ownObjects(t))
	r := newTenant(t, p, "rita")
	const all = "/apis/apps/v1/namespaces/ways/deployments"
	for path, verb := range map[string]string{"/blue": "GET", "/blue/scale": "GET", "/blue/status": "GET", "/blue?x": "DELETE"} {
		r.is(t, verb, all+path, "", 404, `deployments.apps \"blue\" not found`)
	}
	r.is(t, "PATCH", all+"/blue/scale", asMerge+`{"spec":{"replicas":3}}`, 404)
	r.is(t, "PATCH", all+"/blue/status", asMerge+`{"status":{"replicas":3}}`, 404)
	r.is(t, "GET", all+"/red/scale", "", 200)
	r.is(t, "GET", all+"?labelSelector=team%3Dblue", "", 200, `"items":[]`)
	r.is(t, "GET", all+"?fieldSelector=metadata.name%3Dblue", "", 200, `"items":[]`)
	if page := r.is(t, "GET", all+"?limit=1&resourceVersion=0", "", 200, "MARKER-red"); strings.Contains(page, "remainingItemCount") {
		t.Errorf("a page counts what is left: %s", page)
	}
	r.is(t, "GET", all+"?watch=true&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&timeoutSeconds=1", "", 200, "MARKER-red", "initial-events-end")
	r.is(t, "GET", all+"?watch=true&timeoutSeconds=1&resourceVersion=0", "", 200, "MARKER-red")
	r.is(t, "GET", "/api/v1/namespaces/ways/events", "", 200)
	r.is(t, "GET", "/api/v1/namespaces/ways/events/of-blue", "", 404)
	r.is(t, "DELETE", all, "", 200)
	r.neverSaw(t, "MARKER-blue")
	if got := admin(t, "", "get", "deployments", "--namespace=ways", "-o", "name"); got != "deployment.apps/blue\n" {
		t.Errorf("there is now %s", got)
	}
	// Who acts as somebody of another team has neither's.
	if out := must(t, p.Kubeconfig(world.Token("rita")), "", "get", "deployments", "--namespace=ways", "-o", "name", "--as=bill", "--as-group=system:masters", "--as-group=team:blue"); out != "" {
		t.Errorf("seen through impersonation: %s", out)
	}
}

// TestWatchesEndWhenThePolicyChanges has a caller be told to list anew, and audited
// policies leave all alone.
func TestWatchesEndWhenThePolicyChanges(t *testing.T) {
	apply(t, namespace("changing", "")+settings("changing", "a", "team: red", "mine")+settings("changing", "b", "team: blue", "theirs"))
	p := newProxy(t)
	selects(t, "own-objects", teams, ofTeams, ownObjects(t))
	r := newTenant(t, p, "rita")
	const all = "/api/v1/namespaces/changing/configmaps"
	before := r.is(t, "GET", all, "", 200, `"mine"`)
	if strings.Contains(before, "theirs") {
		t.Errorf("listed %s", before)
	}
	// The first watch may have to begin anew: since when the view is in force is not
	// known before.
	from := "&resourceVersion=" + versionOf(t, before)
	watched := make(chan string, 1)
	go func() {
		_, text := r.do(t, "GET", all+"?watch=true&timeoutSeconds=600"+from, "")
		watched <- text
	}()
	until(t, "the watch is open, or over", func() bool { return p.Gauge("portico_longrunning_requests") > 0 || len(watched) > 0 })
	admin(t, "", "patch", "filterbinding", "own-objects", "--type=merge", "-p", `{"spec":{"mode":"Audit"}}`)
	if text := <-watched; !strings.Contains(text, `"code":410`) || !strings.Contains(text, "Expired") {
		t.Errorf("it ended with %s", text)
	}
	until(t, "it is audited only", func() bool {
		_, text := r.do(t, "GET", all, "")
		return strings.Contains(text, "theirs")
	})
	r.is(t, "GET", all+"/b", "", 200, "theirs")
}

func quoted(s string) string {
	return `"` + strings.NewReplacer("\\", `\\`, `"`, `\"`, "\n", `\n`, "\t", `\t`).Replace(s) + `"`
}

func TestTheAPIServerRefusesBadBindingsOfViews(t *testing.T) {
	for match, want := range map[string]string{
		`{}`: "name users or groups", `{"userAgents":["x"]}`: "name users or groups",
		`{"users":["a"],"verbs":["list"]}`: "match users and groups only", `{"users":["a"],"resources":[{"resource":"pods"}]}`: "match users and groups only",
	} {
		out, err := kubectl(world.KubeconfigPath(), `{"apiVersion":"proxy.elf.io/v1alpha1","kind":"FilterBinding","metadata":{"name":"bad"},"spec":{"phase":"View","filterRef":{"kind":"RegoPolicy","name":"x"},"match":`+match+`}}`, "create", "-f", "-")
		if err == nil || !strings.Contains(out, want) {
			t.Errorf("%s: %v\n%s", match, err, out)
		}
	}
}

// TestStatusSaysWhatASelectorMayNotDependOn names line and column.
func TestStatusSaysWhatASelectorMayNotDependOn(t *testing.T) {
	proxy.New(t, proxy.Options{Kubeconfig: world.KubeconfigPath()})
	apply(t, `apiVersion: proxy.elf.io/v1alpha1
kind: RegoPolicy
metadata: {name: by-verb}
spec:
  rego: |
    package by_verb

    selectors contains {"namespaces": ["x"]} if input.verb == "list"
`)
	until(t, "the status says where the mistake is", func() bool {
		out, err := world.Kubectl(context.Background(), world.KubeconfigPath(), "get", "regopolicy", "by-verb", "-o", `jsonpath={.status.conditions[?(@.type=="Compiled")].message}`).Output()
		return err == nil && strings.Contains(string(out), "spec.rego, line 3, column 45: selectors may not depend on input.verb")
	})
}
