package nodes

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"

	"github.com/portico-proxy/portico/test/controlplane"
	"github.com/portico-proxy/portico/test/proxy"
)

// TestInformersFollowThePodsOfTheNode has a pod come, go, and come back elsewhere,
// while a DaemonSet's client and a kubelet follow.
func TestInformersFollowThePodsOfTheNode(t *testing.T) {
	for way, flags := range ways {
		t.Run(way, func(t *testing.T) {
			name := "own-" + way
			p := start(t, flags...)
			apply(t, byLabel)
			var seenBy []*follower
			for _, cred := range callers(t) {
				seenBy = append(seenBy, follow(t, newClient(t, p, cred)))
			}
			for _, f := range seenBy {
				f.await("pods", "web")
				f.await("secrets", "web")
			}
			if err := addPod(t.Context(), edge, name); err != nil {
				t.Fatal(err)
			}
			for _, f := range seenBy {
				// At once, be the watches here as slow as they may.
				if a := f.get(ofHome + "/secrets/" + name); a.code != http.StatusOK {
					t.Errorf("the Secret of a new pod: %d: %s", a.code, a.body)
				}
				f.await("pods", "web "+name)
				f.await("secrets", "web "+name)
			}
			removeNow(t, name)
			for _, f := range seenBy {
				f.await("pods", "web")
				f.await("secrets", "web")
				if a := f.get(ofHome + "/secrets/" + name); !a.refused() {
					t.Errorf("the Secret of a pod that is gone: %d: %s", a.code, a.body)
				}
			}
			put(t, vault, name)
			t.Cleanup(func() {
				if err := removePod(context.WithoutCancel(t.Context()), name); err != nil {
					t.Error(err)
				}
			})
			for _, f := range seenBy {
				for _, path := range []string{"/secrets/", "/pods/", "/configmaps/", "/serviceaccounts/"} {
					if a := f.get(ofHome + path + name); !a.refused() {
						t.Errorf("%s of a pod that has moved: %d: %s", path, a.code, a.body)
					}
				}
			}
		})
	}
}

// A follower is a client with informers.
type follower struct {
	*client
	stores map[string]cache.SharedIndexInformer
}

func follow(t *testing.T, c *client) *follower {
	t.Helper()
	factory := informers.NewSharedInformerFactory(c.set(), 0)
	f := &follower{c, map[string]cache.SharedIndexInformer{
		"pods": factory.Core().V1().Pods().Informer(), "secrets": factory.Core().V1().Secrets().Informer(),
	}}
	stop := make(chan struct{})
	factory.Start(stop)
	t.Cleanup(func() { close(stop); factory.Shutdown() })
	return f
}

// await waits until the informer has these objects and no others.
func (f *follower) await(resource, want string) {
	f.t.Helper()
	until(f.t, resource+" "+want, func() bool {
		keys := labels.Set{}
		for _, k := range f.stores[resource].GetStore().ListKeys() {
			keys[strings.TrimPrefix(k, home+"/")] = ""
		}
		for name := range strings.FieldsSeq(want) {
			if _, ok := keys[name]; !ok {
				return false
			}
		}
		return len(keys) == len(strings.Fields(want))
	})
}

// TestNodeThatIsNoLongerTrustedIsHeldAtOnce labels a node while it watches.
func TestNodeThatIsNoLongerTrustedIsHeldAtOnce(t *testing.T) {
	p := start(t)
	apply(t, byLabel)
	const path = "/api/v1/nodes/" + vault
	c := newClient(t, p, tokenOf(t, "vault"))
	ended := make(chan struct{})
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.cfg.Host+"/api/v1/secrets?watch=1&timeoutSeconds=3600", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := c.http.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	go func() {
		for s := bufio.NewScanner(res.Body); s.Scan(); {
		}
		close(ended)
	}()
	label := func(value string) {
		t.Helper()
		must(t, "", "label", "--overwrite", "node", vault, "trust"+value)
	}
	label("=low")
	t.Cleanup(func() {
		must(t, "", "label", "node", vault, "trust-")
		c.got.Reset()
	})
	until(t, "the other Secrets are refused", func() bool { return c.get(ofHome + "/secrets/web").refused() })
	select {
	case <-ended:
	case <-time.After(2 * time.Minute):
		t.Error("what it watched before goes on")
	}
	if a := c.get(path); a.code != http.StatusOK {
		t.Errorf("its own node: %d: %s", a.code, a.body)
	}
}

// TestPolicyThatChangesEndsWatches takes away what a watch shows.
func TestPolicyThatChangesEndsWatches(t *testing.T) {
	p := start(t)
	apply(t, byLabel+"  reads:\n  - {resource: services}\n")
	c := newClient(t, p, tokenOf(t, "web"))
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.cfg.Host+"/api/v1/services?watch=1&timeoutSeconds=3600&resourceVersion="+newest(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := c.http.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	frames := make(chan string)
	go func() {
		defer close(frames)
		for s := bufio.NewScanner(res.Body); s.Scan(); {
			frames <- s.Text()
		}
	}()
	name := strings.ToLower(t.Name())
	must(t, "", "patch", "nodepolicy", name, "--type=merge", "-p", `{"spec":{"reads":[{"resource":"services","names":["front"]}]}}`)
	until(t, "the rest is hidden", func() bool { return !strings.Contains(c.get("/api/v1/services").body, `"back"`) })
	var last struct {
		Type   string
		Object metav1.Status
	}
	for frame := range frames {
		if err := json.Unmarshal([]byte(frame), &last); err != nil {
			t.Fatal(err)
		}
	}
	if last.Type != "ERROR" || last.Object.Code != http.StatusGone {
		t.Errorf("the watch ended with %+v", last)
	}
	c.got.Reset()
}

func newest(t *testing.T) string {
	t.Helper()
	list, err := admin.CoreV1().Services("").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return list.ResourceVersion
}

// TestSecretsAreMaskedForPodsOnly leaves a kubelet what it must have.
func TestSecretsAreMaskedForPodsOnly(t *testing.T) {
	const value = "bm90aGluZw" // nothing
	for way, flags := range ways {
		t.Run(way, func(t *testing.T) {
			p := start(t, flags...)
			apply(t, byLabel+"  masks:\n  - {resource: secrets, metadataOnly: true, callers: [Pods]}\n  - {resource: pods, fields: [/spec/containers/*/env]}\n  - {resource: nodes, fields: [/metadata/labels]}\n  writes:\n  - {resource: secrets, verbs: [patch]}\n")
			kubelet, pod := newClient(t, p, kubeletOf(t, edge)), newClient(t, p, tokenOf(t, "web"))
			if a := kubelet.get(ofHome + "/secrets/web"); a.code != http.StatusOK || !strings.Contains(a.body, value) {
				t.Errorf("kubelet: %d: %s", a.code, a.body)
			}
			for _, accept := range []string{plain, table, partial, partials} {
				for _, path := range []string{ofHome + "/secrets/web", "/api/v1/secrets", ofHome + "/secrets?watch=1&timeoutSeconds=1", ofHome + "/pods/web", ofHome + "/pods/web/status", "/api/v1/nodes/" + edge + "/status", "/api/v1/pods", "/api/v1/pods?watch=1&timeoutSeconds=1", "/api/v1/pods?resourceVersion=0", "/api/v1/nodes"} {
					a := pod.get(path, "Accept", accept)
					if strings.Contains(a.body, value) || strings.Contains(a.body, "TEXT") || strings.Contains(a.body, "managedFields") || strings.Contains(path, "nodes") && strings.Contains(a.body, "trust") {
						t.Errorf("%s as %s: %s", path, accept, a.body)
					}
				}
			}
			for _, path := range []string{ofHome + "/pods/web", "/api/v1/nodes/" + edge} {
				a := kubelet.send("PATCH", path+"/status", merge, `{"status":{}}`)
				if a.code != http.StatusOK || strings.Contains(a.body, "TEXT") || strings.Contains(a.body, "trust") {
					t.Errorf("what is answered to a change: %d: %s", a.code, a.body)
				}
			}
			for name, w := range map[string]write{
				"select-by-label": {"GET", "/api/v1/nodes?labelSelector=trust", "", ""},
				"select-by-type":  {"GET", "/api/v1/secrets?fieldSelector=type%3DOpaque", "", ""},
				"write-back":      {"PATCH", ofHome + "/secrets/web", merge, `{"metadata":{"annotations":{"a":"b"}}}`},
			} {
				if a := pod.send(w.method, w.path, w.media, w.body); !a.refused() {
					t.Errorf("%s: %d: %s", name, a.code, a.body)
				}
			}
		})
	}
}

// TestPlacementsDifferInCallersWithoutNode runs a proxy on the node, one on another,
// and a gateway.
func TestPlacementsDifferInCallersWithoutNode(t *testing.T) {
	jane, others := world.Token("jane"), tokenOf(t, "vault")
	const secret = ofHome + "/secrets/web"
	type want struct {
		cred    controlplane.Credential
		path    string
		refused bool
	}
	for name, tt := range map[string]struct {
		flags  []string
		policy string
		want   map[string]want
	}{
		"on-node": {[]string{"--node-name=" + edge}, byLabel, map[string]want{
			"own": {jane, secret, false}, "vault": {jane, ofHome + "/secrets/vault", true}, "foreign": {others, secret, true}, "nobody": {controlplane.Credential{}, secret, false},
		}},
		"on-other-node": {[]string{"--node-name=" + vault}, byLabel, map[string]want{"jane": {jane, secret, false}, "vault": {others, secret, false}}},
		"gateway":       {nil, byLabel + "  placement: Gateway\n", map[string]want{"jane": {jane, secret, true}, "vault": {others, secret, false}, "health": {jane, "/readyz", false}}},
		"elsewhere":     {nil, byLabel, map[string]want{"jane": {jane, secret, false}}},
		"audit":         {[]string{"--node-name=" + edge}, byLabel + "  mode: Audit\n", map[string]want{"vault": {jane, ofHome + "/secrets/web", false}}},
	} {
		t.Run(name, func(t *testing.T) {
			p := start(t, tt.flags...)
			apply(t, tt.policy)
			for who, w := range tt.want {
				if a := newClient(t, p, w.cred).get(w.path); a.refused() != w.refused {
					t.Errorf("%s: %d: %s", who, a.code, a.body)
				}
			}
		})
	}
}

// TestAuditLeavesAllAsItIs tells of what would be refused.
func TestAuditLeavesAllAsItIs(t *testing.T) {
	p := start(t)
	apply(t, byLabel+"  mode: Audit\n  masks:\n  - {resource: secrets, metadataOnly: true}\n")
	c := newClient(t, p, tokenOf(t, "web"))
	defer c.got.Reset()
	if a := c.get("/api/v1/secrets"); a.code != http.StatusOK || !strings.Contains(a.body, hidden) {
		t.Errorf("%d: %s", a.code, a.body)
	}
	w := event("vault.audit", "Pod", "vault")
	if a := c.send(w.method, w.path, w.media, w.body); a.code != http.StatusCreated {
		t.Errorf("%d: %s", a.code, a.body)
	}
	until(t, "it is told", func() bool { return strings.Contains(p.Log(), "would refuse") })
	if p.Gauge(`portico_filter_duration_seconds_count`) == 0 {
		t.Error("nothing was counted")
	}
}

// TestNodeThatCannotBeKnownIsRefused runs a proxy that may not read nodes.
func TestNodeThatCannotBeKnownIsRefused(t *testing.T) {
	cred, err := world.ClientCert("poor", "poor")
	if err != nil {
		t.Fatal(err)
	}
	must(t, "", "create", "clusterrolebinding", "poor", "--clusterrole=system:auth-delegator", "--user=poor")
	t.Cleanup(func() { must(t, "", "delete", "clusterrolebinding", "poor") })
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	if err := world.Kubeconfig(cred).WriteFile(kubeconfig); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	policy := "apiVersion: proxy.elf.io/v1alpha1\nkind: NodePolicy\nmetadata: {name: edge}\nspec:\n" + byLabel
	if err := os.WriteFile(filepath.Join(dir, "edge.yaml"), []byte(policy), 0o600); err != nil {
		t.Fatal(err)
	}
	p := proxy.New(t, proxy.Options{Kubeconfig: kubeconfig, Flags: []string{"--policy-dir=" + dir}})
	a := newClient(t, p, tokenOf(t, "web")).get(ofHome + "/pods/web")
	if a.code != http.StatusServiceUnavailable || !strings.Contains(a.body, `"retryAfterSeconds":1`) || !strings.Contains(a.body, "cannot read its nodes") {
		t.Errorf("%d: %s", a.code, a.body)
	}
}

func TestWrongPoliciesAreRefusedByTheAPIServer(t *testing.T) {
	for name, tt := range map[string]struct{ spec, want string }{
		"no-node":   {"  nodes: {}\n", "set names or selector"},
		"mode":      {byLabel + "  mode: Try\n", "spec.mode"},
		"placement": {byLabel + "  placement: Moon\n", "spec.placement"},
		"needed":    {byLabel + "  masks: [{resource: pods, fields: [/metadata/name]}]\n", "clients need"},
		"star":      {byLabel + "  masks: [{resource: pods, fields: ['/*/name']}]\n", "clients need"},
		"pointer":   {byLabel + "  masks: [{resource: pods, fields: [spec]}]\n", "spec.masks[0].fields[0]"},
		"both":      {byLabel + "  masks: [{resource: pods, fields: [/spec], metadataOnly: true}]\n", "either fields or metadataOnly"},
		"neither":   {byLabel + "  masks: [{resource: pods}]\n", "either fields or metadataOnly"},
		"verb":      {byLabel + "  writes: [{resource: pods, verbs: [get]}]\n", "spec.writes[0].verbs[0]"},
		"budget":    {byLabel + "  events: {}\n", "set perObject or perNode"},
		"rate":      {byLabel + "  events: {perNode: {perMinute: 0, burst: 1}}\n", "spec.events.perNode.perMinute"},
	} {
		cmd := world.Kubectl(t.Context(), world.KubeconfigPath(), "create", "--dry-run=server", "-f", "-")
		cmd.Stdin = strings.NewReader("apiVersion: proxy.elf.io/v1alpha1\nkind: NodePolicy\nmetadata:\n  name: wrong\nspec:\n" + tt.spec)
		if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), tt.want) {
			t.Errorf("%s: %v: %s", name, err, out)
		}
	}
}

// TestExampleEdgeNodeSecrets does what the README of examples/edge-node-secrets says.
func TestExampleEdgeNodeSecrets(t *testing.T) {
	const root = "../../.."
	readme, err := os.ReadFile(root + "/examples/edge-node-secrets/README.md")
	if err != nil {
		t.Fatal(err)
	}
	script := regexp.MustCompile("(?s)```sh\n(.*?)```").FindSubmatch(readme)
	if script == nil {
		t.Fatal("it shows nothing")
	}
	p := start(t)
	t.Cleanup(func() {
		must(t, "", "delete", "--ignore-not-found", "nodepolicy", "edge")
		must(t, "", "label", "node", edge, "node-restriction.kubernetes.io/trust-")
	})
	cmd := exec.CommandContext(t.Context(), "sh", "-ec", strings.ReplaceAll(string(script[1]), "kubectl ", world.Program("kubectl")+" "))
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "KUBECONFIG="+p.Kubeconfig(world.Token("jane")))
	out, err := cmd.CombinedOutput()
	text := string(out)
	if err != nil || strings.Contains(text, "stray") || strings.Contains(text, `"data"`) || strings.Contains(text, "managedFields") {
		t.Errorf("%v\n%s", err, text)
	}
	said := regexp.MustCompile("(?m)^Error from server.*$").Find(readme)
	if !strings.Contains(text, `"kind": "Secret"`) || !strings.Contains(text, string(said)) {
		t.Errorf("%q is not in\n%s", said, text)
	}
}

// TestNarrowedListsAreAnsweredFromTheNodesPart lists all pods on a node whose memory
// keeps parts only.
func TestNarrowedListsAreAnsweredFromTheNodesPart(t *testing.T) {
	const parts = "apiVersion: proxy.elf.io/v1alpha1\nkind: CachePolicy\nmetadata: {name: parts}\nspec: {resources: [{resource: pods}], memory: Parts}\n"
	t.Cleanup(func() { must(t, parts, "delete", "-f", "-") })
	must(t, parts, "apply", "-f", "-")
	p := start(t, "--node-name="+edge)
	apply(t, byLabel)
	must(t, "", "wait", "--for=condition=Programmed", "--timeout=2m", "cachepolicy/parts")
	c := newClient(t, p, tokenOf(t, "web"))
	until(t, "memory answers", func() bool {
		a := c.get("/api/v1/pods?resourceVersion=0")
		return a.code == http.StatusOK && a.servedBy == "cache" && strings.Contains(a.body, `"web"`)
	})
	metrics := strings.TrimSuffix(strings.TrimPrefix(p.Metrics, "http://"), "/metrics")
	out, err := exec.CommandContext(t.Context(), proxy.Binary(t), "inspect", "streams", "--metrics-bind-address="+metrics).CombinedOutput()
	kept := regexp.MustCompile(`(?m)^core +v1 +pods +json +(\S+)`).FindAllSubmatch(out, -1)
	if err != nil || len(kept) != 1 || string(kept[0][1]) != "spec.nodeName="+edge {
		t.Errorf("%v\n%s", err, out)
	}
}
