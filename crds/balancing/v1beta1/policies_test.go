package v1beta1_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/yaml"

	"github.com/portico-proxy/portico/crds/balancing/v1beta1"
	"github.com/portico-proxy/portico/test/controlplane"
)

const manifests = "../../manifests"

func TestPoliciesOnAnAPIServer(t *testing.T) {
	cp := controlplane.New(t, controlplane.Options{})
	kubectl(t, cp, "apply", "-f", manifests+"/balancing.elf.io_localredirectpolicies.yaml", "-f", manifests+"/balancing.elf.io_balancingpolicies.yaml")
	kubectl(t, cp, "wait", "--for=condition=Established", "--timeout=60s", "crd/localredirectpolicies.balancing.elf.io", "crd/balancingpolicies.balancing.elf.io")
	client := dynamic.NewForConfigOrDie(cp.Config())

	t.Run("the-talk-as-it-was-shown", func(t *testing.T) {
		kubectl(t, cp, "apply", "-f", "testdata/talk.yaml")
		if out := kubectl(t, cp, "get", "lr,bl"); !strings.Contains(out, "kubernetes") || !strings.Contains(out, "podEndpoint") {
			t.Errorf("kubectl get lr,bl prints:\n%s", out)
		}
		kubectl(t, cp, "delete", "-f", "testdata/talk.yaml")
		kubectl(t, cp, "apply", "-f", "testdata/talk.yaml")
	})
	t.Run("explained", func(t *testing.T) {
		for _, path := range []string{"lr.spec.frontend.toPorts", "bl.spec.backend.serviceEndpoint.redirectMode", "lr.spec.config.fallback"} {
			if out := kubectl(t, cp, "explain", path); strings.Contains(out, "<empty>") {
				t.Errorf("kubectl explain %s says nothing:\n%s", path, out)
			}
		}
	})
	t.Run("edited", func(t *testing.T) {
		kubectl(t, cp, "patch", "lr", "test", "--type=merge", "-p", `{"spec":{"config":{"fallback":"Refuse"},"frontend":{"serviceMatcher":{"serviceName":"other"}}}}`)
	})
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) { create(t, client, c) })
	}
}

func kubectl(t *testing.T, cp *controlplane.ControlPlane, args ...string) string {
	t.Helper()
	out, err := cp.Kubectl(t.Context(), cp.KubeconfigPath(), args...).CombinedOutput()
	if err != nil {
		t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// Specs to try, as a local or as a balancing policy. Refused are those with a
// word of why.
var cases = []struct {
	name, kind, spec, refused string
}{
	{"ports-beside-the-matcher", "lr", service + "  toPorts: [{port: '443'}]\n" + pods, ""},
	{"ports-inside-the-matcher", "lr", service + "    toPorts: [{port: '443'}]\n" + pods, ""},
	{"ports-in-both-places", "lr", service + "    toPorts: [{port: '443'}]\n  toPorts: [{port: '443'}]\n" + pods, "not both"},
	{"all-ports-of-a-service", "lr", service + pods, ""},
	{"address-with-ports-beside", "bl", address("192.0.2.7") + "  toPorts: [{port: '53', protocol: UDP}]\n" + addresses, ""},
	{"address-with-ports-inside", "bl", address("2001:db8::7") + "    toPorts: [{port: '53', protocol: UDP}]\n" + addresses, ""},
	{"address-with-ports-in-both", "lr", address("192.0.2.7") + "    toPorts: [{port: '1'}]\n  toPorts: [{port: '1'}]\n" + pods, "not both"},
	{"address-without-ports", "bl", address("192.0.2.7") + addresses, "needs toPorts"},
	{"address-is-a-name", "lr", address("example.org") + "  toPorts: [{port: '1'}]\n" + pods, "IP address"},
	{"address-is-loopback", "lr", address("127.0.0.1") + "  toPorts: [{port: '1'}]\n" + pods, "IP address"},
	{"address-is-unspecified", "lr", address("'::'") + "  toPorts: [{port: '1'}]\n" + pods, "IP address"},
	{"both-frontends", "lr", service + "  addressMatcher: {ip: 192.0.2.7}\n  toPorts: [{port: '1'}]\n" + pods, "exactly one"},
	{"no-frontend", "lr", "frontend:\n  toPorts: [{port: '1'}]\n" + pods, "exactly one"},
	{"both-backends", "bl", service + addresses + "  serviceEndpoint: {endpointSelector: {}, toPorts: [{port: '1'}]}\n", "exactly one"},
	{"no-backend", "bl", service + "backend: {}\n", "exactly one"},
	{"unknown-mode", "bl", service + "backend:\n  serviceEndpoint: {endpointSelector: {}, redirectMode: teleport, toPorts: [{port: '1'}]}\n", "supported values"},
	{"backend-is-a-name", "bl", service + "backend:\n  addressEndpoint: {addresses: [example.org], toPorts: [{port: '1'}]}\n", "IP addresses"},
	{"port-0", "lr", service + "  toPorts: [{port: '0'}]\n" + pods, "should match"},
	{"port-65536", "lr", service + "  toPorts: [{port: '65536'}]\n" + pods, "should match"},
	{"port-65535", "lr", service + "  toPorts: [{port: '65535'}]\n" + pods, ""},
	{"sctp", "lr", service + "  toPorts: [{port: '1', protocol: SCTP}]\n" + pods, "supported values"},
	{"several-ports-without-names", "lr", service + "  toPorts: [{port: '1'}, {port: '2'}]\n" + pods, "name the ports"},
	{"several-ports-of-one-name", "lr", service + "  toPorts: [{port: '1', name: a}, {port: '2', name: a}]\n" + pods, "different names"},
	{"one-name-for-two-protocols", "lr", service + "  toPorts: [{port: '53', name: dns}, {port: '53', name: dns, protocol: UDP}]\n" + pods, ""},
	{"fallback", "lr", "config: {fallback: Hang}\n" + service + pods, "supported values"},
	{"affinity-without-end", "lr", "config: {sessionAffinity: {timeoutSeconds: 90000}}\n" + service + pods, "less than or equal"},
	{"everything", "lr", "config: {fallback: Refuse, enableOutCluster: false, redirectBackends: true, nodeLabelSelector: {}, clients: {namespace: shop, podSelector: {}}, sessionAffinity: {client: Cgroup}}\n" + service + pods, ""},
}

const (
	service   = "frontend:\n  serviceMatcher:\n    serviceName: web\n    namespace: shop\n"
	pods      = "backend:\n  endpointSelector: {matchLabels: {app: web}}\n  toPorts: [{port: '8080'}]\n"
	addresses = "backend:\n  addressEndpoint: {addresses: [192.0.2.8, '2001:db8::8'], probe: true, toPorts: [{port: '53', protocol: UDP}]}\n"
)

func address(ip string) string { return "frontend:\n  addressMatcher:\n    ip: " + ip + "\n" }

func create(t *testing.T, client dynamic.Interface, c struct{ name, kind, spec, refused string }) {
	t.Helper()
	kind, resource := "LocalRedirectPolicy", "localredirectpolicies"
	if c.kind == "bl" {
		kind, resource = "BalancingPolicy", "balancingpolicies"
	}
	text := fmt.Sprintf("apiVersion: balancing.elf.io/v1beta1\nkind: %s\nmetadata: {name: %s}\nspec:\n  %s",
		kind, c.name, strings.ReplaceAll(strings.TrimSpace(c.spec), "\n", "\n  "))
	object := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(text), &object.Object); err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	_, err := client.Resource(v1beta1.GroupVersion.WithResource(resource)).Create(
		context.WithoutCancel(t.Context()), object, metav1.CreateOptions{FieldValidation: "Strict"})
	switch {
	case c.refused == "" && err != nil:
		t.Errorf("refused: %v\n%s", err, text)
	case c.refused != "" && !apierrors.IsInvalid(err):
		t.Errorf("got %v, want it to be invalid:\n%s", err, text)
	case c.refused != "" && !strings.Contains(err.Error(), c.refused):
		t.Errorf("refused with %q, want it to say %q", err, c.refused)
	}
}

// What is read from files never meets the API server, and its rules.
func TestTheTalkIsWhatTheTypesSay(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("testdata", "talk.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	local, balancing, _ := strings.Cut(string(text), "\n---\n")
	var lr v1beta1.LocalRedirectPolicy
	if err := yaml.UnmarshalStrict([]byte(local), &lr); err != nil {
		t.Error(err)
	}
	var bl v1beta1.BalancingPolicy
	if err := yaml.UnmarshalStrict([]byte(balancing), &bl); err != nil {
		t.Error(err)
	}
	if len(lr.Spec.Frontend.ToPorts) != 1 || len(bl.Spec.Frontend.ServiceMatcher.ToPorts) != 1 {
		t.Error("ports are not where the talk has them")
	}
}
