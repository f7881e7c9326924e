// Package callers sends requests by every kind of caller, honest or not,
// directly and through the proxy, and looks for one who gets more, or less.
package callers

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/portico-proxy/portico/test/controlplane"
	"github.com/portico-proxy/portico/test/e2e/wire"
)

const (
	// self is the proxy's own identity, which may do everything.
	self = "portico-self"
	// shop is where jane may list pods and make ConfigMaps, and robot may too.
	shop = "shop"

	auditPolicy = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- level: Metadata\n"
)

var (
	world *controlplane.ControlPlane
	// audit is the API server's log of who did what, written before it answers.
	audit string
	// robot and expired are tokens of a ServiceAccount.
	robot, expired controlplane.Credential
)

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (int, error) {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "callers-")
	if err != nil {
		return 1, fmt.Errorf("make a directory: %w", err)
	}
	defer os.RemoveAll(dir)
	policy := filepath.Join(dir, "policy.yaml")
	audit = filepath.Join(dir, "audit.log")
	if err := os.WriteFile(policy, []byte(auditPolicy), 0o600); err != nil {
		return 1, fmt.Errorf("write the audit policy: %w", err)
	}
	world, err = controlplane.Start(ctx, controlplane.Options{
		Log: os.Stderr, Users: []controlplane.User{{Name: "jane", Groups: []string{"devs"}}, {Name: "joe"}},
		Flags: map[controlplane.Part][]string{controlplane.APIServer: {
			"--disable-admission-plugins=ServiceAccount", // nobody makes them here
			"--audit-policy-file=" + policy, "--audit-log-path=" + audit, "--audit-log-mode=blocking-strict",
		}},
	})
	if err != nil {
		return 1, err
	}
	defer world.Stop()
	if err := populate(ctx); err != nil {
		return 1, err
	}
	code := m.Run()
	if code != 0 {
		_, _ = io.WriteString(os.Stderr, world.LogTails(30))
	}
	return code, nil
}

// populate makes what is asked for, and the rights to it.
func populate(ctx context.Context) error {
	c := kubernetes.NewForConfigOrDie(world.Config())
	meta := metav1.ObjectMeta{Name: "clerk"}
	role := &rbacv1.Role{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"list", "watch"}},
		{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"create"}},
	}}
	binding := &rbacv1.RoleBinding{ObjectMeta: meta, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: meta.Name}, Subjects: []rbacv1.Subject{
		{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: "jane"},
		{Kind: rbacv1.ServiceAccountKind, Namespace: shop, Name: "robot"},
	}}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "robot"}}
	err := world.AddNamespace(ctx, shop)
	for _, step := range []func() error{
		func() error { _, err := c.CoreV1().Pods(shop).Create(ctx, pod, metav1.CreateOptions{}); return err },
		func() error {
			_, err := c.CoreV1().ServiceAccounts(shop).Create(ctx, account, metav1.CreateOptions{})
			return err
		},
		func() error { _, err := c.RbacV1().Roles(shop).Create(ctx, role, metav1.CreateOptions{}); return err },
		func() error {
			_, err := c.RbacV1().RoleBindings(shop).Create(ctx, binding, metav1.CreateOptions{})
			return err
		},
		func() error { robot, err = world.ServiceAccountToken(ctx, shop, "robot", time.Hour); return err },
		func() error {
			now := time.Now()
			expired, err = world.SignToken(ctx, shop, "robot", now.Add(-2*time.Hour), now.Add(-time.Hour))
			return err
		},
	} {
		if err == nil {
			err = step()
		}
	}
	if err != nil {
		return fmt.Errorf("make what is asked for: %w", err)
	}
	return nil
}

// event is what the API server says of one request.
type event struct {
	Stage      string                           `json:"stage"`
	Verb       string                           `json:"verb"`
	RequestURI string                           `json:"requestURI"`
	User       struct{ Username string }        `json:"user"`
	As         *struct{ Username string }       `json:"impersonatedUser"`
	ObjectRef  *struct{ Resource, Name string } `json:"objectRef"`
}

// audited are all requests so far.
func audited(t *testing.T) (all []event) {
	t.Helper()
	f, err := os.Open(audit)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for d := json.NewDecoder(f); ; {
		var e event
		err := d.Decode(&e)
		if err != nil {
			return all // the end, or a line that is being written
		}
		if e.Stage != "RequestReceived" { // when nobody is impersonated yet
			all = append(all, e)
		}
	}
}

// onlyOwnBusiness fails the test if somebody has acted with the proxy's
// identity: what it asks for itself is none of what the tests ask for.
func onlyOwnBusiness(t *testing.T) {
	t.Helper()
	for _, e := range audited(t) {
		if e.User.Username != self || e.As != nil || e.ObjectRef == nil {
			continue
		}
		switch e.ObjectRef.Resource {
		case "selfsubjectreviews", "configmaps", "secrets":
			t.Errorf("somebody acted as the proxy: %s %s", e.Verb, e.RequestURI)
		}
	}
}

// The requests that callers send.
var (
	whoAmI = wire.Request{Method: http.MethodPost, Target: "/apis/authentication.k8s.io/v1/selfsubjectreviews", Body: []byte(`{"kind":"SelfSubjectReview","apiVersion":"authentication.k8s.io/v1"}`)}.With("Content-Type", "application/json")
	pods   = wire.Request{Target: "/api/v1/namespaces/" + shop + "/pods?resourceVersion=0"}
	secret = wire.Request{Target: "/api/v1/secrets"}
)
