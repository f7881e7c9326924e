// Package nodes keeps nodes that are not trusted to NodePolicies, in a real proxy
// before a real API server that would let them do everything.
package nodes

import (
	"context"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/portico-proxy/portico/test/controlplane"
	"github.com/portico-proxy/portico/test/proxy"
)

// The nodes: edge is not trusted, and vault is somebody else's.
const (
	edge  = "edge-1"
	vault = "vault-1"
	// home is the namespace of all pods.
	home = "shop"
	// marker is in everything that edge must never see.
	marker = "MARKER"
	// hidden is marker as Secrets have it, in base64.
	hidden = "TUFSS0VS"
)

var (
	world *controlplane.ControlPlane
	admin *kubernetes.Clientset
)

func TestMain(m *testing.M) {
	var err error
	world, err = controlplane.Start(context.Background(), controlplane.Options{
		Log: os.Stderr, Users: []controlplane.User{{Name: "jane", Groups: []string{"system:masters"}}},
		Flags: map[controlplane.Part][]string{controlplane.APIServer: {"--disable-admission-plugins=ServiceAccount"}}, // nobody makes them here
	})
	if err == nil {
		admin = kubernetes.NewForConfigOrDie(world.Config())
		err = populate(context.Background())
	}
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

// populate makes two nodes with a pod each, and gives nodes and pods all rights: as
// who has granted them too much, or who has not noticed.
func populate(ctx context.Context) error {
	err := world.AddDefinitions(ctx, "../../../crds/manifests")
	for _, step := range []func() error{
		func() error { return world.AddNamespace(ctx, home) },
		func() error { return addNode(ctx, edge, map[string]string{"trust": "low"}) },
		func() error { return addNode(ctx, vault, nil) },
		func() error { return addPod(ctx, edge, "web") },
		func() error { return addPod(ctx, vault, "vault") },
		func() error { return addSecret(ctx, "stray") },
		func() error { return addService(ctx, "front", "front") },
		func() error { return addService(ctx, "back", marker) },
		func() error { return mayDoEverything(ctx) },
	} {
		if err == nil {
			err = step()
		}
	}
	return err
}

func addNode(ctx context.Context, name string, labels map[string]string) error {
	_, err := admin.CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}, metav1.CreateOptions{})
	return err
}

// textOf is what an object says: those of edge's own pods say nothing of interest.
func textOf(name string) string {
	if name == "web" || strings.HasPrefix(name, "own-") {
		return "nothing"
	}
	return marker + "-" + name
}

func addSecret(ctx context.Context, name string) error {
	_, err := admin.CoreV1().Secrets(home).Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"of": name}}, StringData: map[string]string{"text": textOf(name)}}, metav1.CreateOptions{})
	return err
}

func addService(ctx context.Context, name, label string) error {
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": label}}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}}
	_, err := admin.CoreV1().Services(home).Create(ctx, s, metav1.CreateOptions{})
	return err
}

// addPod puts a pod on a node, with a ServiceAccount, a Secret and a ConfigMap of its
// name.
func addPod(ctx context.Context, node, name string) error {
	meta := metav1.ObjectMeta{Name: name}
	if _, err := admin.CoreV1().ServiceAccounts(home).Create(ctx, &corev1.ServiceAccount{ObjectMeta: meta}, metav1.CreateOptions{}); err != nil {
		return err
	}
	if err := addSecret(ctx, name); err != nil {
		return err
	}
	if _, err := admin.CoreV1().ConfigMaps(home).Create(ctx, &corev1.ConfigMap{ObjectMeta: meta, Data: map[string]string{"text": textOf(name)}}, metav1.CreateOptions{}); err != nil {
		return err
	}
	return putPod(ctx, node, name)
}

// putPod puts the pod alone on a node.
func putPod(ctx context.Context, node, name string) error {
	local := corev1.LocalObjectReference{Name: name}
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": name}}, Spec: corev1.PodSpec{
		NodeName: node, ServiceAccountName: name, Tolerations: []corev1.Toleration{{Operator: corev1.TolerationOpExists}},
		Containers: []corev1.Container{{Name: "c", Image: "i", Env: []corev1.EnvVar{{Name: "TEXT", Value: textOf(name)}}, EnvFrom: []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: local}}}}},
		Volumes:    []corev1.Volume{{Name: "s", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: name}}}},
	}}
	_, err := admin.CoreV1().Pods(home).Create(ctx, p, metav1.CreateOptions{})
	return err
}

func removePod(ctx context.Context, name string) error {
	now := int64(0)
	return admin.CoreV1().Pods(home).Delete(ctx, name, metav1.DeleteOptions{GracePeriodSeconds: &now})
}

func mayDoEverything(ctx context.Context) error {
	_, err := admin.RbacV1().ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "everything"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
		Subjects: []rbacv1.Subject{
			{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: "system:nodes"},
			{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: "system:serviceaccounts"},
		},
	}, metav1.CreateOptions{})
	return err
}

// kubeletOf is the credential of a node's kubelet.
func kubeletOf(t *testing.T, node string) controlplane.Credential {
	t.Helper()
	cred, err := world.ClientCert("system:node:"+node, "system:nodes")
	if err != nil {
		t.Fatal(err)
	}
	return cred
}

// tokenOf is a ServiceAccount's that is bound to the pod of its name.
func tokenOf(t *testing.T, pod string) controlplane.Credential {
	t.Helper()
	p, err := admin.CoreV1().Pods(home).Get(t.Context(), pod, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		BoundObjectRef: &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: pod, UID: p.UID},
	}}
	answer, err := admin.CoreV1().ServiceAccounts(home).CreateToken(t.Context(), pod, request, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return controlplane.Credential{Token: answer.Status.Token}
}

// start runs a proxy that lets kubelets pass by impersonation.
func start(t *testing.T, flags ...string) *proxy.Proxy {
	t.Helper()
	return proxy.New(t, proxy.Options{
		Kubeconfig: world.KubeconfigPath(), Flags: append(flags, "--client-ca-file="+world.ClientCAFile(), "--impersonate-x509"),
	})
}

// apply makes a policy until the test ends, and waits until it is in force.
func apply(t *testing.T, spec string) {
	t.Helper()
	name := strings.ToLower(strings.ReplaceAll(t.Name(), "/", "-"))
	manifest := "apiVersion: proxy.elf.io/v1alpha1\nkind: NodePolicy\nmetadata:\n  name: " + name + "\nspec:\n" + spec
	t.Cleanup(func() { must(t, "", "delete", "nodepolicy", name) })
	must(t, manifest, "apply", "-f", "-")
	must(t, "", "wait", "--for=condition=Programmed", "--timeout=2m", "nodepolicy/"+name)
}

func must(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	cmd := world.Kubectl(context.Background(), world.KubeconfigPath(), args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// until waits for something that happens in another process.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	tick, deadline := time.NewTicker(50*time.Millisecond), time.After(2*time.Minute)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited in vain: %s", what)
		}
	}
}
