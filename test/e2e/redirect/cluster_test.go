//go:build linux

package redirect_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/portico-proxy/portico/test/controlplane"
)

const (
	manifests = "../../../crds/manifests/balancing.elf.io_"
	talk      = "../../../crds/balancing/v1beta1/testdata/talk.yaml"
	proxyIP   = "10.244.1.5"
	apiIP     = "192.0.2.1" // where the kubernetes Service's EndpointSlice points to
)

// A cluster is a real API server, and a lab that is its node n1.
type cluster struct {
	*lab
	cp         *controlplane.ControlPlane
	client     kubernetes.Interface
	server     string // how the node reaches the API server
	kubeconfig string // the administrator's, there
	token      string
}

func newCluster(t *testing.T, flags ...string) *cluster {
	t.Helper()
	c := &cluster{lab: newLab(t)}
	c.cp = controlplane.New(t, controlplane.Options{
		Users: []controlplane.User{{Name: "anna", Groups: []string{"system:masters"}, Token: "annas-token"}},
		Flags: map[controlplane.Part][]string{controlplane.APIServer: flags},
	})
	c.client, c.token = kubernetes.NewForConfigOrDie(c.cp.Config()), "annas-token"
	server, err := url.Parse(c.cp.URL())
	if err != nil {
		t.Fatal(err)
	}
	c.addAddress(t, 0, apiIP)
	c.relay(t, apiIP+":"+server.Port(), server.Host)
	c.addAddress(t, 1, proxyIP)
	c.server = "https://" + apiIP + ":" + server.Port()
	c.kubeconfig = c.kubeconfigOf(t, c.cp.Admin())

	c.kubectl(t, "apply", "-f", manifests+"localredirectpolicies.yaml", "-f", manifests+"balancingpolicies.yaml")
	c.kubectl(t, "wait", "--for=condition=Established", "--timeout=60s", "crd/localredirectpolicies.balancing.elf.io", "crd/balancingpolicies.balancing.elf.io")
	_, err = c.client.CoreV1().Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	c.serviceAccount(t, "default")
	return c
}

// serviceAccount makes the one without which a namespace takes no pods.
func (c *cluster) serviceAccount(t *testing.T, namespace string) {
	t.Helper()
	_, err := c.client.CoreV1().ServiceAccounts(namespace).Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

// kubeconfigOf writes a kubeconfig of somebody on the node.
func (c *cluster) kubeconfigOf(t *testing.T, who controlplane.Credential) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := c.cp.Kubeconfig(who).WriteFile(path); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(string(text), c.cp.URL(), c.server)), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func (c *cluster) kubectl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := c.cp.Kubectl(t.Context(), c.cp.KubeconfigPath(), args...).CombinedOutput()
	if err != nil {
		t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// pod makes a ready Pod of node n1, and the cgroups that a kubelet would make for
// it; it returns the container's.
func (c *cluster) pod(t *testing.T, namespace, name, ip string, labels map[string]string) string {
	t.Helper()
	return c.run(t, ip, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: labels}})
}

func (c *cluster) run(t *testing.T, ip string, pod *corev1.Pod) string {
	t.Helper()
	pod.Spec.NodeName, pod.Spec.AutomountServiceAccountToken = "n1", new(false)
	pod.Spec.Containers = []corev1.Container{{Name: "main", Image: "example.org/web"}}
	pods := c.client.CoreV1().Pods(pod.Namespace)
	pod, err := pods.Create(t.Context(), pod, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	pod.Status = corev1.PodStatus{
		Phase: corev1.PodRunning, PodIP: ip, PodIPs: []corev1.PodIP{{IP: ip}},
		Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
	}
	if _, err := pods.UpdateStatus(t.Context(), pod, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	return c.mkCgroup(t, filepath.Base(c.mkCgroup(t, "pod"+string(pod.UID)))+"/main")
}

func (c *cluster) setReady(t *testing.T, name string, ready corev1.ConditionStatus) {
	t.Helper()
	patch := fmt.Sprintf(`{"status":{"conditions":[{"type":"Ready","status":%q}]}}`, ready)
	_, err := c.client.CoreV1().Pods("default").Patch(t.Context(), name, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{}, "status")
	if err != nil {
		t.Fatal(err)
	}
}

// proxy starts the real proxy as the process of a pod. Its own way to the API
// server is the Service's address, as that of every pod.
func (c *cluster) proxy(t *testing.T, cgroup string) *process {
	t.Helper()
	cert, key, err := c.cp.ServerCert("portico", "10.96.0.1", proxyIP)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, data := range map[string][]byte{"tls.crt": cert, "tls.key": key} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return c.spawn(t, cgroup, nil, c.binary, "proxy", "--kubeconfig="+c.kubeconfig, "--server=10.96.0.1:443",
		"--bind-address="+proxyIP, "--secure-port=443", "--tls-cert-file="+dir+"/tls.crt", "--tls-private-key-file="+dir+"/tls.key",
		"--metrics-bind-address=0", "--health-probe-bind-address=0", "--v=0")
}

// A workload dials the kubernetes Service and verifies the certificate. The
// policy is the talk's, as it stands; the proxy behind it is the real one, and
// reaches the API server by the same address.
func TestTheCircle(t *testing.T) {
	c := newCluster(t)
	whole := t // what a step starts is there for the next one
	args := []string{"--kubeconfig=" + c.kubeconfig, "--resolve-services"}
	agent := c.agent(t, args...)
	client := c.play(t, c.mkCgroup(t, "client"), "get", "https://10.96.0.1:443/api/v1/namespaces/default", c.cp.CAFile(), c.token)
	client.until(t, "API server") // the Service is resolved

	container := c.pod(t, "default", "proxy", proxyIP, map[string]string{"app": "proxy-redirect"})
	backend := c.proxy(t, container)
	c.kubectl(t, "apply", "-f", talk)
	t.Logf("redirected after %v", client.until(t, "proxy"))

	t.Run("status", func(t *testing.T) {
		c.kubectl(t, "wait", "lr/test", "--for=condition=Active", "--timeout=60s")
		c.kubectl(t, "wait", "lr/test", "--for=jsonpath={.status.activeBackends}=1", "--timeout=60s")
		c.kubectl(t, "wait", "bl/test-service-podendpoint", "--for=condition=Accepted=false", "--timeout=60s") // there is no such Service
	})
	t.Run("explained", func(t *testing.T) {
		out := c.portico(t, "inspect", "redirect", "10.96.0.1:443", "--pin-path="+c.pins)
		if !strings.Contains(out, "now: "+proxyIP+":443, because of LocalRedirectPolicy test") || !strings.Contains(out, "because of Service default/kubernetes:https") {
			t.Errorf("the explanation is:\n%s", out)
		}
	})
	t.Run("dry-run", func(t *testing.T) {
		out := c.portico(t, "redirect", "--dry-run", "--kubeconfig="+c.kubeconfig, "--node-name=n1", "--cgroup="+c.cgroup)
		if !strings.Contains(out, "LocalRedirectPolicy test: Redirecting") {
			t.Errorf("it would do:\n%s", out)
		}
	})
	t.Run("proxy-killed", func(t *testing.T) {
		backend.kill(t)
		t.Logf("fell back after %v", client.until(t, "API server"))
		backend = c.proxy(whole, container)
		t.Logf("came back after %v", client.until(t, "proxy"))
	})
	t.Run("proxy-not-ready", func(t *testing.T) {
		c.setReady(t, "proxy", corev1.ConditionFalse)
		client.until(t, "API server")
		c.setReady(t, "proxy", corev1.ConditionTrue)
		client.until(t, "proxy")
	})
	t.Run("agent-killed", func(t *testing.T) {
		agent.kill(t)
		t.Logf("fell back after %v", client.until(t, "API server"))
		agent = c.agent(whole, args...)
		t.Logf("came back after %v", client.until(t, "proxy"))
	})
	t.Run("API-server-frozen", func(t *testing.T) {
		if err := c.cp.Freeze(controlplane.APIServer); err != nil {
			t.Fatal(err)
		}
		out := c.portico(t, "inspect", "redirect", "10.96.0.1:443", "--pin-path="+c.pins)
		if err := c.cp.Thaw(controlplane.APIServer); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(out, "now: "+proxyIP) {
			t.Errorf("the redirect depends on the API server:\n%s", out)
		}
	})
	t.Run("both-killed", func(t *testing.T) {
		agent.kill(t)
		backend.kill(t)
		t.Logf("fell back after %v", client.until(t, "API server"))
		backend = c.proxy(whole, container)
		agent = c.agent(whole, args...)
		t.Logf("came back after %v", client.until(t, "proxy"))
	})
	t.Run("policy-deleted-and-made-again", func(t *testing.T) {
		c.kubectl(t, "delete", "lr", "test")
		client.until(t, "API server")
		c.kubectl(t, "apply", "-f", talk)
		client.until(t, "proxy")
	})
	t.Run("node-label-flips", func(t *testing.T) {
		c.kubectl(t, "patch", "lr", "test", "--type=merge", "-p", `{"spec":{"config":{"nodeLabelSelector":{"matchLabels":{"region":"balancing"}}}}}`)
		client.until(t, "API server")
		c.kubectl(t, "label", "node", "n1", "region=balancing")
		client.until(t, "proxy")
		c.kubectl(t, "label", "node", "n1", "region-")
		client.until(t, "API server")
	})
}

// examples/redirect as it stands, with no more rights than it gives, and with what it
// asks the API server for.
func TestTheExample(t *testing.T) {
	dir := t.TempDir()
	policy, log := filepath.Join(dir, "policy.yaml"), filepath.Join(dir, "log")
	writePolicy(t, dir, "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata, omitStages: [RequestReceived]}]\n")
	c := newCluster(t, "--audit-policy-file="+policy, "--audit-log-path="+log)
	c.kubectl(t, "apply", "-f", "../../../examples/redirect/agent.yaml", "-f", "../../../examples/redirect/policy.yaml")
	c.serviceAccount(t, "portico")
	who, err := c.cp.ServiceAccountToken(t.Context(), "portico", "portico-redirect", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	config := c.kubeconfigOf(t, who)
	dry := []string{"redirect", "--dry-run", "--kubeconfig=" + config, "--node-name=n1", "--cgroup=" + c.cgroup}
	c.portico(t, dry...)
	if asked := checkAsked(t, log); asked["services"] == 0 || asked["endpointslices"] != 0 {
		t.Errorf("without resolving Services, the agent asks for %v", asked)
	}
	c.portico(t, append(dry, "--end-stale-sockets=UDP")...) // who does must know who lives
	if asked := checkAsked(t, log); asked["endpointslices"] == 0 {
		t.Errorf("ending sockets, the agent asks for %v", asked)
	}
	c.agent(t, "--resolve-services", "--kubeconfig="+config)
	// Only pods of the policy's namespace take part.
	c.play(t, c.pod(t, "default", "stranger", apiIP, map[string]string{"app": "portico"}), "name", apiIP+":6443", "stranger")
	c.play(t, c.pod(t, "portico", "portico", proxyIP, map[string]string{"app": "portico"}), "name", proxyIP+":6443", "proxy")
	client := c.play(t, c.mkCgroup(t, "client"), "ask", "10.96.0.1:443")
	client.until(t, "proxy")
	c.kubectl(t, "wait", "lr/kubernetes-next-door", "--for=jsonpath={.status.activeBackends}=1", "--timeout=60s")
	checkAsked(t, log)
}

// checkAsked reads the API server's audit log, and counts what was asked for: an
// agent is one of thousands, and may not want to know all pods and nodes.
func checkAsked(t *testing.T, log string) map[string]int {
	t.Helper()
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	bounded := map[string]string{"pods": "spec.nodeName=n1", "nodes": "metadata.name=n1"}
	seen := map[string]int{}
	whole := text[:bytes.LastIndexByte(text, '\n')+1] // it is still being written
	for line := range bytes.Lines(whole) {
		var e auditv1.Event
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatal(err)
		}
		if e.User.Username != "system:serviceaccount:portico:portico-redirect" || e.ObjectRef == nil || e.ObjectRef.Subresource != "" {
			continue
		}
		if e.Verb != "list" && e.Verb != "watch" {
			continue
		}
		seen[e.ObjectRef.Resource]++
		by, isBounded := bounded[e.ObjectRef.Resource]
		if u, err := url.ParseRequestURI(e.RequestURI); err != nil || isBounded && u.Query().Get("fieldSelector") != by {
			t.Errorf("the agent asks for %s, want only those of %s", e.RequestURI, by)
		}
	}
	if seen["pods"] == 0 || seen["nodes"] == 0 {
		t.Errorf("the agent asks for %v only", seen)
	}
	return seen
}

// The talk's second policy, and upgrades under load.
func TestUpgradesDropNothing(t *testing.T) {
	c := newCluster(t)
	c.kubectl(t, "label", "node", "n1", "region=balancing")
	c.addAddress(t, 2, "10.244.1.6")
	c.play(t, c.pod(t, "default", "http-redirect", "10.244.1.6", map[string]string{"app": "http-redirect"}), "name", "10.244.1.6:80", "policy")
	c.addAddress(t, 3, "10.244.2.6")
	c.play(t, c.mkCgroup(t, "elsewhere"), "name", "10.244.2.6:80", "service")
	address := c.service(t, "http-server", 8080, "10.244.2.6", 80)
	args := []string{"--kubeconfig=" + c.kubeconfig, "--resolve-services"}
	agent := c.agent(t, args...)
	client := c.play(t, c.mkCgroup(t, "client"), "ask", address)
	client.until(t, "service")
	c.kubectl(t, "apply", "-f", talk)
	client.until(t, "policy")

	load := c.play(t, c.mkCgroup(t, "load"), "load", address)
	if !load.out.Scan() {
		t.Fatal("the load did not start")
	}
	for range 3 {
		next := c.agent(t, args...) // waits for its turn
		agent.signal(t, syscall.SIGTERM)
		agent = next
		c.untilSteering(t, next)
	}
	if err := load.in.Close(); err != nil {
		t.Fatal(err)
	}
	if !load.out.Scan() {
		t.Fatal("the load did not end well")
	}
	t.Log(load.out.Text())
	if strings.Contains(load.out.Text(), " ") || !strings.HasPrefix(load.out.Text(), "policy=") {
		t.Errorf("answers during upgrades: %s; want the policy's only", load.out.Text())
	}
}

// untilSteering waits until an agent renews the lease: it is longer than a
// lease's, by the handover, until then.
func (l *lab) untilSteering(t *testing.T, agent *process) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for ctx.Err() == nil {
		out := l.portico(t, "inspect", "redirect", "--pin-path="+l.pins)
		_, lease, _ := strings.Cut(out, "lease: ")
		lease, _, _ = strings.Cut(lease, " ")
		if d, err := time.ParseDuration(lease); err == nil && d <= time.Second {
			return
		}
		agent.pause(t)
	}
	t.Fatal("the agent does not begin to steer")
}

// service makes a Service with one endpoint and returns its address.
func (c *cluster) service(t *testing.T, name string, port int32, ip string, target int32) string {
	t.Helper()
	s, err := c.client.CoreV1().Services("default").Create(t.Context(), &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "http", Port: port}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.client.DiscoveryV1().EndpointSlices("default").Create(t.Context(), &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: name}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: new("http"), Port: new(target)}},
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{ip}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%s:%d", s.Spec.ClusterIP, port)
}
