package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	listers "k8s.io/client-go/listers/core/v1"

	"github.com/portico-proxy/portico/test/controlplane"
	"github.com/portico-proxy/portico/test/proxy"
)

// returning is how many informers come back to a proxy that was killed.
const returning = 100

// auditServices logs who reads Services, before it is answered.
const auditServices = `apiVersion: audit.k8s.io/v1
kind: Policy
rules:
- level: Metadata
  verbs: [list, watch]
  resources: [{group: "", resources: [services]}]
- level: None
`

// TestRestartCostsTheAPIServerNoLists kills a proxy while informers are attached
// to it, changes what they follow, and starts it again.
func TestRestartCostsTheAPIServerNoLists(t *testing.T) {
	dir := t.TempDir()
	policy, audit := filepath.Join(dir, "policy.yaml"), filepath.Join(dir, "audit.log")
	if err := os.WriteFile(policy, []byte(auditServices), 0o600); err != nil {
		t.Fatal(err)
	}
	plane := controlplane.New(t, controlplane.Options{Flags: map[controlplane.Part][]string{controlplane.APIServer: {
		"--audit-policy-file=" + policy, "--audit-log-path=" + audit, "--audit-log-mode=blocking-strict",
	}}})
	p := proxy.New(t, proxy.Options{Kubeconfig: plane.KubeconfigPath()})
	direct := kubernetes.NewForConfigOrDie(plane.Config())
	addService(t, direct, "before")
	copies := informServices(t, p, plane)
	awaitService(t, copies, "before")

	seen := len(readers(t, audit))
	p.Kill()
	addService(t, direct, "meanwhile")
	p.Start()
	awaitService(t, copies, "meanwhile")
	addService(t, direct, "after")
	awaitService(t, copies, "after")

	loads := 0
	for _, r := range readers(t, audit)[seen:] {
		switch whole := r.isWhole(); {
		case whole && r.UserAgent == "portico":
			loads++
		case whole:
			t.Errorf("%s reached the API server: %s", r.UserAgent, r.RequestURI)
		}
	}
	// client-go's informers speak protobuf: one stream.
	if loads > 1 {
		t.Errorf("the proxy has fetched the collection %d times", loads)
	}
}

// informServices starts informers, each with a client of its own, that end with
// the test, and returns what they keep.
func informServices(t *testing.T, p *proxy.Proxy, plane *controlplane.ControlPlane) []listers.ServiceLister {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var copies []listers.ServiceLister
	for n := range returning {
		cfg := p.Config(plane.Token("admin"))
		cfg.UserAgent = fmt.Sprintf("informer-%d", n)
		cfg.ContentType, cfg.AcceptContentTypes = "application/vnd.kubernetes.protobuf", "application/vnd.kubernetes.protobuf,application/json"
		f := informers.NewSharedInformerFactory(kubernetes.NewForConfigOrDie(cfg), 0)
		copies = append(copies, f.Core().V1().Services().Lister())
		f.Core().V1().Services().Informer()
		f.Start(ctx.Done())
		t.Cleanup(f.Shutdown)
	}
	t.Cleanup(cancel)
	return copies
}

func addService(t *testing.T, client kubernetes.Interface, name string) {
	t.Helper()
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}}
	if _, err := client.CoreV1().Services(metav1.NamespaceDefault).Create(t.Context(), s, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func awaitService(t *testing.T, copies []listers.ServiceLister, name string) {
	t.Helper()
	for i, c := range copies {
		until(t, fmt.Sprintf("informer %d to have Service %s", i, name), func() bool {
			_, err := c.Services(metav1.NamespaceDefault).Get(name)
			return err == nil
		})
	}
}

// reader is what the API server says of one read.
type reader struct {
	Stage, Verb, RequestURI, UserAgent string
}

// readers are all reads of Services so far.
func readers(t *testing.T, audit string) (all []reader) {
	t.Helper()
	f, err := os.Open(audit)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for d := json.NewDecoder(f); ; {
		var r reader
		if d.Decode(&r) != nil {
			return all
		}
		if r.Stage == "RequestReceived" {
			all = append(all, r)
		}
	}
}

// isWhole reports a read of the whole collection: a list, but for a probe that
// asks for one object, or a watch that begins with all there is.
func (r reader) isWhole() bool {
	u, err := url.Parse(r.RequestURI)
	if err != nil {
		return true
	}
	q := u.Query()
	if r.Verb == "list" {
		return q.Get("limit") != "1" && !strings.Contains(q.Get("fieldSelector"), "metadata.name=")
	}
	return q.Get("sendInitialEvents") == "true" || q.Get("resourceVersion") == "" || q.Get("resourceVersion") == "0"
}
