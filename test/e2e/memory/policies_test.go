package memory

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/portico-proxy/portico/test/proxy"
)

// kubectl runs as admin, directly, and returns what it printed.
func kubectl(t *testing.T, stdin string, args ...string) (string, error) {
	t.Helper()
	// Cleanups run it after the test's own context has ended.
	cmd := world.Kubectl(context.Background(), world.KubeconfigPath(), args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func mustKubectl(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	out, err := kubectl(t, stdin, args...)
	if err != nil {
		t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// apply makes objects until the test ends.
func apply(t *testing.T, manifest string) {
	t.Helper()
	mustKubectl(t, manifest, "apply", "-f", "-")
	t.Cleanup(func() { mustKubectl(t, manifest, "delete", "--ignore-not-found", "-f", "-") })
}

// installPolicies makes all kinds of policies known until the test ends.
func installPolicies(t *testing.T) {
	t.Helper()
	manifests, err := filepath.Glob("../../../crds/manifests/proxy.elf.io_*.yaml")
	if err != nil || len(manifests) == 0 {
		t.Fatalf("no manifests: %v", err)
	}
	for _, path := range manifests {
		manifest, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		apply(t, string(manifest))
		name, _ := strings.CutPrefix(strings.TrimSuffix(filepath.Base(path), ".yaml"), "proxy.elf.io_")
		mustKubectl(t, "", "wait", "--for=condition=Established", "--timeout=2m", "crd/"+name+".proxy.elf.io")
	}
}

// documented returns the blocks of YAML that a page shows.
func documented(t *testing.T, page string) []string {
	t.Helper()
	text, err := os.ReadFile("../../../docs/" + page)
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string
	for _, m := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllSubmatch(text, -1) {
		blocks = append(blocks, string(m[1]))
	}
	if len(blocks) == 0 {
		t.Fatalf("docs/%s shows nothing", page)
	}
	return blocks
}

// proxyOf runs one under the identity of a user.
func proxyOf(t *testing.T, user string, flags ...string) *proxy.Proxy {
	t.Helper()
	kubeconfig := filepath.Join(t.TempDir(), "own.kubeconfig")
	if err := world.Kubeconfig(world.Token(user)).WriteFile(kubeconfig); err != nil {
		t.Fatal(err)
	}
	return proxy.New(t, proxy.Options{Kubeconfig: kubeconfig, Flags: append(flags, "--watch-cache", "--v=1")})
}

const (
	noPods = `{"apiVersion":"proxy.elf.io/v1alpha1","kind":"CachePolicy","metadata":{"name":"no-pods"},"spec":{"resources":[{"resource":"pods"}],"memory":"Refuse"}}`
	// noNodes is for a file.
	noNodes = "apiVersion: proxy.elf.io/v1alpha1\nkind: CachePolicy\nmetadata: {name: no-nodes}\nspec: {resources: [{resource: nodes}], memory: Refuse}\n"
)

// refused waits until upstream answers what memory did.
func (s side) refused(t *testing.T, path string) {
	t.Helper()
	until(t, path+" is answered upstream", func() bool { return s.get(t, path).servedBy == "upstream" })
}

func TestPoliciesOfTheAPIAreObeyed(t *testing.T) {
	installPolicies(t)
	// What the documentation says that a proxy needs is enough.
	for _, manifest := range documented(t, "operate.md") {
		apply(t, manifest)
	}
	files := t.TempDir()
	p := proxyOf(t, "portico", "--policy-dir="+files, "--node-name=n1")
	s := newSide(t, p.Config(world.Token("admin")))
	const pods, nodes = "/api/v1/pods?resourceVersion=0", "/api/v1/nodes?resourceVersion=0"
	s.fromMemory(t, pods)
	s.fromMemory(t, nodes)

	apply(t, noPods)
	s.refused(t, pods)
	s.fromMemory(t, nodes)
	for _, condition := range []string{"Accepted", "Programmed"} {
		mustKubectl(t, "", "wait", "--for=condition="+condition, "--timeout=2m", "cachepolicy/no-pods")
	}
	if out := mustKubectl(t, "", "get", "cachepolicies"); !regexp.MustCompile(`no-pods +Refuse +Linearizable +True +True `).MatchString(out) {
		t.Errorf("kubectl get shows\n%s", out)
	}

	// Files say their part, and a bad one takes nothing back.
	putInPlace(t, filepath.Join(files, "nodes.yaml"), noNodes)
	s.refused(t, nodes)
	putInPlace(t, filepath.Join(files, "bad.yaml"), misspelt)
	until(t, "the bad file is reported", func() bool { return strings.Contains(p.Log(), "spec.memory") })
	mustKubectl(t, "", "delete", "cachepolicy", "no-pods")
	s.fromMemory(t, pods)
	s.refused(t, nodes)
}

// TestWhatTheAPIServerDoesNotHaveIsNamed has policies name what is not served: they
// are in force, but not green.
func TestWhatTheAPIServerDoesNotHaveIsNamed(t *testing.T) {
	installPolicies(t)
	for _, manifest := range documented(t, "operate.md") {
		apply(t, manifest)
	}
	files := t.TempDir()
	putInPlace(t, filepath.Join(files, "view.yaml"), "apiVersion: proxy.elf.io/v1alpha1\nkind: VirtualView\nmetadata: {name: hides}\nspec: {subjects: {users: [nobody]}, hidden: [{resource: secret}]}\n")
	p := proxyOf(t, "portico", "--policy-dir="+files, "--node-name=n1")
	apply(t, `{"apiVersion":"proxy.elf.io/v1alpha1","kind":"CachePolicy","metadata":{"name":"typo"},"spec":{"resources":[{"resource":"pod"}]}}`)
	mustKubectl(t, "", "wait", "--for=condition=ResourcesKnown=false", "--timeout=2m", "cachepolicy/typo")
	if out := mustKubectl(t, "", "get", "cachepolicies", "-o", "wide"); !regexp.MustCompile(`typo +Keep +Linearizable +True +True .*False .*the API server has no resource "pod" in group ""; did you mean "pods"\?`).MatchString(out) {
		t.Errorf("kubectl get shows\n%s", out)
	}
	until(t, "the file's mistake is in the log", func() bool {
		return strings.Contains(p.Log(), `kind="VirtualView" name="hides" reason="spec.hidden[0].resource: the API server has no resource \"secret\"`)
	})
	mustKubectl(t, "", "patch", "cachepolicy", "typo", "--type=merge", `--patch={"spec":{"resources":[{"resource":"pods"}]}}`)
	mustKubectl(t, "", "wait", "--for=condition=ResourcesKnown", "--timeout=2m", "cachepolicy/typo")
	if out := mustKubectl(t, "", "get", "cachepolicies", "-o", "wide"); !regexp.MustCompile(`typo +Keep +Linearizable +True +True .*True +\S+\s*$`).MatchString(out) && strings.Contains(out, "no resource") {
		t.Errorf("kubectl get shows\n%s", out)
	}
}

func TestTheAPIServerRefusesBadPolicies(t *testing.T) {
	installPolicies(t)
	for name, tt := range map[string]struct{ spec, want string }{
		"refused-in-sessions": {`{"resources":[{"resource":"pods"}],"memory":"Refuse","reads":"Session"}`, "resources that are refused have no session reads"},
		"callers-of-nothing":  {`{"resources":[{"resource":"pods"}],"callers":[{"kind":"User","name":"jane"}]}`, "set reads to Session"},
		"unknown-mode":        {`{"resources":[{"resource":"pods"}],"memory":"Forbid"}`, "spec.memory"},
		"no-resources":        {`{"resources":[]}`, "spec.resources"},
		"kinds":               {`{"resources":[{"resource":"Pod"}]}`, "write the plural name"},
	} {
		out, err := kubectl(t, `{"apiVersion":"proxy.elf.io/v1alpha1","kind":"CachePolicy","metadata":{"name":"bad"},"spec":`+tt.spec+`}`, "create", "-f", "-")
		if err == nil || !strings.Contains(out, tt.want) {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
	for field, want := range map[string]string{"spec.reads": "Linearizable", "spec.callers": "session reads", "status.conditions": "Accepted"} {
		out := ""
		// The API server publishes a new kind's schema in its own time.
		until(t, field+" is explained", func() bool {
			explained, err := kubectl(t, "", "explain", "cachepolicies."+field)
			out = explained
			return err == nil
		})
		if !strings.Contains(out, want) {
			t.Errorf("kubectl explain shows of %s\n%s", field, out)
		}
	}
}

// reader is what a proxy needs for answers from memory at all.
const reader = `apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: plain}
rules:
- {apiGroups: [""], resources: [nodes], verbs: [list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: plain}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: plain}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: plain}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: plain-reviews}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:auth-delegator"}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: plain}]
`

// TestProxyGoesOnWithoutPolicies has one that does not find them, and then one
// that may not read them.
func TestProxyGoesOnWithoutPolicies(t *testing.T) {
	apply(t, reader)
	goesOn := func(why string) {
		t.Helper()
		p := proxyOf(t, "plain")
		newSide(t, p.Config(world.Token("admin"))).fromMemory(t, "/api/v1/nodes?resourceVersion=0")
		if n := strings.Count(p.Log(), `resource="cachepolicies.proxy.elf.io" reason="`+why); n != 1 {
			t.Errorf("the log says %d times %q", n, why)
		}
	}
	goesOn("the proxy's identity may not list and watch them") // RBAC forbids what does not exist
	installPolicies(t)
	goesOn("the proxy's identity may not list and watch them")
	admin := cached(t)
	newSide(t, admin.Config(world.Token("admin"))).fromMemory(t, "/api/v1/nodes?resourceVersion=0")
	if strings.Contains(admin.Log(), "not read from the API") {
		t.Error("who may read policies misses them")
	}
}

// TestProxyWithoutRightsPassesOn has one that may nothing at all: its callers get
// what they would have got without it.
func TestProxyWithoutRightsPassesOn(t *testing.T) {
	p := proxyOf(t, "poor")
	s := newSide(t, p.Config(world.Token("admin")))
	until(t, "the log says what is missing", func() bool {
		if a := s.get(t, "/api/v1/nodes?resourceVersion=0"); a.code != http.StatusOK || a.servedBy != "upstream" {
			t.Errorf("got %d, served by %s", a.code, a.servedBy)
		}
		return strings.Count(p.Log(), "may not review them") == 1 && strings.Count(p.Log(), `resource="cachepolicies.proxy.elf.io" reason="the proxy's identity may not list and watch them"`) == 1
	})
}
