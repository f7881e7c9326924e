package nodes

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
)

const (
	plain     = "application/json"
	merge     = "application/merge-patch+json"
	strategic = "application/strategic-merge-patch+json"
	jsonPatch = "application/json-patch+json"
	applied   = "application/apply-patch+yaml"
)

// A write is a request that changes something.
type write struct {
	method, path, media, body string
}

func event(name, kind, about string) write {
	return write{"POST", ofHome + "/events", plain, fmt.Sprintf(`{"metadata":{"name":%q},"involvedObject":{"kind":%q,"namespace":%q,"name":%q},"reason":"Test"}`, name, kind, home, about)}
}

func tokenFor(account, kind, pod, uid string) write {
	return write{"POST", ofHome + "/serviceaccounts/" + account + "/token", plain, fmt.Sprintf(`{"apiVersion":"authentication.k8s.io/v1","kind":"TokenRequest","spec":{"boundObjectRef":{"apiVersion":"v1","kind":%q,"name":%q,"uid":%q}}}`, kind, pod, uid)}
}

func lease(name string) write {
	return write{"POST", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases", plain, fmt.Sprintf(`{"metadata":{"name":%q},"spec":{"holderIdentity":%q}}`, name, name)}
}

func uidOf(t *testing.T, pod string) string {
	t.Helper()
	p, err := admin.CoreV1().Pods(home).Get(t.Context(), pod, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return string(p.UID)
}

// needed are what kubelets do all day.
func needed(t *testing.T) map[string]write {
	t.Helper()
	const node = "/api/v1/nodes/" + edge
	return map[string]write{
		"lease":        lease(edge),
		"renew":        {"PATCH", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/" + edge, merge, `{"spec":{"leaseDurationSeconds":40}}`},
		"status":       {"PATCH", node + "/status", strategic, `{"status":{"$setElementOrder/conditions":[{"type":"Ready"}],"conditions":[{"type":"Ready","status":"True"}]}}`},
		"status-json":  {"PATCH", node + "/status", jsonPatch, `[{"op":"replace","path":"/status/conditions/0/status","value":"False"}]`},
		"label":        {"PATCH", node, merge, `{"metadata":{"labels":{"edge.example.com/rack":"7"}}}`},
		"annotation":   {"PATCH", node, jsonPatch, `[{"op":"add","path":"/metadata/annotations","value":{}}]`},
		"pod-status":   {"PATCH", ofHome + "/pods/web/status", strategic, `{"metadata":{"uid":"` + uidOf(t, "web") + `"},"status":{"phase":"Running"}}`},
		"unpinned":     {"PATCH", ofHome + "/pods/web/status", merge, `{"status":{"message":"fine"}}`},
		"event":        event("web.1", "Pod", "web"),
		"event-node":   {"POST", "/api/v1/namespaces/default/events", plain, `{"metadata":{"name":"` + edge + `.1"},"involvedObject":{"kind":"Node","name":"` + edge + `"},"reason":"Test"}`},
		"event-again":  {"PATCH", ofHome + "/events/web.1", merge, `{"count":2}`},
		"token":        tokenFor("web", "Pod", "web", uidOf(t, "web")),
		"csi-node":     {"POST", "/apis/storage.k8s.io/v1/csinodes", plain, `{"metadata":{"name":"` + edge + `"},"spec":{"drivers":[]}}`},
		"who-am-i":     {"POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", plain, `{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}`},
		"may-i":        {"POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", plain, `{"spec":{"resourceAttributes":{"verb":"get","resource":"pods"}}}`},
		"token-review": {"POST", "/apis/authentication.k8s.io/v1/tokenreviews", plain, `{"spec":{"token":"x"}}`},
		"may-they":     {"POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", plain, `{"spec":{"user":"jane","resourceAttributes":{"verb":"get","resource":"nodes","subresource":"proxy"}}}`},
	}
}

// forbidden are what no caller of the node may do, though the API server would let it.
func forbidden(t *testing.T) map[string]write {
	t.Helper()
	const node, other = "/api/v1/nodes/" + edge, "/api/v1/nodes/" + vault
	return map[string]write{
		"taint":            {"PATCH", node, strategic, `{"spec":{"taints":[]}}`},
		"cordon":           {"PATCH", node, merge, `{"spec":{"unschedulable":false}}`},
		"cordon-json":      {"PATCH", node, jsonPatch, `[{"op":"add","path":"/spec/unschedulable","value":false}]`},
		"other-label":      {"PATCH", node, merge, `{"metadata":{"labels":{"example.com/zone":"inner"}}}`},
		"own-trust":        {"PATCH", node, merge, `{"metadata":{"labels":{"trust":"high"}}}`},
		"trust-by-status":  {"PATCH", node + "/status", merge, `{"metadata":{"labels":{"trust":null}}}`},
		"no-labels":        {"PATCH", node, merge, `{"metadata":{"labels":null}}`},
		"replace-metadata": {"PATCH", node, strategic, `{"metadata":{"$patch":"replace"}}`},
		"owner":            {"PATCH", node, merge, `{"metadata":{"ownerReferences":[]}}`},
		"apply":            {"PATCH", node + "?fieldManager=kubectl&force=true", applied, `{"apiVersion":"v1","kind":"Node","metadata":{"name":"` + edge + `"}}`},
		"delete-itself":    {"DELETE", node, "", ""},
		"delete-all":       {"DELETE", "/api/v1/nodes", "", ""},
		"other-node":       {"PATCH", other + "/status", merge, `{"status":{"phase":"Running"}}`},
		"other-lease":      lease(vault),
		"renew-other":      {"PUT", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/" + vault, plain, `{"metadata":{"name":"` + vault + `"}}`},
		"lease-elsewhere":  {"POST", "/apis/coordination.k8s.io/v1/namespaces/" + home + "/leases", plain, `{"metadata":{"name":"` + edge + `"}}`},
		"other-status":     {"PATCH", ofHome + "/pods/vault/status", merge, `{"status":{"phase":"Failed"}}`},
		"pod-labels":       {"PATCH", ofHome + "/pods/web/status", merge, `{"metadata":{"labels":{"app":"vault"}}}`},
		"pod-labels-json":  {"PATCH", ofHome + "/pods/web/status", jsonPatch, `[{"op":"copy","from":"/metadata/name","path":"/metadata/labels/app"}]`},
		"pod":              {"PATCH", ofHome + "/pods/web", merge, `{"metadata":{"labels":{"app":"vault"}}}`},
		"delete-other":     {"DELETE", ofHome + "/pods/vault", "", ""},
		"delete-pods":      {"DELETE", ofHome + "/pods", "", ""},
		"evict-other":      {"POST", ofHome + "/pods/vault/eviction", plain, `{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":"vault"}}`},
		"make-pod":         {"POST", ofHome + "/pods", plain, `{"metadata":{"name":"spy"},"spec":{"nodeName":"` + edge + `","containers":[{"name":"c","image":"i"}]}}`},
		"mirror-needs":     {"POST", ofHome + "/pods", plain, `{"metadata":{"name":"spy","annotations":{"kubernetes.io/config.mirror":"x"}},"spec":{"nodeName":"` + edge + `","containers":[{"name":"c","image":"i","envFrom":[{"secretRef":{"name":"vault"}}]}]}}`},
		"bind":             {"POST", ofHome + "/pods/vault/binding", plain, `{"target":{"name":"` + edge + `"}}`},
		"debug":            {"PATCH", ofHome + "/pods/web/ephemeralcontainers", strategic, `{"spec":{"ephemeralContainers":[]}}`},
		"exec":             {"POST", ofHome + "/pods/web/exec?command=sh", "", ""},
		"node-proxy":       {"POST", node + "/proxy/run", "", ""},
		"other-token":      tokenFor("vault", "Pod", "vault", uidOf(t, "vault")),
		"token-by-own-pod": tokenFor("vault", "Pod", "web", uidOf(t, "web")),
		"token-of-node":    tokenFor("web", "Node", edge, ""),
		"unbound-token":    {"POST", ofHome + "/serviceaccounts/web/token", plain, `{"apiVersion":"authentication.k8s.io/v1","kind":"TokenRequest","spec":{}}`},
		"wrong-uid":        tokenFor("web", "Pod", "web", uidOf(t, "vault")),
		"other-event":      event("vault.1", "Pod", "vault"),
		"turn-event":       {"PATCH", ofHome + "/events/web.1", merge, `{"involvedObject":{"name":"vault"}}`},
		"change-event":     {"PATCH", ofHome + "/events/vault.1", merge, `{"count":2}`},
		"secret":           {"POST", ofHome + "/secrets", plain, `{"metadata":{"name":"spy"}}`},
		"change-secret":    {"PATCH", ofHome + "/secrets/web", merge, `{"stringData":{"a":"b"}}`},
		"role":             {"POST", "/apis/rbac.authorization.k8s.io/v1/clusterroles", plain, `{"metadata":{"name":"spy"}}`},
		"policy":           {"DELETE", "/apis/proxy.elf.io/v1alpha1/nodepolicies", "", ""},
		"impersonating":    {"POST", "/api/v1/users", "", ""},
	}
}

const ownNode = "  ownNode:\n    labelPrefixes: [edge.example.com/, trust]\n    annotationPrefixes: [edge.example.com/]\n"

// TestNodeWritesWhatAKubeletMust makes each write through the proxy, as the kubelet
// and as a pod of the node.
func TestNodeWritesWhatAKubeletMust(t *testing.T) {
	p := start(t)
	apply(t, byLabel+ownNode)
	kubelet, pod := newClient(t, p, kubeletOf(t, edge)), newClient(t, p, tokenOf(t, "web"))
	work := needed(t)
	for _, name := range []string{
		"lease", "renew", "status", "status-json", "label", "pod-status", "unpinned", "event", "event-node", "event-again", "token", "csi-node", "who-am-i", "may-i", "token-review", "may-they",
	} {
		w := work[name]
		if a := kubelet.send(w.method, w.path, w.media, w.body); a.code >= 300 {
			t.Errorf("the kubelet cannot %s: %d: %s", name, a.code, a.body)
		}
	}
	for name, w := range forbidden(t) {
		for who, c := range map[string]*client{"kubelet": kubelet, "token": pod} {
			if a := c.send(w.method, w.path, w.media, w.body); !a.refused() {
				t.Errorf("%s as %s: %d: %.300s", name, who, a.code, a.body)
			}
		}
	}
	if a := kubelet.send("PATCH", "/api/v1/nodes/"+edge, jsonPatch, work["annotation"].body); !a.refused() {
		t.Errorf("all annotations at once: %d: %s", a.code, a.body)
	}
	for _, name := range []string{"token-review", "may-they"} {
		if a := pod.send(work[name].method, work[name].path, plain, work[name].body); !a.refused() {
			t.Errorf("a pod may %s: %d: %s", name, a.code, a.body)
		}
	}
	if a := pod.get(ofHome+"/pods/web", "Impersonate-User", "jane"); !a.refused() {
		t.Errorf("as somebody else: %d: %s", a.code, a.body)
	}
	n, err := admin.CoreV1().Nodes().Get(t.Context(), edge, metav1.GetOptions{})
	if err != nil || n.Labels["edge.example.com/rack"] != "7" || n.Labels["trust"] != "low" {
		t.Errorf("the node is %v, %v", n.Labels, err)
	}
}

// TestWholeNodesAreComparedWithWhatThereIs sends the Node as it is, changed and old.
func TestWholeNodesAreComparedWithWhatThereIs(t *testing.T) {
	p := start(t)
	apply(t, byLabel+ownNode)
	c := newClient(t, p, kubeletOf(t, edge))
	const path = "/api/v1/nodes/" + edge
	is := c.get(path).body
	for name, tt := range map[string]struct {
		from, to string
		code     int
	}{
		"spec":       {`"spec":{`, `"spec":{"unschedulable":true,`, http.StatusForbidden},
		"label":      {`"trust":"low"`, `"trust":"high"`, http.StatusForbidden},
		"owner":      {`"labels":{`, `"ownerReferences":[],"finalizers":["a/b"],"labels":{`, http.StatusForbidden},
		"no-version": {`"resourceVersion":"`, `"generateName":"`, http.StatusConflict},
		"old":        {`"resourceVersion":"`, `"resourceVersion":"1`, http.StatusConflict},
	} {
		if a := c.send(http.MethodPut, path, plain, strings.Replace(is, tt.from, tt.to, 1)); a.code != tt.code {
			t.Errorf("%s: %d: %.300s", name, a.code, a.body)
		}
	}
	if a := c.send(http.MethodPut, path, plain, strings.Replace(is, `"labels":{`, `"labels":{"edge.example.com/whole":"yes",`, 1)); a.code != http.StatusOK {
		t.Errorf("an own label: %d: %s", a.code, a.body)
	}
	is = c.get(path).body
	if a := c.send(http.MethodPut, path+"/status", plain, strings.Replace(is, `"labels":{`, `"labels":{"other":"yes",`, 1)); !a.refused() {
		t.Errorf("another label, by the status: %d: %s", a.code, a.body)
	}
}

// TestDeletionsMeanThePodThatWasSeen has the name taken by another pod elsewhere.
func TestDeletionsMeanThePodThatWasSeen(t *testing.T) {
	p := start(t)
	apply(t, byLabel)
	for name, prepare := range map[string]func(){
		"own-gone":  func() {},
		"own-moved": func() { removeNow(t, "own-moved"); put(t, vault, "own-moved") },
	} {
		if err := addPod(t.Context(), edge, name); err != nil {
			t.Fatal(err)
		}
		c := newClient(t, p, kubeletOf(t, edge))
		if a := c.get(ofHome + "/pods/" + name); a.code != http.StatusOK {
			t.Errorf("%s: %d: %s", name, a.code, a.body)
		}
		prepare()
		a := c.send(http.MethodDelete, ofHome+"/pods/"+name+"?gracePeriodSeconds=0", "", "")
		if name == "own-gone" && a.code != http.StatusOK || name == "own-moved" && a.code != http.StatusForbidden && a.code != http.StatusConflict {
			t.Errorf("%s: %d: %s", name, a.code, a.body)
		}
		if name == "own-gone" {
			until(t, "it is gone", func() bool { return c.get(ofHome+"/pods/"+name).code == http.StatusNotFound })
			continue
		}
		if _, err := admin.CoreV1().Pods(home).Get(t.Context(), name, metav1.GetOptions{}); err != nil {
			t.Errorf("another node's pod is gone: %v", err)
		}
		removeNow(t, name)
	}
}

func removeNow(t *testing.T, name string) {
	t.Helper()
	if err := removePod(t.Context(), name); err != nil {
		t.Fatal(err)
	}
}

func put(t *testing.T, node, name string) {
	t.Helper()
	if err := putPod(t.Context(), node, name); err != nil {
		t.Fatal(err)
	}
}

func TestEventsHaveABudget(t *testing.T) {
	p := start(t)
	apply(t, byLabel+"  events:\n    perObject: {perMinute: 1, burst: 3}\n    perNode: {perMinute: 1, burst: 5}\n")
	c := newClient(t, p, tokenOf(t, "web"))
	codes := func(kind, about string, n int) (all []int) {
		for i := range n {
			w := event(fmt.Sprintf("%s.b%d", about, i), kind, about)
			if kind == "Node" {
				w.path, w.body = "/api/v1/namespaces/default/events", strings.Replace(w.body, `"namespace":"`+home+`",`, "", 1)
			}
			all = append(all, c.send(w.method, w.path, w.media, w.body).code)
		}
		return all
	}
	if got := fmt.Sprint(codes("Pod", "web", 4)); got != "[201 201 201 429]" {
		t.Errorf("about one pod: %s", got)
	}
	if got := fmt.Sprint(codes("Node", edge, 3)); got != "[201 201 429]" {
		t.Errorf("of the node: %s", got)
	}
}

// TestKubeletsSpeakProtobuf does with a typed client what a kubelet does for a pod.
func TestKubeletsSpeakProtobuf(t *testing.T) {
	const name = "own-proto"
	if err := addPod(t.Context(), edge, name); err != nil {
		t.Fatal(err)
	}
	p := start(t)
	apply(t, byLabel+"  events:\n    perObject: {perMinute: 60, burst: 10}\n")
	c := newClient(t, p, kubeletOf(t, edge))
	c.cfg.ContentType, c.cfg.AcceptContentTypes = runtime.ContentTypeProtobuf, runtime.ContentTypeProtobuf+","+runtime.ContentTypeJSON
	set, ctx := c.set(), t.Context()
	pod, err := set.CoreV1().Pods(home).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for what, do := range map[string]func() error{
		"secret": func() error { _, err := set.CoreV1().Secrets(home).Get(ctx, name, metav1.GetOptions{}); return err },
		"event": func() error {
			about := corev1.ObjectReference{Kind: "Pod", Namespace: home, Name: name, UID: pod.UID}
			_, err := set.CoreV1().Events(home).Create(ctx, &corev1.Event{ObjectMeta: metav1.ObjectMeta{Name: name + ".1"}, InvolvedObject: about}, metav1.CreateOptions{})
			return err
		},
		"token": func() error {
			bound := &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: name, UID: pod.UID}
			_, err := set.CoreV1().ServiceAccounts(home).CreateToken(ctx, name, &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{BoundObjectRef: bound}}, metav1.CreateOptions{})
			return err
		},
		"status": func() error {
			_, err := set.CoreV1().Pods(home).Patch(ctx, name, types.StrategicMergePatchType, []byte(`{"metadata":{"uid":"`+string(pod.UID)+`"},"status":{"conditions":[{"type":"Ready","status":"True"}]}}`), metav1.PatchOptions{}, "status")
			return err
		},
		"whole-status": func() error {
			is, err := set.CoreV1().Pods(home).Get(ctx, name, metav1.GetOptions{})
			if err != nil {
				return err
			}
			is.Status.Message = "fine"
			_, err = set.CoreV1().Pods(home).UpdateStatus(ctx, is, metav1.UpdateOptions{})
			return err
		},
	} {
		if err := do(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	now := int64(0)
	other := types.UID("other")
	if err := set.CoreV1().Pods(home).Delete(ctx, name, metav1.DeleteOptions{GracePeriodSeconds: &now, Preconditions: &metav1.Preconditions{UID: &other}}); !apierrors.IsConflict(err) {
		t.Errorf("another pod of that name: %v", err)
	}
	if err := set.CoreV1().Pods(home).Delete(ctx, name, metav1.DeleteOptions{GracePeriodSeconds: &now}); err != nil {
		t.Errorf("delete: %v", err)
	}
}
