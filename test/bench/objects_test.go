package bench

import (
	"crypto/sha256"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

const (
	namespace = "bench"
	// pods of about 10 kB are a list of about 100 MB.
	pods = 10_000
	// watched is the object that a watch is for.
	watched = "watched"
)

// objects are what is asked for. All are made directly.
type objects struct {
	config *rest.Config
	client *kubernetes.Clientset
	writes int
	filled bool
}

func (o *objects) one() string {
	return fmt.Sprintf("/api/v1/namespaces/%s/pods/%s", namespace, podName(0))
}

// all is asked for as informers do: from the API server's watch cache.
func (o *objects) all() string {
	return fmt.Sprintf("/api/v1/namespaces/%s/pods?resourceVersion=0", namespace)
}

func (o *objects) watchOne() string {
	return fmt.Sprintf("/api/v1/namespaces/%s/configmaps?watch=true&fieldSelector=%s", namespace, url.QueryEscape("metadata.name="+watched))
}

// first makes what is needed before the pods are many.
func (o *objects) first(b *testing.B) {
	b.Helper()
	config := rest.CopyConfig(o.config)
	config.ContentType = asProtobuf
	config.WarningHandler = rest.NoWarnings{}
	var err error
	if o.client, err = kubernetes.NewForConfig(config); err != nil {
		b.Fatal(err)
	}
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}
	if _, err := o.client.CoreV1().Namespaces().Create(b.Context(), ns, metav1.CreateOptions{}); err != nil {
		b.Fatal(err)
	}
	if err := o.makePod(b, 0); err != nil {
		b.Fatal(err)
	}
	configMap := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: watched}, Data: map[string]string{"text": strings.Repeat("text ", 200)}}
	if _, err := o.client.CoreV1().ConfigMaps(namespace).Create(b.Context(), configMap, metav1.CreateOptions{}); err != nil {
		b.Fatal(err)
	}
}

// touch changes the object that is watched.
func (o *objects) touch(b *testing.B) {
	b.Helper()
	o.writes++
	patch := fmt.Appendf(nil, `{"data":{"count":"%d"}}`, o.writes)
	if _, err := o.client.CoreV1().ConfigMaps(namespace).Patch(b.Context(), watched, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		b.Fatal(err)
	}
}

// rest makes all pods but the first, once.
func (o *objects) rest(b *testing.B) {
	b.Helper()
	if o.filled {
		return
	}
	o.filled = true
	var work errgroup.Group
	work.SetLimit(16)
	for n := 1; n < pods; n++ {
		work.Go(func() error { return o.makePod(b, n) })
	}
	if err := work.Wait(); err != nil {
		b.Fatal(err)
	}
}

func (o *objects) makePod(b *testing.B, n int) error {
	_, err := o.client.CoreV1().Pods(namespace).Create(b.Context(), pod(n), metav1.CreateOptions{})
	return err
}

func podName(n int) string { return fmt.Sprintf("frontend-7d9f8b6c5-%05d", n) }

// pod is an ordinary one: two containers, an init container, some environment,
// probes and volumes. What it grows to is mostly many small fields.
func pod(n int) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: podName(n),
			Labels: map[string]string{
				"app.kubernetes.io/name": "frontend", "app.kubernetes.io/instance": fmt.Sprintf("shop-%d", n%50),
				"app.kubernetes.io/part-of": "shop", "pod-template-hash": "7d9f8b6c5",
			},
			Annotations: map[string]string{
				"prometheus.io/scrape": "true", "prometheus.io/port": "9090",
				"kubectl.kubernetes.io/restartedAt": "2025-01-01T00:00:00Z",
				"checksum/config":                   fmt.Sprintf("%064x", n),
			},
		},
		Spec: corev1.PodSpec{
			NodeName:       fmt.Sprintf("node-%d", n%500),
			InitContainers: []corev1.Container{container(podName(n), "init", 8)},
			Containers:     []corev1.Container{container(podName(n), "server", 24), container(podName(n), "sidecar", 12)},
			Volumes: []corev1.Volume{
				{Name: "config", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "frontend-config"}}}},
				{Name: "cache", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
			},
			Tolerations: []corev1.Toleration{
				{Key: "dedicated", Operator: corev1.TolerationOpEqual, Value: "frontend", Effect: corev1.TaintEffectNoSchedule},
			},
		},
	}
}

func container(pod, name string, variables int) corev1.Container {
	c := corev1.Container{
		Name:    name,
		Image:   "registry.example.org/shop/" + name + "@sha256:" + strings.Repeat("0123456789abcdef", 4),
		Command: []string{"/usr/local/bin/" + name},
		Args:    []string{"--listen=:8080", "--log-level=info", "--config=/etc/frontend/config.yaml", "--cache-dir=/var/cache/frontend"},
		Resources: corev1.ResourceRequirements{
			Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("250m"), corev1.ResourceMemory: resource.MustParse("128Mi")},
			Limits:   corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("256Mi")},
		},
		VolumeMounts: []corev1.VolumeMount{
			{Name: "config", MountPath: "/etc/frontend", ReadOnly: true}, {Name: "cache", MountPath: "/var/cache/frontend"},
		},
	}
	if name == "server" {
		c.Ports = []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}, {Name: "metrics", ContainerPort: 9090}}
		probe := corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/healthz", Port: intstr.FromString("http")}}}
		c.LivenessProbe, c.ReadinessProbe = probe.DeepCopy(), probe.DeepCopy()
	}
	for i := range variables {
		value := fmt.Sprintf("value-of-option-%02d.example.org", i)
		if i%4 == 0 {
			value = fmt.Sprintf("%x", sha256.Sum256([]byte(value+pod))) // what does not compress
		}
		c.Env = append(c.Env, corev1.EnvVar{Name: fmt.Sprintf("FRONTEND_OPTION_%02d", i), Value: value})
	}
	return c
}
