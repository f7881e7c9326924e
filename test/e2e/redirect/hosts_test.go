//go:build linux

package redirect_test

import (
	"path/filepath"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A backend in the host's network cannot be told from the host's other processes by its
// network: by its cgroup it can. It reaches the Service, and they reach it.
func TestBackendsInTheHostsNetwork(t *testing.T) {
	c := newCluster(t)
	c.addAddress(t, 2, "10.244.2.6")
	c.play(t, c.mkCgroup(t, "elsewhere"), "name", "10.244.2.6:80", "service")
	address := c.service(t, "http-server", 8080, "10.244.2.6", 80)
	c.agent(t, "--kubeconfig="+c.kubeconfig, "--resolve-services")
	client := c.play(t, c.mkCgroup(t, "client"), "ask", address)
	client.until(t, "service")

	container := c.run(t, apiIP, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "cache", Labels: map[string]string{"app": "cache"}},
		Spec:       corev1.PodSpec{HostNetwork: true},
	})
	c.play(t, container, "name", apiIP+":8081", "cache")
	itself := c.play(t, container, "ask", address)
	dir := t.TempDir()
	writePolicy(t, dir, `
apiVersion: balancing.elf.io/v1beta1
kind: LocalRedirectPolicy
metadata: {name: cache}
spec:
  frontend: {serviceMatcher: {namespace: default, serviceName: http-server}}
  backend: {endpointSelector: {matchLabels: {app: cache}}, toPorts: [{port: "8081"}]}
`)
	c.kubectl(t, "apply", "-f", filepath.Join(dir, "policy.yaml"))
	client.until(t, "cache")
	for range 10 {
		if got := itself.say(t); got != "service" {
			t.Errorf("%s answers the backend, want the Service", got)
		}
	}
}
