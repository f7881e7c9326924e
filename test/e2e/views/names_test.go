package views

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"
)

// renaming puts a view in force by which a tenant's namespaces begin with a prefix
// in the cluster.
func renaming(t *testing.T, user, prefix string) {
	t.Helper()
	show(t, "names-of-"+user, "  subjects: {users: ["+user+"]}\n  namespaces: {prefix: "+prefix+"}\n")
}

// called is what a tenant calls what there is in namespaces that begin with a prefix.
func called(t *testing.T, c kubernetes.Interface, prefix string, own ...string) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, ns := range own {
		for what, rv := range due(t, c, prefix+ns) {
			all[strings.Replace(what, prefix, "", 1)] = rv
		}
	}
	return all
}

// inTeam follows the Deployments of one namespace of a tenant's.
func inTeam(t *testing.T, a *tenant) func() map[string]string {
	t.Helper()
	client, err := kubernetes.NewForConfig(a.cfg)
	if err != nil {
		t.Fatal(err)
	}
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithNamespace("team"))
	lister := factory.Apps().V1().Deployments().Lister()
	ctx, cancel := context.WithCancel(context.Background())
	factory.StartWithContext(ctx)
	t.Cleanup(func() { cancel(); factory.Shutdown() })
	factory.WaitForCacheSync(ctx.Done())
	return func() map[string]string {
		all := map[string]string{}
		objects, err := lister.List(labels.Everything())
		if err != nil {
			t.Error(err)
		}
		for _, d := range objects {
			all["deployment "+d.Namespace+"/"+d.Name] = d.ResourceVersion
		}
		return all
	}
}

// Two tenants each have a default and a team of their own, and follow them while
// somebody in the cluster changes what is in them, and they themselves do.
func TestTwoTenantsHaveNamespacesOfOneName(t *testing.T) {
	prefixes := map[string]string{"kate": "kt7x-", "liam": "lm7x-"}
	var all []string
	for _, prefix := range prefixes {
		apply(t, namespace(prefix+"default", "")+namespace(prefix+"team", ""))
		all = append(all, prefix+"default", prefix+"team")
	}
	direct, err := kubernetes.NewForConfig(world.Config())
	if err != nil {
		t.Fatal(err)
	}
	churn(t, direct, 1, all...)
	p := newProxy(t)
	followers := map[string]*follower{}
	teams := map[string]func() map[string]string{}
	for user, prefix := range prefixes {
		renaming(t, user, prefix)
		a := newTenant(t, p, user)
		followers[user], teams[user] = follow(t, a, user), inTeam(t, a)
	}
	for n := 2; n < 40; n++ {
		churn(t, direct, n, all...)
		for user, f := range followers {
			own, err := kubernetes.NewForConfig(f.cfg)
			if err != nil {
				t.Fatal(err)
			}
			churnOwn(t, own, user, n)
		}
	}
	for user, f := range followers {
		want := called(t, direct, prefixes[user], "default", "team")
		until(t, user+" has all that there is for him", func() bool { return maps.Equal(f.has(t), want) })
		team := called(t, direct, prefixes[user], "team")
		maps.DeleteFunc(team, func(what, _ string) bool { return strings.HasPrefix(what, "configmap") })
		until(t, user+" has his team's", func() bool { return maps.Equal(teams[user](), team) })
		namespaces := namesOf(t, f.tenant, "/api/v1/namespaces")
		if strings.Join(namespaces, " ") != "default team" {
			t.Errorf("%s has the namespaces %v", user, namespaces)
		}
	}
	followers["kate"].neverSaw(t, "kt7x", "lm7x", "OF-LM7X")
	followers["liam"].neverSaw(t, "kt7x", "lm7x", "OF-KT7X")
}

// churnOwn writes the n-th change of a tenant's own, by the names that he knows.
func churnOwn(t *testing.T, c kubernetes.Interface, user string, n int) {
	t.Helper()
	for _, ns := range []string{"default", "team"} {
		name := fmt.Sprintf("of-%s-%d", user, n%5)
		object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: ns}, Data: map[string]string{"n": fmt.Sprint(n)}}
		made, err := c.CoreV1().ConfigMaps(ns).Create(t.Context(), object, metav1.CreateOptions{})
		switch {
		case apierrors.IsAlreadyExists(err) && n%2 == 0:
			made, err = c.CoreV1().ConfigMaps(ns).Update(t.Context(), object, metav1.UpdateOptions{})
		case apierrors.IsAlreadyExists(err):
			err = c.CoreV1().ConfigMaps(ns).Delete(t.Context(), name, metav1.DeleteOptions{})
		}
		if err != nil || made != nil && made.Name != "" && made.Namespace != ns {
			t.Fatalf("%s: %v, got %v", ns, err, made)
		}
	}
}

// namesOf lists what a path has, page by page of one object each.
func namesOf(t *testing.T, a *tenant, path string) (names []string) {
	t.Helper()
	token := ""
	for {
		answer := a.is(t, "GET", path+"?limit=1&resourceVersion=&continue="+url.QueryEscape(token), "", 200)
		var page struct {
			Metadata metav1.ListMeta                `json:"metadata"`
			Items    []metav1.PartialObjectMetadata `json:"items"`
		}
		if err := json.Unmarshal([]byte(answer), &page); err != nil {
			t.Fatal(err)
		}
		for i := range page.Items {
			names = append(names, strings.TrimPrefix(page.Items[i].Namespace+"/", "/")+page.Items[i].Name)
		}
		if token = page.Metadata.Continue; token == "" {
			return names
		}
		raw, err := base64.RawURLEncoding.DecodeString(token)
		if err != nil || strings.Contains(string(raw), "mn7x") {
			t.Errorf("the token of the next page says %s, %v", raw, err)
		}
	}
}

func TestATenantWorksByHisOwnNames(t *testing.T) {
	apply(t, namespace("mn7x-default", "")+namespace("mn7x-team", "")+settings("mn7x-default", "a", "", "mine")+settings("mn7x-team", "b", "", "mine")+settings("default", "c", "", "MARKER")+`---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: of-the-cluster, namespace: mn7x-team}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}
subjects: [{kind: ServiceAccount, name: marker-of-others, namespace: kube-system}]
---
apiVersion: v1
kind: Event
metadata: {name: told, namespace: mn7x-team}
involvedObject: {apiVersion: v1, kind: Pod, namespace: mn7x-team, name: web}
message: assigned mn7x-team/web to a node
reason: Scheduled
type: Normal
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: default, namespace: mn7x-team}
---
apiVersion: v1
kind: Pod
metadata: {name: apart, namespace: mn7x-team}
spec:
  automountServiceAccountToken: false
  containers: [{name: web, image: web}]
  affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: x, namespaces: [kube-system], labelSelector: {matchLabels: {is: marker-of-others}}}]}}
---
apiVersion: v1
kind: Secret
metadata: {name: old-token, namespace: mn7x-team, annotations: {kubernetes.io/service-account.name: none}}
type: kubernetes.io/service-account-token
data: {token: TUFSS0VS}
`)
	p := newProxy(t)
	renaming(t, "mona", "mn7x-")
	t.Cleanup(func() { admin(t, "", "delete", "namespace", "--ignore-not-found", "--wait=false", "mn7x-made") })
	m := newTenant(t, p, "mona")

	m.is(t, "GET", "/api/v1/namespaces/default", "", 200, `"name":"default"`, `"kubernetes.io/metadata.name":"default"`)
	m.is(t, "GET", "/api/v1/namespaces/kube-system", "", 404, `namespaces \"kube-system\" not found`)
	m.is(t, "GET", "/api/v1/namespaces/default/configmaps/c", "", 404, `configmaps \"c\" not found`)
	m.is(t, "GET", "/api/v1/namespaces/mn7x-default/configmaps/a", "", 404)
	if got := namesOf(t, m, "/api/v1/configmaps"); strings.Join(got, " ") != "default/a team/b" {
		t.Errorf("ConfigMaps are %v", got)
	}
	m.is(t, "GET", "/api/v1/configmaps?fieldSelector=metadata.namespace%3Dteam", "", 200, `"name":"b"`)
	m.is(t, "GET", "/api/v1/namespaces?labelSelector=kubernetes.io/metadata.name%3Dteam", "", 200, `"name":"team"`)
	m.is(t, "GET", "/api/v1/namespaces/team/events", "", 200, "assigned team/web to a node", `"namespace":"team"`)
	m.is(t, "GET", "/api/v1/events?fieldSelector=involvedObject.namespace%3Dteam", "", 200, "assigned team/web to a node")
	m.is(t, "GET", "/apis/rbac.authorization.k8s.io/v1/namespaces/team/rolebindings", "", 200, `"items":[]`)
	leavesAlone(t, m)
	m.is(t, "GET", "/api/v1/namespaces/team/pods/none/log", "", 404, `pods \"none\" not found`)
	m.is(t, "POST", "/api/v1/namespaces/team/serviceaccounts/default/token", asJSON+`{}`, 403, "as the cluster does")
	m.is(t, "POST", "/api/v1/namespaces/team/configmaps", asJSON+`{"metadata":{"name":"x","namespace":"default"}}`, 400, "does not match")
	m.is(t, "POST", "/api/v1/namespaces/none/configmaps", asJSON+`{"metadata":{"name":"x"}}`, 404, `namespaces \"none\" not found`)
	m.is(t, "POST", "/api/v1/namespaces", asJSON+`{"metadata":{"name":"team"}}`, 409, `namespaces \"team\" already exists`)
	m.is(t, "POST", "/api/v1/namespaces", asJSON+`{"metadata":{"name":"made"}}`, 201, `"name":"made"`)
	m.is(t, "POST", "/api/v1/namespaces", asJSON+`{"metadata":{"name":"`+strings.Repeat("n", 60)+`"}}`, 422, "no more than 63")
	m.is(t, "POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", asJSON+`{"spec":{"resourceAttributes":{"namespace":"team","verb":"get","resource":"pods"}}}`, 201, `"allowed":true`, `"namespace":"team"`)
	m.is(t, "POST", "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", asJSON+`{"spec":{"namespace":"team"}}`, 201, `"resourceRules"`)
	m.is(t, "PATCH", "/api/v1/namespaces/team/configmaps/b", asOps+`[{"op":"copy","from":"/metadata/namespace","path":"/data/x"}]`, 400, "copies or moves")
	m.is(t, "PATCH", "/api/v1/namespaces/team/configmaps/b?fieldManager=m", asApply+`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"b","namespace":"team"},"data":{"more":"x"}}`, 200, `"namespace":"team"`)
	for _, object := range []string{
		`{"metadata":{"name":"own"},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"view"},"subjects":[{"kind":"ServiceAccount","name":"web","namespace":"team"},{"kind":"Group","apiGroup":"rbac.authorization.k8s.io","name":"system:serviceaccounts:default"}]}`,
	} {
		m.is(t, "POST", "/apis/rbac.authorization.k8s.io/v1/namespaces/team/rolebindings", asJSON+object, 201, `"namespace":"team"`, "system:serviceaccounts:default")
	}
	if got := admin(t, "", "get", "rolebinding", "own", "--namespace=mn7x-team", "-o", "jsonpath={.subjects[*].namespace} {.subjects[*].name}"); got != "mn7x-team web system:serviceaccounts:mn7x-default" {
		t.Errorf("the RoleBinding is for %s", got)
	}
	controls(t, m)
	m.is(t, "DELETE", "/api/v1/namespaces/made", "", 200, `"name":"made"`)
	m.neverSaw(t, "mn7x", "MARKER", "marker-of-others", "bW43e", "1uN3", "tbjd4") // the last are base64
}

// leavesAlone has a tenant try to change what does not exist for him in his namespace.
func leavesAlone(t *testing.T, a *tenant) {
	t.Helper()
	const bindings, pod, secrets = "/apis/rbac.authorization.k8s.io/v1/namespaces/team/rolebindings", "/api/v1/namespaces/team/pods/apart", "/api/v1/namespaces/team/secrets"
	before := admin(t, "", "get", "rolebinding/of-the-cluster", "secret/old-token", "pod/apart", "--namespace=mn7x-team", "-o", "jsonpath={.items[*].metadata.uid} {.items[*].metadata.labels}")
	role := `"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"view"}`
	for path, head := range map[string]string{
		bindings + "/of-the-cluster": `"apiVersion":"rbac.authorization.k8s.io/v1","kind":"RoleBinding",` + role + `,"metadata":{"name":"of-the-cluster"`,
		secrets + "/old-token":       `"apiVersion":"v1","kind":"Secret","type":"kubernetes.io/service-account-token","metadata":{"name":"old-token"`,
		pod:                          `"apiVersion":"v1","kind":"Pod","metadata":{"name":"apart"`,
	} {
		a.is(t, "GET", path, "", 404)
		a.is(t, "PUT", path, asJSON+`{`+head+`}}`, 404)
		a.is(t, "PATCH", path, asMerge+`{"metadata":{"labels":{"a":"b"}}}`, 404)
		a.is(t, "PATCH", path, asOps+`[{"op":"add","path":"/metadata/labels","value":{"a":"b"}}]`, 404)
		a.is(t, "PATCH", path+"?fieldManager=m&force=true", asApply+`{`+head+`,"labels":{"a":"b"}}}`, 404)
		a.is(t, "DELETE", path, "", 404)
	}
	a.is(t, "DELETE", bindings, "", 403, "one by one")
	a.is(t, "DELETE", secrets, "", 403, "one by one")
	a.is(t, "GET", pod+"/log", "", 404, `pods \"apart\" not found`)
	a.is(t, "POST", pod+"/exec?command=x&stdout=true", "", 404, `pods \"apart\" not found`)
	a.is(t, "POST", pod+"/eviction", asJSON+`{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":"apart"}}`, 404)
	a.is(t, "POST", "/api/v1/namespaces/team/bindings", asJSON+`{"metadata":{"name":"apart"},"target":{"kind":"Node","name":"none"}}`, 403)
	a.is(t, "POST", secrets, asJSON+`{"metadata":{"name":"mine","annotations":{"kubernetes.io/service-account.name":"default"}},"type":"kubernetes.io/service-account-token"}`, 403, "would not exist")
	if after := admin(t, "", "get", "rolebinding/of-the-cluster", "secret/old-token", "pod/apart", "--namespace=mn7x-team", "-o", "jsonpath={.items[*].metadata.uid} {.items[*].metadata.labels}"); after != before {
		t.Errorf("there was %s, and is %s", before, after)
	}
	// What is his he makes, changes and deletes as ever.
	object := `{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"RoleBinding",` + role + `,"metadata":{"name":"applied"},"subjects":[{"kind":"ServiceAccount","name":"web","namespace":"team"}]}`
	a.is(t, "PATCH", bindings+"/applied?fieldManager=m", asApply+object, 201, `"namespace":"team"`)
	a.is(t, "PATCH", bindings+"/applied?fieldManager=m", asApply+strings.Replace(object, `"web"`, `"db"`, 1), 200, `"name":"db"`)
	a.is(t, "PATCH", bindings+"/applied", asOps+`[{"op":"add","path":"/metadata/labels","value":{"a":"b"}}]`, 200, `"a":"b"`)
	a.is(t, "DELETE", bindings+"/applied", "", 200)
}

// controls has a controller-runtime client do what a controller does.
func controls(t *testing.T, a *tenant) {
	t.Helper()
	cfg := rest.CopyConfig(a.cfg)
	c, err := crclient.New(cfg, crclient.Options{Scheme: scheme.Scheme})
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	binding := &rbacv1.RoleBinding{}
	key := crclient.ObjectKey{Namespace: "team", Name: "own"}
	err = errors.Join(c.Get(ctx, key, binding), c.Patch(ctx, binding.DeepCopy(), crclient.RawPatch(crclient.Merge.Type(), []byte(`{"metadata":{"labels":{"a":"b"}}}`))), c.Get(ctx, key, binding))
	if err != nil || binding.Labels["a"] != "b" || binding.Subjects[0].Namespace != "team" {
		t.Errorf("%v, %v", binding, err)
	}
	binding.Annotations = map[string]string{"written": "back"}
	if err := c.Update(ctx, binding); err != nil || binding.Namespace != "team" {
		t.Errorf("%v, %v", binding, err)
	}
	var all corev1.ConfigMapList
	if err := c.List(ctx, &all, crclient.InNamespace("team")); err != nil || len(all.Items) == 0 || all.Items[0].Namespace != "team" {
		t.Errorf("%v, %v", all.Items, err)
	}
	if err := c.DeleteAllOf(ctx, &corev1.ConfigMap{}, crclient.InNamespace("team")); err != nil {
		t.Error(err)
	}
	if err := c.Delete(ctx, binding); err != nil {
		t.Error(err)
	}
	if err := c.Get(ctx, key, binding); !apierrors.IsNotFound(err) {
		t.Errorf("it is still there: %v", err)
	}
}

func TestNamesMayBeToldOneByOneAndChange(t *testing.T) {
	apply(t, namespace("rn7x-main", "")+namespace("rn7x-other", "")+settings("rn7x-main", "a", "", "mine")+settings("rn7x-other", "b", "", "mine")+settings("default", "c", "", "MARKER"))
	p := newProxy(t)
	const spec = "  subjects: {users: [oona]}\n  namespaces: {names: [rn7x-*, default], renamed: [{name: NAME, cluster: rn7x-main}]}\n"
	show(t, "one-by-one", strings.Replace(spec, "NAME", "default", 1))
	o := newTenant(t, p, "oona")
	const all = "/api/v1/configmaps"
	if got := namesOf(t, o, "/api/v1/namespaces"); strings.Join(got, " ") != "default rn7x-other" {
		t.Errorf("namespaces are %v", got)
	}
	o.is(t, "GET", "/api/v1/namespaces/default/configmaps", "", 200, `"name":"a"`, `"namespace":"default"`)
	o.is(t, "GET", "/api/v1/namespaces/rn7x-main", "", 404, `namespaces \"rn7x-main\" not found`)
	o.is(t, "GET", "/api/v1/namespaces/rn7x-main/configmaps", "", 200, `"items":[]`)
	o.is(t, "PUT", "/api/v1/namespaces/rn7x-main/configmaps/a", asJSON+`{"metadata":{"name":"a","namespace":"rn7x-main"}}`, 404)
	o.is(t, "POST", "/api/v1/namespaces/rn7x-main/configmaps", asJSON+`{"metadata":{"name":"a"}}`, 404, `namespaces \"rn7x-main\" not found`)
	o.is(t, "POST", "/api/v1/namespaces", asJSON+`{"metadata":{"name":"rn7x-main"}}`, 403, `namespaces \"rn7x-main\" is forbidden`)
	before := versionOf(t, o.is(t, "GET", all, "", 200, `"namespace":"default"`))
	watched := make(chan string, 1)
	go func() {
		_, text := o.do(t, "GET", all+"?watch=true&timeoutSeconds=600&resourceVersion="+before, "")
		watched <- text
	}()
	until(t, "the watch is open", func() bool { return p.Gauge("portico_longrunning_requests") > 0 })
	show(t, "one-by-one", strings.Replace(spec, "NAME", "home", 1))
	if text := <-watched; !strings.Contains(text, `"code":410`) {
		t.Errorf("the watch ended with %s", text)
	}
	until(t, "the namespace has its new name", func() bool {
		code, text := o.do(t, "GET", "/api/v1/namespaces/home/configmaps/a", "")
		return code == 200 && strings.Contains(text, `"namespace":"home"`)
	})
	o.is(t, "GET", "/api/v1/namespaces/default/configmaps/c", "", 200, "MARKER") // which nothing else is called any more
	_, text := o.do(t, "GET", all+"?watch=true&timeoutSeconds=1&resourceVersion="+before, "")
	if !strings.Contains(text, `"code":410`) {
		t.Errorf("the watch goes on from before: %s", text)
	}
}
