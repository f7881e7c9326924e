package clients

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"

	"github.com/portico-proxy/portico/test/controlplane"
	"github.com/portico-proxy/portico/test/proxy"
)

// controllers are the parts that live off the API server. kwok's user may do
// everything.
var controllers = map[controlplane.Part][]string{controlplane.ControllerManager: nil, controlplane.Scheduler: nil, controlplane.Kwok: {"system:masters"}}

// detector makes client-go compare each list that it got as a watch with a plain
// one, and panic if they differ.
const detector = "KUBE_WATCHLIST_INCONSISTENCY_DETECTOR=true"

// TestControllersRunThroughTheProxy lets controller-manager, scheduler and kwok
// do the same work directly and through the proxy, while other objects change
// without pause, and compares what they complain of: errors that they do not
// have directly are the proxy's.
func TestControllersRunThroughTheProxy(t *testing.T) {
	known := complaints(t, scenario(t, "", nil))
	for name, flags := range ways(t) {
		t.Run(name, func(t *testing.T) {
			flags = append(flags, "--impersonate-x509")
			added := without(complaints(t, scenario(t, name, flags)), known)
			if len(added) == 0 {
				return
			}
			// Controllers race with each other, and complain of it now and then. What
			// they complain of every time is the proxy's.
			again := complaints(t, scenario(t, name, flags))
			for complaint := range added {
				if again[complaint] {
					t.Errorf("new: %s", complaint)
				}
			}
		})
	}
}

// without returns what is in a and not in b.
func without(a, b map[string]bool) map[string]bool {
	a = maps.Clone(a)
	maps.DeleteFunc(a, func(s string, _ bool) bool { return b[s] })
	return a
}

// scenario runs one life of a Deployment in a control plane of its own. Without
// flags the controllers talk to the API server directly.
func scenario(t *testing.T, way string, flags []string) *controlplane.ControlPlane {
	t.Helper()
	cp := controlplane.New(t, controlplane.Options{Env: map[controlplane.Part][]string{
		controlplane.ControllerManager: {detector}, controlplane.Scheduler: {detector}, controlplane.Kwok: {detector},
	}})
	client := clientset(t, cp.Config())
	churn := startChurn(t, client, metav1.NamespaceDefault)
	kubeconfigs := map[controlplane.Part]string{}
	if flags != nil {
		p := proxy.New(t, proxy.Options{Kubeconfig: cp.KubeconfigPath(), Flags: append(flags, "--client-ca-file="+cp.ClientCAFile())})
		defer expectMemory(t, p, way)
		for part, groups := range controllers {
			kubeconfigs[part] = ofPart(t, cp, p, part, groups)
		}
	}
	for part := range controllers {
		if err := cp.Add(t.Context(), part, kubeconfigs[part]); err != nil {
			t.Fatal(err)
		}
	}
	if err := cp.AddNode(t.Context(), "node-0"); err != nil {
		t.Fatal(err)
	}
	live(t, client)
	churn.end(t)
	for part := range controllers {
		if err := cp.Ready(t.Context(), part); err != nil {
			t.Errorf("%s has not survived: %v", part, err)
		}
	}
	return cp
}

// ofPart is a kubeconfig of a part's own user, whose certificate the proxy
// passes on by impersonation.
func ofPart(t *testing.T, cp *controlplane.ControlPlane, p *proxy.Proxy, part controlplane.Part, groups []string) string {
	t.Helper()
	cred, err := cp.ClientCert("system:"+string(part), groups...)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := (controlplane.Kubeconfig{Server: p.URL, CA: p.CA, Credential: cred}).WriteFile(path); err != nil {
		t.Fatal(err)
	}
	return path
}

// live creates a Deployment, scales it, rolls it and deletes it, each to the end.
func live(t *testing.T, client *kubernetes.Clientset) {
	t.Helper()
	deployments := client.AppsV1().Deployments("default")
	labels := map[string]string{"app": "web"}
	web := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: appsv1.DeploymentSpec{
		Selector: &metav1.LabelSelector{MatchLabels: labels},
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}},
	}}
	if _, err := deployments.Create(t.Context(), web, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	settled := func(replicas int32, image string) {
		t.Helper()
		eventually(t, fmt.Sprintf("%d pods of %s", replicas, image), func(ctx context.Context) bool {
			d, err := deployments.Get(ctx, "web", metav1.GetOptions{})
			return err == nil && d.Status.ObservedGeneration == d.Generation && d.Status.AvailableReplicas == replicas &&
				d.Status.UpdatedReplicas == replicas && d.Status.Replicas == replicas && d.Spec.Template.Spec.Containers[0].Image == image
		})
	}
	settled(1, "i")
	scale := &autoscalingv1.Scale{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "default"}, Spec: autoscalingv1.ScaleSpec{Replicas: 10}}
	if _, err := deployments.UpdateScale(t.Context(), "web", scale, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	settled(10, "i")
	roll := []byte(`{"spec":{"template":{"spec":{"containers":[{"name":"c","image":"j"}]}}}}`)
	if _, err := deployments.Patch(t.Context(), "web", types.StrategicMergePatchType, roll, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	settled(10, "j")
	foreground := metav1.DeletePropagationForeground
	if err := deployments.Delete(t.Context(), "web", metav1.DeleteOptions{PropagationPolicy: &foreground}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end of all", func(ctx context.Context) bool {
		_, err := deployments.Get(ctx, "web", metav1.GetOptions{})
		pods, listed := client.CoreV1().Pods("default").List(ctx, metav1.ListOptions{})
		return apierrors.IsNotFound(err) && listed == nil && len(pods.Items) == 0
	})
}

func eventually(t *testing.T, what string, done func(context.Context) bool) {
	t.Helper()
	err := wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, 2*time.Minute, true, func(ctx context.Context) (bool, error) {
		return done(ctx), nil
	})
	if err != nil {
		t.Fatalf("waiting for %s: %v", what, err)
	}
}

var (
	errorLine = regexp.MustCompile(`(?m)^E\d{4} [\d:.]+ +\d+ (\S+?):\d+\] (.*)$`)
	// The API server's answer to the status of a ReplicaSet that is gone.
	lostToDeletion = regexp.MustCompile(`err="sync .* failed with .* not found"`)

	variable = regexp.MustCompile(`"[^" ]*/[^" ]*"|\b[0-9a-f-]{8,}\b|web-\S+|\d+`)
)

// isRace reports complaints of lost races, which are part of the work: of a write
// that lost to another or to a deletion, and of a watch that lost to the answer of
// the controller's own write, which directly happens a dozen times in a run too.
func isRace(complaint string) bool {
	return strings.Contains(complaint, "the object has been modified") || lostToDeletion.MatchString(complaint) ||
		strings.Contains(complaint, "is not as new as written version")
}

// complaints are the error lines of the controllers, without what differs from
// run to run.
func complaints(t *testing.T, cp *controlplane.ControlPlane) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	for part := range controllers {
		log, err := cp.Log(part)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range errorLine.FindAllStringSubmatch(log, -1) {
			if !isRace(m[2]) {
				found[string(part)+" "+m[1]+" "+variable.ReplaceAllString(m[2], "*")] = true
			}
		}
	}
	return found
}
