package views

import (
	"encoding/json"
	"strings"
	"testing"
)

const (
	asJSON  = "application/json|"
	asMerge = "application/merge-patch+json|"
	asOps   = "application/json-patch+json|"
	asSMP   = "application/strategic-merge-patch+json|"
	asApply = "application/apply-patch+yaml|"
)

// settings is a ConfigMap that is marked.
func settings(namespace, name, labels, value string) string {
	return "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: " + name + ", namespace: " + namespace + ", labels: {" + labels + "}}\ndata: {key: " + value + "}\n"
}

func namespace(name, labels string) string {
	return "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: " + name + ", labels: {" + labels + "}}\n"
}

func TestWhatIsInOtherNamespacesDoesNotExist(t *testing.T) {
	apply(t, namespace("mine-1", "")+namespace("theirs-1", "")+settings("mine-1", "a", "", "mine")+settings("theirs-1", "b", "", "MARKER"))
	p := newProxy(t)
	show(t, "names", "  subjects: {users: [anna]}\n  namespaces: {names: [mine-1, mine-x*]}\n")
	a := newTenant(t, p, "anna")

	a.is(t, "GET", "/api/v1/namespaces/mine-1", "", 200)
	a.is(t, "GET", "/api/v1/namespaces/theirs-1", "", 404, `namespaces \"theirs-1\" not found`)
	if names := a.is(t, "GET", "/api/v1/namespaces", "", 200, "mine-1"); strings.Contains(names, "default") {
		t.Errorf("listed %s", names)
	}
	const theirs = "/api/v1/namespaces/theirs-1/configmaps"
	a.is(t, "GET", theirs+"/b", "", 404, `configmaps \"b\" not found`)
	a.is(t, "GET", theirs, "", 200, `"kind":"ConfigMapList"`, `"items":[]`)
	a.is(t, "GET", theirs+"?limit=1&labelSelector=a", "", 200, `"items":[]`)
	a.is(t, "GET", "/api/v1/configmaps", "", 200, `"mine"`)
	a.is(t, "DELETE", theirs, "", 200)
	a.is(t, "DELETE", theirs+"/b", "", 404)
	a.is(t, "PATCH", theirs+"/b", asMerge+`{"data":{"x":"y"}}`, 404, `configmaps \"b\" not found`)
	a.is(t, "PUT", theirs+"/b", asJSON+`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"b"}}`, 404)
	object := `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"b","namespace":"theirs-1"}}`
	a.is(t, "PATCH", theirs+"/b?fieldManager=x", asApply+object, 404, `namespaces \"theirs-1\" not found`)
	a.is(t, "POST", theirs, asJSON+object, 404, `namespaces \"theirs-1\" not found`)
	a.is(t, "POST", "/api/v1/namespaces", asJSON+`{"metadata":{"name":"theirs-1"}}`, 403, "would not exist")
	a.is(t, "GET", "/api/v1/namespaces/theirs-1/pods/web/log", "", 404, `pods \"web\" not found`)
	a.is(t, "GET", "/api/v1/namespaces/theirs-1/services/https:web:443/proxy/", "", 404, `services \"web\" not found`)
	a.is(t, "GET", "/api/v1/nodes/n1/proxy/pods", "", 403)
	a.is(t, "POST", "/api/v1/namespaces/theirs-1/serviceaccounts/default/token", asJSON+`{}`, 404)
	review := asJSON + `{"apiVersion":"authorization.k8s.io/v1","kind":"SelfSubjectAccessReview","spec":{"resourceAttributes":{"namespace":"NS","verb":"get","resource":"pods"}}}`
	a.is(t, "POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", strings.Replace(review, "NS", "mine-1", 1), 201, `"allowed":true`)
	a.is(t, "POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", strings.Replace(review, "NS", "theirs-1", 1), 201, `"allowed":false`)
	rules := asJSON + `{"apiVersion":"authorization.k8s.io/v1","kind":"SelfSubjectRulesReview","spec":{"namespace":"theirs-1"}}`
	a.is(t, "POST", "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", rules, 201, `"resourceRules":[]`)
	a.is(t, "PATCH", "/api/v1/namespaces/mine-1/configmaps/a", asMerge+`{"data":{"x":"y"}}`, 200)
	a.neverSaw(t, "MARKER")
	if got := admin(t, "", "get", "configmap", "--namespace=theirs-1", "b", "-o", "jsonpath={.data}"); got != `{"key":"MARKER"}` {
		t.Errorf("it is now %s", got)
	}
	// Others see everything, and who acts as her does not.
	newTenant(t, p, "bert").is(t, "GET", theirs+"/b", "", 200, "MARKER")
	if out, err := kubectl(p.Kubeconfig(world.Token("bert")), "", "get", "configmap", "b", "--namespace=theirs-1", "--as=anna"); err == nil {
		t.Errorf("seen through impersonation: %s", out)
	}
}

func TestObjectsExistByWhatTheyAre(t *testing.T) {
	apply(t, namespace("shared", ""))
	p := newProxy(t)
	show(t, "labels", "  subjects: {users: [carl]}\n  objects:\n  - resources: [{resource: configmaps}]\n    selector: {matchLabels: {tenant: c}}\n")
	existByLabel(t, newTenant(t, p, "carl"), "shared")
}

// existByLabel has c see ConfigMaps of tenant c, and no others, in a namespace.
func existByLabel(t *testing.T, c *tenant, namespace string) {
	apply(t, settings(namespace, "mine", "tenant: c", "mine")+settings(namespace, "theirs", "tenant: d", "MARKER"))
	all := "/api/v1/namespaces/" + namespace + "/configmaps"
	list := c.is(t, "GET", all, "", 200, `"mine"`)
	if strings.Contains(list, "theirs") {
		t.Errorf("listed %s", list)
	}
	object := func(name, label string) string {
		return `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"` + name + `","labels":{"tenant":"` + label + `"}},"data":{"new":"x"}}`
	}
	c.is(t, "GET", all+"/theirs", "", 404, `configmaps \"theirs\" not found`)
	c.is(t, "DELETE", all+"/theirs", "", 404)
	c.is(t, "PUT", all+"/theirs", asJSON+object("theirs", "c"), 404)
	c.is(t, "PATCH", all+"/theirs", asMerge+`{"metadata":{"labels":{"tenant":"c"}}}`, 404)
	c.is(t, "PATCH", all+"/theirs?fieldManager=x&force=true", asApply+object("theirs", "c"), 404)
	c.is(t, "POST", all, asJSON+object("theirs", "c"), 409, "already exists") // which cannot be helped
	c.is(t, "POST", all, asJSON+object("new", "d"), 403, "would not exist")
	c.is(t, "PUT", all+"/mine", asJSON+object("mine", "d"), 403)
	c.is(t, "PATCH", all+"/mine", asMerge+`{"metadata":{"labels":{"tenant":"d"}}}`, 403)
	c.is(t, "PATCH", all+"/mine", asOps+`[{"op":"remove","path":"/metadata/labels/tenant"}]`, 403)
	c.is(t, "PATCH", all+"/mine?fieldManager=x&force=true", asApply+object("mine", "c"), 200, `"new":"x"`)
	c.is(t, "PATCH", all+"/mine", asOps+`[{"op":"add","path":"/data/ops","value":"y"}]`, 200, `"ops":"y"`)
	c.is(t, "PATCH", all+"/mine?dryRun=All", asSMP+`{"data":{"smp":"z"}}`, 200, `"smp":"z"`)
	c.is(t, "PUT", all+"/mine", asJSON+object("mine", "c"), 200)
	c.is(t, "PUT", all+"/mine", asJSON+strings.Replace(object("mine", "c"), `"metadata":{`, `"metadata":{"resourceVersion":"1",`, 1), 409, "has been modified")
	c.is(t, "DELETE", all, "", 200) // what her selector leaves out stays
	c.is(t, "GET", all+"/mine", "", 404)
	c.is(t, "POST", all, asJSON+object("mine", "c"), 201)
	c.is(t, "DELETE", all+"/mine?dryRun=All&propagationPolicy=Background", "", 200)
	c.is(t, "DELETE", all+"/mine", asJSON+`{"kind":"DeleteOptions","apiVersion":"v1","preconditions":{"uid":"other"}}`, 409)
	c.is(t, "DELETE", all+"/mine", asJSON+`{"kind":"DeleteOptions","apiVersion":"v1","gracePeriodSeconds":0}`, 200)
	c.neverSaw(t, "MARKER")
	if got := admin(t, "", "get", "configmap", "--namespace="+namespace, "theirs", "-o", "jsonpath={.data}{.metadata.labels}"); got != `{"key":"MARKER"}{"tenant":"d"}` {
		t.Errorf("it is now %s", got)
	}
}

func TestMaskedFieldsSurviveAWriteBack(t *testing.T) {
	apply(t, namespace("masked", "")+`---
apiVersion: v1
kind: Secret
metadata: {name: key, namespace: masked, annotations: {note: MARKER-note}}
stringData: {password: MARKER-password}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: masked}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: one, image: one, env: [{name: MARKER-name, value: MARKER-value}]}
      - {name: two, image: two}
`)
	p := newProxy(t)
	show(t, "masks", `  subjects: {users: [dora]}
  masks:
  - resources: [{resource: secrets}]
    paths: [/data/*, /metadata/annotations/note]
  - resources: [{group: apps, resource: deployments}]
    paths: [/spec/template/spec/containers/*/env]
`)
	d := newTenant(t, p, "dora")
	const secret, web = "/api/v1/namespaces/masked/secrets/key", "/apis/apps/v1/namespaces/masked/deployments/web"
	got := d.is(t, "GET", secret, "", 200)
	changed := strings.Replace(got, `"name":"key"`, `"name":"key","labels":{"a":"b"}`, 1)
	d.is(t, "PUT", secret+"?dryRun=All", asJSON+changed, 200, `"a":"b"`)
	d.is(t, "PUT", secret, asJSON+changed, 200, `"a":"b"`)
	d.is(t, "PUT", secret, asJSON+changed, 409) // her resourceVersion is old by now
	fresh := d.is(t, "GET", secret, "", 200)
	d.is(t, "PUT", secret, asJSON+strings.Replace(fresh, `"data":{}`, `"data":{"password":"eA=="}`, 1), 403, "do not exist for you")
	d.is(t, "PATCH", secret, asMerge+`{"data":{"password":"eA=="}}`, 403)
	d.is(t, "PATCH", secret, asMerge+`{"data":null}`, 403)
	d.is(t, "PATCH", secret, asOps+`[{"op":"test","path":"/data/password","value":"x"}]`, 403)
	d.is(t, "PATCH", secret, asOps+`[{"op":"copy","from":"/data","path":"/metadata/annotations/x"}]`, 403)
	d.is(t, "PATCH", secret, asOps+`[{"op":"replace","path":"/metadata","value":{}}]`, 403)
	d.is(t, "PATCH", secret, asMerge+`{"metadata":{"labels":{"a":"c"}}}`, 200, `"a":"c"`)
	d.is(t, "PATCH", secret+"?fieldManager=d", asApply+`{"apiVersion":"v1","kind":"Secret","metadata":{"name":"key","labels":{"x":"y"}}}`, 200, `"x":"y"`)
	d.is(t, "PATCH", secret, asMerge+`{"immutable":"MARKER"}`, 422, "refuses the change")
	d.is(t, "GET", "/api/v1/namespaces/masked/secrets?fieldSelector=data.password%3Dx", "", 400)
	d.is(t, "PATCH", web, asSMP+`{"spec":{"template":{"spec":{"$setElementOrder/containers":[{"name":"one"},{"name":"two"}],"containers":[{"name":"one","image":"new"}]}}}}`, 200, `"new"`)
	d.is(t, "PATCH", web, asMerge+`{"spec":{"template":{"spec":{"containers":[{"name":"one","image":"newer"}]}}}}`, 403)
	d.is(t, "PATCH", web, asSMP+`{"spec":{"template":{"spec":{"containers":[{"name":"one","$patch":"delete"}]}}}}`, 403)
	d.is(t, "PATCH", web, asMerge+`{"spec":{"selector":{"matchLabels":{"x":"y"}}}}`, 422, "refuses the change")
	d.neverSaw(t, "MARKER", "TUFSS0VS") // which is base64

	b := newTenant(t, p, "bert")
	b.is(t, "GET", secret, "", 200, "TUFSS0VSLXBhc3N3b3Jk", "MARKER-note", `"a":"c"`)
	b.is(t, "GET", web, "", 200, "MARKER-value", `"image":"new"`)
}

func TestEventsAndVolumesExistWithWhatTheyTellOf(t *testing.T) {
	apply(t, namespace("told", "")+`---
apiVersion: v1
kind: Event
metadata: {name: hidden, namespace: told}
involvedObject: {apiVersion: v1, kind: Pod, namespace: told, name: MARKER}
message: MARKER
---
apiVersion: v1
kind: Event
metadata: {name: shown, namespace: told}
involvedObject: {apiVersion: v1, kind: ConfigMap, namespace: told, name: settings}
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: hidden-volume}
spec: {capacity: {storage: 1Gi}, accessModes: [ReadWriteOnce], hostPath: {path: /tmp}, claimRef: {namespace: MARKER, name: MARKER}}
`)
	p := newProxy(t)
	show(t, "told", `  subjects: {users: [emil]}
  namespaces: {names: [told]}
  hidden: [{resource: secrets}]
  objects:
  - resources: [{resource: pods}]
    selector: {matchLabels: {tenant: e}}
`)
	e := newTenant(t, p, "emil")
	e.is(t, "GET", "/api/v1/namespaces/told/events/shown", "", 200)
	e.is(t, "GET", "/api/v1/namespaces/told/events/hidden", "", 404)
	e.is(t, "GET", "/apis/events.k8s.io/v1/events", "", 200, `"shown"`)
	e.is(t, "GET", "/api/v1/persistentvolumes", "", 200, `"items":[]`)
	e.is(t, "DELETE", "/api/v1/persistentvolumes/hidden-volume", "", 404)
	e.is(t, "DELETE", "/api/v1/namespaces/told/events", "", 403, "one by one")
	e.is(t, "GET", "/api/v1/namespaces/told/secrets", "", 200, `"items":[]`)
	e.is(t, "POST", "/api/v1/namespaces/told/bindings", asJSON+`{"metadata":{"name":"x"},"target":{"name":"n"}}`, 403)
	e.neverSaw(t, "MARKER")
}

func TestTheAPIServerRefusesBadViews(t *testing.T) {
	for name, tt := range map[string]struct{ spec, want string }{
		"of-nobody":      {`{"subjects":{}}`, "name users or groups"},
		"of-no-names":    {`{"subjects":{"users":["a"]},"namespaces":{}}`, "set names, selector, prefix or renamed"},
		"two-names":      {`{"subjects":{"users":["a"]},"namespaces":{"renamed":[{"name":"a","cluster":"x"},{"name":"b","cluster":"x"}]}}`, "two names"},
		"one-name":       {`{"subjects":{"users":["a"]},"namespaces":{"renamed":[{"name":"a","cluster":"x"},{"name":"a","cluster":"y"}]}}`, "Duplicate value"},
		"no-dash":        {`{"subjects":{"users":["a"]},"namespaces":{"prefix":"tenant"}}`, "spec.namespaces.prefix"},
		"rule-of-all":    {`{"subjects":{"users":["a"]},"objects":[{"resources":[{"resource":"pods"}]}]}`, "set names, selector, owners or fields"},
		"subresource":    {`{"subjects":{"users":["a"]},"hidden":[{"resource":"pods/exec"}]}`, "spec.hidden[0].resource"},
		"masked-name":    {`{"subjects":{"users":["a"]},"masks":[{"resources":[{"resource":"pods"}],"paths":["/metadata/name"]}]}`, "what an object is cannot be masked"},
		"masked-all":     {`{"subjects":{"users":["a"]},"masks":[{"resources":[{"resource":"pods"}],"paths":["/*"]}]}`, "what an object is cannot be masked"},
		"no-pointer":     {`{"subjects":{"users":["a"]},"masks":[{"resources":[{"resource":"pods"}],"paths":["data"]}]}`, "spec.masks[0].paths[0]"},
		"mode-of-no-use": {`{"subjects":{"users":["a"]},"mode":"Off"}`, "spec.mode"},
	} {
		out, err := kubectl(world.KubeconfigPath(), `{"apiVersion":"proxy.elf.io/v1alpha1","kind":"VirtualView","metadata":{"name":"bad"},"spec":`+tt.spec+`}`, "create", "-f", "-")
		if err == nil || !strings.Contains(out, tt.want) {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
	out := ""
	until(t, "the kind is explained", func() bool {
		explained, err := kubectl(world.KubeconfigPath(), "", "explain", "virtualviews.spec.masks.paths")
		out = explained
		return err == nil
	})
	if !strings.Contains(out, "JSON pointers") {
		t.Errorf("kubectl explain shows\n%s", out)
	}
}

// versionOf is the resourceVersion of a list or an object.
func versionOf(t *testing.T, answer string) string {
	t.Helper()
	var head struct {
		Metadata struct {
			ResourceVersion string `json:"resourceVersion"`
		} `json:"metadata"`
	}
	if err := json.Unmarshal([]byte(answer), &head); err != nil {
		t.Fatal(err)
	}
	return head.Metadata.ResourceVersion
}

func TestWatchesEndWhenTheViewChanges(t *testing.T) {
	apply(t, namespace("to-have", "of: fred")+namespace("to-lose", "of: fred")+settings("to-have", "a", "", "mine")+settings("to-lose", "b", "", "lost"))
	p := newProxy(t)
	show(t, "selected", "  subjects: {users: [fred]}\n  namespaces: {selector: {matchLabels: {of: fred}}}\n")
	f := newTenant(t, p, "fred")
	const all = "/api/v1/configmaps"
	before := f.is(t, "GET", all, "", 200, `"mine"`, `"lost"`)
	watched := make(chan string, 1)
	go func() {
		_, text := f.do(t, "GET", all+"?watch=true&timeoutSeconds=600&resourceVersion="+versionOf(t, before), "")
		watched <- text
	}()
	until(t, "the watch is open", func() bool { return p.Gauge("portico_longrunning_requests") > 0 })
	admin(t, "", "label", "namespace", "to-lose", "of-")
	if text := <-watched; !strings.Contains(text, `"code":410`) || !strings.Contains(text, "Expired") {
		t.Errorf("the watch ended with %s", text)
	}
	after := f.is(t, "GET", all, "", 200, `"mine"`)
	if strings.Contains(after, `"lost"`) {
		t.Errorf("listed %s", after)
	}
	// Who was between a list and a watch learns of it as well.
	_, text := f.do(t, "GET", all+"?watch=true&timeoutSeconds=1&resourceVersion="+versionOf(t, before), "")
	if !strings.Contains(text, `"code":410`) {
		t.Errorf("the watch goes on from before: %s", text)
	}
	if code, text := f.do(t, "GET", all+"?watch=true&timeoutSeconds=1&resourceVersion="+versionOf(t, f.is(t, "GET", all, "", 200)), ""); code != 200 || text != "" {
		t.Errorf("the watch does not go on from now: %d %s", code, text)
	}
}
