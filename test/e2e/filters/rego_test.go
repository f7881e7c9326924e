package filters

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/yaml"

	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
	"github.com/portico-proxy/portico/test/proxy"
)

const quorumLists = "../../../examples/quorum-lists/policy.yaml"

func readFile(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestExampleHasThePolicyThatIsTested(t *testing.T) {
	var p v1alpha1.RegoPolicy
	document, _, _ := strings.Cut(readFile(t, quorumLists), "\n---\n")
	if err := yaml.UnmarshalStrict([]byte(document+"\n"), &p); err != nil {
		t.Fatal(err)
	}
	if p.Spec.Rego != readFile(t, "../../../plugins/policies/quorum_list/quorum_list.rego") {
		t.Error("the example's policy is another than plugins/policies/quorum_list/quorum_list.rego")
	}
}

// TestExampleDoesWhatItsREADMESays types what examples/quorum-lists/README.md says.
func TestExampleDoesWhatItsREADMESays(t *testing.T) {
	p := &proxied{newProxy(t)}
	readme := readFile(t, "../../../examples/quorum-lists/README.md")
	fences := strings.Split(readme, "```\n")
	t.Cleanup(func() {
		must(t, world.KubeconfigPath(), "", "delete", "--ignore-not-found", "-f", quorumLists)
	})
	for line := range strings.Lines(fences[1]) {
		args := strings.Fields(line)[1:]
		for i, arg := range args {
			if strings.HasPrefix(arg, "crds/") || strings.HasPrefix(arg, "examples/") {
				args[i] = "../../../" + arg
			}
		}
		must(t, world.KubeconfigPath(), "", args...)
	}
	for joe, n := p.as(t, "joe"), 0; n < 4; n++ {
		joe.get(t, "/api/v1/pods")
	}
	command, warning, _ := strings.Cut(fences[3], "\n")
	out, err := kubectl(p.Kubeconfig(world.Token("joe")), "", strings.Fields(command)[2:]...)
	if err != nil || !strings.Contains(out, strings.TrimSpace(warning)) {
		t.Errorf("%s: %v, %s", command, err, out)
	}
}

// caller is somebody who does not try again by himself.
type caller struct {
	client *http.Client
	url    string
}

func (p *proxied) as(t *testing.T, user string) caller {
	t.Helper()
	cfg := p.Config(world.Token(user))
	client, err := rest.HTTPClientFor(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.CloseIdleConnections)
	return caller{client: client, url: cfg.Host}
}

type proxied struct{ *proxy.Proxy }

func (c caller) get(t *testing.T, path string) (*http.Response, metav1.Status) {
	t.Helper()
	res, err := c.client.Get(c.url + path)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	var status metav1.Status
	if res.StatusCode != http.StatusOK {
		if err := json.Unmarshal(body, &status); err != nil {
			t.Fatalf("%v in %q", err, body)
		}
	}
	return res, status
}

// TestQuorumListLoopIsHeldToItsLimit is a controller that lists all pods in a
// tight loop, and its neighbours, who do not notice.
func TestQuorumListLoopIsHeldToItsLimit(t *testing.T) {
	p := &proxied{newProxy(t)}
	apply(t, readFile(t, quorumLists))
	inForce(t, "regopolicy/quorum-list", "filterbinding/quorum-list")
	must(t, world.KubeconfigPath(), "", "wait", "--for=condition=Compiled", "--timeout=2m", "regopolicy/quorum-list")
	looper, neighbour := p.as(t, "joe"), p.as(t, "jane")

	const tries, perMinute, burst = 40, 6, 3
	started, served := time.Now(), 0
	for range tries {
		res, status := looper.get(t, "/api/v1/pods")
		if res.StatusCode == http.StatusOK {
			served++
		} else {
			isToldWhy(t, res, status)
		}
		for _, path := range []string{"/api/v1/pods?resourceVersion=0", "/api/v1/namespaces/default/pods", "/api/v1/namespaces/default"} {
			if res, status := neighbour.get(t, path); res.StatusCode != http.StatusOK || res.Header.Get("Warning") != "" {
				t.Errorf("a neighbour got %d %s for %s", res.StatusCode, status.Message, path)
			}
		}
	}
	may := burst + int(time.Since(started).Minutes()*perMinute) + 1
	if served < burst || served > may {
		t.Errorf("%d lists of the loop were served, want %d to %d", served, burst, may)
	}
	if res, status := neighbour.get(t, "/api/v1/pods"); res.StatusCode != http.StatusOK {
		t.Errorf("another caller pays for the loop: %s", status.Message)
	}
	if n := p.Gauge(`portico_limit_decisions_total\{limit="quorum-list",outcome="rejected",policy="quorum-list"\}`); int(n) != tries-served {
		t.Errorf("metrics count %v refusals, want %d", n, tries-served)
	}
}

func isToldWhy(t *testing.T, res *http.Response, status metav1.Status) {
	t.Helper()
	const message = "joe lists all pods at their newest version again and again: use an informer, or resourceVersion=0 (limit quorum-list)"
	seconds, err := strconv.Atoi(res.Header.Get("Retry-After"))
	if err != nil || seconds < 1 || status.Details == nil || status.Details.RetryAfterSeconds != int32(seconds) {
		t.Errorf("Retry-After is %q, details are %+v", res.Header.Get("Retry-After"), status.Details)
	}
	if res.StatusCode != http.StatusTooManyRequests || status.Reason != metav1.StatusReasonTooManyRequests || status.Message != message {
		t.Errorf("got %d %s: %s", res.StatusCode, status.Reason, status.Message)
	}
	if got, want := res.Header.Get("Warning"), `299 - "`+message+`"`; got != want {
		t.Errorf("the warning is %s, want %s", got, want)
	}
}

// warnings are what client-go logs.
type warnings struct {
	mu   sync.Mutex // guards following
	text []string
}

func (w *warnings) HandleWarningHeader(_ int, _ string, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text = append(w.text, text)
}

// TestClientsLiveWithLimits has client-go wait for as long as it is told, and
// informers not be concerned at all.
func TestClientsLiveWithLimits(t *testing.T) {
	dir := t.TempDir()
	text := strings.Replace(readFile(t, quorumLists), "listsPerMinute: 6, listBurst: 3", "listsPerMinute: 20, listBurst: 1", 1)
	if err := os.WriteFile(filepath.Join(dir, "policy.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p := newProxy(t, "--policy-dir="+dir)
	told := &warnings{}
	cfg := p.Config(world.Token("joe"))
	cfg.WarningHandler = told
	client := kubernetes.NewForConfigOrDie(cfg)
	for range 3 {
		if _, err := client.CoreV1().Pods("").List(t.Context(), metav1.ListOptions{}); err != nil {
			t.Errorf("client-go gave up: %v", err)
		}
	}
	told.mu.Lock()
	if len(told.text) == 0 || !strings.Contains(told.text[0], "use an informer") {
		t.Errorf("client-go was told %q", told.text)
	}
	before := len(told.text)
	told.mu.Unlock()

	for range 5 {
		informer := informers.NewSharedInformerFactory(client, 0).Core().V1().Pods().Informer()
		stop := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() { informer.Run(stop) })
		if !cache.WaitForCacheSync(t.Context().Done(), informer.HasSynced) {
			t.Error("an informer does not sync")
		}
		close(stop)
		wg.Wait()
	}
	told.mu.Lock()
	defer told.mu.Unlock()
	if len(told.text) != before {
		t.Errorf("informers were told %q", told.text[before:])
	}
	if out, err := kubectl(p.Kubeconfig(world.Token("joe")), "", "get", "--raw", "/api/v1/pods"); err != nil {
		t.Errorf("kubectl gave up: %v %s", err, out)
	}
}

// TestMistakesStandInTheStatus names the line and the column of each.
func TestMistakesStandInTheStatus(t *testing.T) {
	newProxy(t)
	apply(t, `apiVersion: proxy.elf.io/v1alpha1
kind: RegoPolicy
metadata: {name: typo}
spec:
  rego: |
    package a

    deny contains "no" if {
      input.verbb == "list"
    }
`)
	until(t, "the status says where the mistake is", func() bool {
		out := must(t, world.KubeconfigPath(), "", "get", "regopolicy", "typo", "-o", `jsonpath={.status.conditions[?(@.type=="Compiled")]}`)
		return strings.Contains(out, `"status":"False"`) && strings.Contains(out, "spec.rego, line 4, column 3: undefined ref: input.verbb")
	})
}

// TestWhatAPolicySaysStandsInTheStatus has one say of a request what is no limit, and
// name a resource that there is not, and then mend both.
func TestWhatAPolicySaysStandsInTheStatus(t *testing.T) {
	p := &proxied{newProxy(t)}
	policy := func(onExceed, resource string) string {
		return `apiVersion: proxy.elf.io/v1alpha1
kind: RegoPolicy
metadata: {name: says}
spec:
  deadline: 10s
  rego: |
    package says

    limits contains {"id": "lists", "key": [input.user.name], "tokens": {"rate": 1000}, "onExceed": "` + onExceed + `"} if input.verb == "list"

    selectors contains {"resources": [{"resource": "` + resource + `"}], "names": ["*"]}
---
apiVersion: proxy.elf.io/v1alpha1
kind: FilterBinding
metadata: {name: says}
spec: {filterRef: {kind: RegoPolicy, name: says}, phase: Throttle, match: {users: [joe]}}
---
apiVersion: proxy.elf.io/v1alpha1
kind: FilterBinding
metadata: {name: says-what-exists}
spec: {filterRef: {kind: RegoPolicy, name: says}, phase: View, match: {users: [joe]}}
`
	}
	apply(t, policy("reject", "configmap"))
	inForce(t, "regopolicy/says", "filterbinding/says", "filterbinding/says-what-exists")
	says := func(condition string) string {
		return must(t, world.KubeconfigPath(), "", "get", "regopolicy", "says", "-o", `jsonpath={.status.conditions[?(@.type=="`+condition+`")]}`)
	}
	if got := says("Evaluated"); !strings.Contains(got, `"status":"True"`) {
		t.Errorf("before it was asked: %s", got)
	}
	joe := p.as(t, "joe")
	if res, _ := joe.get(t, "/api/v1/pods"); res.StatusCode != http.StatusOK {
		t.Errorf("what throttles fails open: %d", res.StatusCode)
	}
	for condition, want := range map[string]string{
		"Evaluated": "limit lists: onExceed: must be one of", "ResourcesKnown": `did you mean \"configmaps\"?`,
	} {
		until(t, condition+" says what is wrong", func() bool {
			got := says(condition)
			return strings.Contains(got, `"status":"False"`) && strings.Contains(got, want)
		})
	}
	must(t, world.KubeconfigPath(), policy("Reject", "configmaps"), "apply", "-f", "-")
	until(t, "all is well", func() bool {
		// A list that is under way while the policy changes breaks off.
		if res, err := joe.client.Get(joe.url + "/api/v1/pods"); err == nil {
			_, _ = io.Copy(io.Discard, res.Body)
			_ = res.Body.Close()
		}
		return strings.Contains(says("Evaluated"), `"status":"True"`) && strings.Contains(says("ResourcesKnown"), `"status":"True"`)
	})
}

// TestTheAPIServerRefusesUnknownVerbs writes one as no request has it.
func TestTheAPIServerRefusesUnknownVerbs(t *testing.T) {
	for _, verb := range []string{"lists", "GET", "'**'", "''"} {
		out, err := kubectl(world.KubeconfigPath(), strings.Replace(bound("x"), "verbs: [create]", "verbs: [create, "+verb+"]", 1), "apply", "-f", "-")
		if err == nil || !strings.Contains(out, "spec.match.verbs[1]: Unsupported value") {
			t.Errorf("%s: %v: %s", verb, err, out)
		}
	}
}

func TestOnlyPoliciesInRegoThrottle(t *testing.T) {
	out, err := kubectl(world.KubeconfigPath(), strings.Replace(bound("x"), "  match:", "  phase: Throttle\n  match:", 1), "apply", "-f", "-")
	if err == nil || !strings.Contains(out, "only a RegoPolicy can throttle") {
		t.Errorf("%v: %s", err, out)
	}
}

// TestDenialsHoldForEveryKindOfRequest has one policy deny, and its binding fail
// closed while the policy is missing. All of that is in the log.
func TestDenialsHoldForEveryKindOfRequest(t *testing.T) {
	log := filepath.Join(t.TempDir(), "decisions")
	p := &proxied{newProxy(t, "--decision-log-file="+log, "--decision-log-sample=0")}
	const binding = `apiVersion: proxy.elf.io/v1alpha1
kind: FilterBinding
metadata: {name: no-secrets}
spec:
  filterRef: {kind: RegoPolicy, name: no-secrets}
  match: {users: [joe], resources: [{resource: secrets}]}
`
	apply(t, binding)
	until(t, "the binding fails closed", func() bool {
		res, status := p.as(t, "joe").get(t, "/api/v1/secrets")
		return res.StatusCode == http.StatusServiceUnavailable && strings.Contains(status.Message, "there is no such RegoPolicy")
	})
	apply(t, `apiVersion: proxy.elf.io/v1alpha1
kind: RegoPolicy
metadata: {name: no-secrets}
spec:
  rego: |
    package no_secrets

    deny contains sprintf("%s may not %s secrets", [input.user.name, input.verb])
`)
	inForce(t, "regopolicy/no-secrets", "filterbinding/no-secrets")
	for path, verb := range map[string]string{
		"/api/v1/secrets": "list", "/api/v1/secrets?watch=1": "watch", "/api/v1/namespaces/default/secrets/x": "get", "/api/v1/secrets?resourceVersion=0": "list",
	} {
		res, status := p.as(t, "joe").get(t, path)
		if want := "joe may not " + verb + " secrets (filter no-secrets)"; res.StatusCode != http.StatusForbidden || status.Message != want {
			t.Errorf("%s: got %d %q, want %q", path, res.StatusCode, status.Message, want)
		}
		if strings.Contains(path, "watch") {
			continue
		}
		if res, _ := p.as(t, "jane").get(t, path); res.StatusCode == http.StatusForbidden {
			t.Errorf("%s: jane is refused too", path)
		}
	}
	until(t, "the denials are in the log", func() bool { return strings.Count(readFile(t, log), `"decision":"deny"`) == 4 })
	text := readFile(t, log)
	if strings.Contains(text, world.Token("joe").Token) || !strings.Contains(text, `"error":"there is no such RegoPolicy"`) {
		t.Errorf("logged %s", text)
	}
}

// TestExceededReadsAreServedFromMemoryOrNotAtAll has a limit that sends callers to
// memory: what is there is served as it is, with a warning, and nothing else is.
func TestExceededReadsAreServedFromMemoryOrNotAtAll(t *testing.T) {
	dir := t.TempDir()
	text := `apiVersion: proxy.elf.io/v1alpha1
kind: RegoPolicy
metadata: {name: from-memory}
spec:
  rego: |
    package from_memory

    limits contains {
      "id": "lists", "key": [input.resource], "tokens": {"rate": 0, "burst": 0}, "onExceed": "ServeCached",
    } if input.verb == "list"
---
apiVersion: proxy.elf.io/v1alpha1
kind: FilterBinding
metadata: {name: from-memory}
spec:
  filterRef: {kind: RegoPolicy, name: from-memory}
  phase: Throttle
  match: {users: [joe]}
`
	if err := os.WriteFile(filepath.Join(dir, "policy.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p := &proxied{newProxy(t, "--policy-dir="+dir)}
	joe, jane := p.as(t, "joe"), p.as(t, "jane")
	until(t, "namespaces are in memory", func() bool {
		res, _ := jane.get(t, "/api/v1/namespaces?resourceVersion=0")
		return res.Header.Get("Portico-Served-By") == "cache"
	})
	until(t, "joe is served from memory", func() bool { // once he is known to have the right
		res, _ := joe.get(t, "/api/v1/namespaces")
		return res.StatusCode == http.StatusOK
	})
	res, _ := joe.get(t, "/api/v1/namespaces")
	if by, warning := res.Header.Get("Portico-Served-By"), res.Header.Get("Warning"); by != "cache" || !strings.Contains(warning, "may be older than what is asked for") {
		t.Errorf("served by %s, with the warning %q", by, warning)
	}
	if res, status := joe.get(t, "/api/v1/secrets"); res.StatusCode != http.StatusTooManyRequests || res.Header.Get("Retry-After") == "" {
		t.Errorf("secrets, which are not kept: %d %s", res.StatusCode, status.Message)
	}
	if res, _ := jane.get(t, "/api/v1/secrets"); res.StatusCode != http.StatusOK || res.Header.Get("Warning") != "" {
		t.Errorf("jane got %d %q", res.StatusCode, res.Header)
	}
}
