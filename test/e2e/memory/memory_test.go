// Package memory holds what is answered from memory against the API server,
// and against those who may not have it.
package memory

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/portico-proxy/portico/core/config"
	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
	"github.com/portico-proxy/portico/test/controlplane"
	"github.com/portico-proxy/portico/test/proxy"
)

// world is one control plane for all tests of the package.
var world *controlplane.ControlPlane

func TestMain(m *testing.M) {
	var err error
	world, err = controlplane.Start(context.Background(), controlplane.Options{
		Log: os.Stderr, Users: []controlplane.User{{Name: "jane"}, {Name: "joe"}, {Name: "portico"}, {Name: "plain"}, {Name: "poor"}, {Name: node, Groups: []string{"system:nodes"}}},
		Flags: map[controlplane.Part][]string{controlplane.APIServer: {"--disable-admission-plugins=ServiceAccount"}},
	})
	if err != nil {
		panic(err)
	}
	code := m.Run()
	if code != 0 {
		_, _ = io.WriteString(os.Stderr, world.LogTails(30))
	}
	world.Stop()
	os.Exit(code)
}

// side is one way to the API server.
type side struct {
	url    string
	client *http.Client
}

func newSide(t *testing.T, cfg *rest.Config) side {
	t.Helper()
	client, err := rest.HTTPClientFor(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.CloseIdleConnections)
	return side{url: cfg.Host, client: client}
}

type answer struct {
	code     int
	servedBy string
	body     string
}

func (s side) get(t *testing.T, path string) answer {
	t.Helper()
	res, err := s.client.Get(s.url + path)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{code: res.StatusCode, servedBy: res.Header.Get("Portico-Served-By"), body: string(body)}
}

// fromMemory asks until memory answers: the first to ask begins to fill it.
func (s side) fromMemory(t *testing.T, path string) answer {
	t.Helper()
	var a answer
	until(t, path+" is answered from memory", func() bool { a = s.get(t, path); return a.servedBy != "upstream" })
	return a
}

// until waits for something that happens in another process.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	tick, deadline := time.NewTicker(20*time.Millisecond), time.After(2*time.Minute)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// putInPlace writes a file whole, as operators' tools do: half a file may be
// another policy.
func putInPlace(t *testing.T, path, text string) {
	t.Helper()
	tmp := filepath.Join(t.TempDir(), "new")
	if err := os.WriteFile(tmp, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(tmp, path); err != nil {
		t.Fatal(err)
	}
}

func cached(t *testing.T, flags ...string) *proxy.Proxy {
	return proxy.New(t, proxy.Options{Kubeconfig: world.KubeconfigPath(), Flags: append(flags, "--watch-cache", "--v=1")})
}

func admin(t *testing.T) *kubernetes.Clientset {
	t.Helper()
	return kubernetes.NewForConfigOrDie(world.Config())
}

// namespace makes one of a new name.
func namespace(t *testing.T) string {
	t.Helper()
	made, err := admin(t).CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "shop-"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return made.Name
}

// allow binds a user to verbs on pods in a namespace.
func allow(t *testing.T, user, namespace string) {
	t.Helper()
	meta := metav1.ObjectMeta{Name: user, Namespace: namespace}
	role := &rbacv1.Role{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"list", "watch"}}}}
	if _, err := admin(t).RbacV1().Roles(namespace).Create(t.Context(), role, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	binding := &rbacv1.RoleBinding{
		ObjectMeta: meta, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: user},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: user}},
	}
	if _, err := admin(t).RbacV1().RoleBindings(namespace).Create(t.Context(), binding, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func pod(t *testing.T, namespace, name string) {
	t.Helper()
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PodSpec{NodeName: "n1", Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
	if _, err := admin(t).CoreV1().Pods(namespace).Create(t.Context(), p, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// listVersion is the list's own resourceVersion, where any state may be given.
var listVersion = regexp.MustCompile(`^(\{"kind":"PodList","apiVersion":"v1","metadata":\{"resourceVersion":)"\d+"`)

func items(a answer) string { return listVersion.ReplaceAllString(a.body, "$1") }

func TestMemoryGivesEachCallerWhatUpstreamWould(t *testing.T) {
	shop, bank := namespace(t), namespace(t)
	pod(t, shop, "web")
	pod(t, bank, "vault")
	allow(t, "jane", shop)
	p := cached(t)
	for _, user := range []string{"admin", "jane", "joe"} {
		cred := world.Token(user)
		direct, proxied := newSide(t, world.ConfigFor(cred)), newSide(t, p.Config(cred))
		for _, path := range []string{
			"/api/v1/pods?resourceVersion=0", "/api/v1/namespaces/" + shop + "/pods?resourceVersion=0", "/api/v1/namespaces/" + bank + "/pods",
			"/api/v1/pods?resourceVersion=0&fieldSelector=spec.nodeName%3Dn1", "/api/v1/namespaces/" + shop + "/pods/web?resourceVersion=0",
		} {
			want := direct.get(t, path)
			got := proxied.get(t, path)
			if want.code == http.StatusOK {
				got = proxied.fromMemory(t, path)
			}
			if got.code != want.code || items(got) != items(want) {
				t.Errorf("%s asks for %s: got %d %s\nwant %d %s", user, path, got.code, got.body, want.code, want.body)
			}
		}
	}
}

func TestSecretsAreNotRemembered(t *testing.T) {
	s := newSide(t, cached(t).Config(world.Token("admin")))
	for range 3 {
		if a := s.get(t, "/api/v1/secrets?resourceVersion=0"); a.servedBy != "upstream" {
			t.Errorf("served by %s", a.servedBy)
		}
	}
}

func TestDrainingEndsWatchesFromMemory(t *testing.T) {
	p := cached(t)
	s := newSide(t, p.Config(world.Token("admin")))
	s.fromMemory(t, "/api/v1/nodes?resourceVersion=0")
	res, err := s.client.Get(s.url + "/api/v1/nodes?watch=1&resourceVersion=0")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	go p.Stop()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		t.Errorf("the watch ended with %v", err)
	}
	<-p.Exited()
}

func TestInspectShowsWhatIsInMemory(t *testing.T) {
	p := cached(t)
	newSide(t, p.Config(world.Token("admin"))).fromMemory(t, "/api/v1/nodes?resourceVersion=0")
	metrics := strings.TrimSuffix(strings.TrimPrefix(p.Metrics, "http://"), "/metrics")
	out, err := exec.Command(proxy.Binary(t), "inspect", "streams", "--metrics-bind-address="+metrics).CombinedOutput()
	if err != nil || !regexp.MustCompile(`(?m)^core +v1 +nodes +json +all +0 `).Match(out) {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestMetricsTellOfMemory(t *testing.T) {
	p := cached(t)
	s := newSide(t, p.Config(world.Token("admin")))
	s.fromMemory(t, "/api/v1/nodes?resourceVersion=0")
	s.get(t, "/api/v1/secrets?resourceVersion=0")
	const nodes = `\{format="json",group="",%sresource="nodes",%sversion="v1"\}`
	for series, least := range map[string]float64{
		"portico_watch_cache_resource_version" + fmt.Sprintf(nodes, "", ""):                                1,
		"portico_watch_cache_answers_total" + fmt.Sprintf(nodes, "", `served_by="cache",`):                 1,
		"portico_watch_cache_upstream_request_total" + fmt.Sprintf(nodes, `purpose="(?:list|watch)",`, ""): 1,
		`portico_watch_cache_passed_total\{reason="policy"\}`:                                              1,
		"portico_watch_cache_memory_limit_bytes":                                                           512 << 20,
	} {
		if n := p.Gauge(series); n < least {
			t.Errorf("%s is %v", series, n)
		}
	}
}

const (
	configMapsInSessions = `apiVersion: proxy.elf.io/v1alpha1
kind: CachePolicy
metadata:
  name: sessions
spec:
  resources:
  - resource: configmaps
  reads: Session
`
	misspelt = "---\napiVersion: proxy.elf.io/v1alpha1\nkind: CachePolicy\nspec:\n  resources: [{resource: pods}]\n  memory: refuse\n"
)

// TestPolicyFilesSayWhatIsRemembered has ConfigMaps, which are not kept unless a
// policy says so, answered from memory with every write through the proxy seen.
func TestPolicyFilesSayWhatIsRemembered(t *testing.T) {
	dir := t.TempDir()
	policy := func(text string) { putInPlace(t, filepath.Join(dir, "p.yaml"), text) }
	policy(configMapsInSessions)
	p := cached(t, "--policy-dir="+dir)
	home := namespace(t)
	s := newSide(t, p.Config(world.Token("admin")))
	s.fromMemory(t, "/api/v1/namespaces/"+home+"/configmaps")
	client := kubernetes.NewForConfigOrDie(p.Config(world.Token("admin"))).CoreV1().ConfigMaps(home)
	for n := range 20 {
		name := fmt.Sprintf("c-%d", n)
		if _, err := client.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		list, err := client.List(t.Context(), metav1.ListOptions{})
		if err != nil || len(list.Items) != n+1 {
			t.Errorf("after %d writes the list has %d objects, %v", n+1, len(list.Items), err)
		}
		if _, err := client.Get(t.Context(), name, metav1.GetOptions{}); err != nil {
			t.Error(err)
		}
	}
	policy(configMapsInSessions + misspelt)
	until(t, "the bad policy is reported", func() bool { return strings.Contains(p.Log(), "spec.memory") })
	if a := s.fromMemory(t, "/api/v1/namespaces/"+home+"/configmaps"); a.code != http.StatusOK {
		t.Errorf("after a bad policy: %d", a.code)
	}
}

// TestDocumentedPoliciesAreGood reads the policies that docs/memory.md shows.
func TestDocumentedPoliciesAreGood(t *testing.T) {
	shown := documented(t, "memory.md")
	l := config.Loader{Dir: t.TempDir(), Scheme: runtime.NewScheme()}
	if err := v1alpha1.AddToScheme(l.Scheme); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(l.Dir, "p.yaml"), []byte(strings.Join(shown, "---\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := l.Load(); err != nil || len(s.Objects) != 3 {
		t.Errorf("got %v, %v", s, err)
	}
}
