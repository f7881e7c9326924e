package controlplane

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// rootCA is the ConfigMap that pods of each namespace mount.
const rootCA = "kube-root-ca.crt"

// AddNamespace creates a namespace. If there is a controller-manager, pods can
// be made in it on return.
func (c *ControlPlane) AddNamespace(ctx context.Context, name string) error {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if _, err := c.client.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("add namespace: %w", err)
	}
	r, err := c.running(ControllerManager)
	if err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, c.opts.Timeout)
	defer cancel()
	if err := r.await(ctx, func(ctx context.Context) error { return c.podsAllowed(ctx, name) }); err != nil {
		return fmt.Errorf("add namespace %s: %w", name, err)
	}
	return nil
}

// podsAllowed checks that a namespace has what pods need.
func (c *ControlPlane) podsAllowed(ctx context.Context, namespace string) error {
	if _, err := c.client.CoreV1().ServiceAccounts(namespace).Get(ctx, "default", metav1.GetOptions{}); err != nil {
		return err
	}
	_, err := c.client.CoreV1().ConfigMaps(namespace).Get(ctx, rootCA, metav1.GetOptions{})
	return err
}

// systemObjects checks that what API servers make for themselves after they
// are ready is there: the system's namespaces and the Service kubernetes.
func (c *ControlPlane) systemObjects(ctx context.Context) error {
	for _, ns := range []string{metav1.NamespaceDefault, metav1.NamespaceSystem, metav1.NamespacePublic, corev1.NamespaceNodeLease} {
		if _, err := c.client.CoreV1().Namespaces().Get(ctx, ns, metav1.GetOptions{}); err != nil {
			return err
		}
	}
	_, err := c.client.CoreV1().Services(metav1.NamespaceDefault).Get(ctx, "kubernetes", metav1.GetOptions{})
	return err
}

// AddDefinitions makes the CustomResourceDefinitions in the files of dir, and waits
// until they are served.
func (c *ControlPlane) AddDefinitions(ctx context.Context, dir string) error {
	for _, args := range [][]string{
		{"apply", "-f", dir},
		{"wait", "--for=condition=Established", "--timeout=2m", "-f", dir},
	} {
		if out, err := c.Kubectl(ctx, c.KubeconfigPath(), args...).CombinedOutput(); err != nil {
			return fmt.Errorf("add definitions: %w\n%s", err, out)
		}
	}
	return nil
}
