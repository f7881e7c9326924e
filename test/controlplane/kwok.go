package controlplane

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// AddNode creates a Node that kwok plays the kubelet of, and returns when it is
// Ready. Pods bound to it run at once. In each of their containers
//
//   - logs and logs -f print what WritePodLog wrote,
//   - attach prints what WritePodLog writes from then on,
//   - exec runs the command on this machine, in a directory of its own; kwok
//     0.8 neither tells it the end of stdin nor the client its exit code,
//   - port-forward leads where Options.Forwards says, or echoes.
func (c *ControlPlane) AddNode(ctx context.Context, name string) error {
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name:   name,
			Labels: map[string]string{corev1.LabelHostname: name, corev1.LabelOSStable: "linux", "type": "kwok"},
		},
		Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{
			{Type: corev1.NodeInternalIP, Address: "127.0.0.1"},
			{Type: corev1.NodeHostName, Address: name},
		}},
	}
	r, err := c.running(Kwok)
	if err != nil {
		return fmt.Errorf("add node: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, c.opts.Timeout)
	defer cancel()
	_, err = c.client.CoreV1().Nodes().Create(ctx, node, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("add node: %w", err)
	}
	if err := r.await(ctx, func(ctx context.Context) error { return c.nodeReady(ctx, name) }); err != nil {
		return fmt.Errorf("add node %s: %w", name, err)
	}
	return nil
}

func (c *ControlPlane) nodeReady(ctx context.Context, name string) error {
	node, err := c.client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	ready := slices.ContainsFunc(node.Status.Conditions, func(cond corev1.NodeCondition) bool {
		return cond.Type == corev1.NodeReady && cond.Status == corev1.ConditionTrue
	})
	if !ready || node.Status.DaemonEndpoints.KubeletEndpoint.Port == 0 {
		return fmt.Errorf("node %s has conditions %v", name, node.Status.Conditions)
	}
	return nil
}

// WritePodLog appends a line to the log that all containers of all pods on
// kwok's nodes share.
func (c *ControlPlane) WritePodLog(line string) error {
	f, err := os.OpenFile(c.podLog(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("write pod log: %w", err)
	}
	defer f.Close()
	// The form of a container runtime's log files; F ends a line.
	_, err = fmt.Fprintf(f, "%s stdout F %s\n", time.Now().UTC().Format(time.RFC3339Nano), line)
	return err
}

// podLog lies in a directory of its own: kwok watches that for new lines.
func (c *ControlPlane) podLog() string { return c.path("pod-log", "container.log") }

// podRoot is the working directory of exec's commands.
func (c *ControlPlane) podRoot() string { return c.path("pod-root") }

func (c *ControlPlane) kwokProcess(port int, kubeconfig string) (*process, error) {
	config, err := c.writeKwokConfig()
	if err != nil {
		return nil, err
	}
	cert, key, err := c.pki.serverCA.server("kwok", "127.0.0.1", "localhost")
	if err := c.pki.pair("kwok", cert, key, err); err != nil {
		return nil, err
	}
	return &process{
		args: []string{
			"--kubeconfig=" + kubeconfig,
			"--config=" + config,
			"--manage-all-nodes=true",
			// Without leases the controller-manager takes nodes for dead, and
			// their pods for not ready, after less than a minute.
			"--node-lease-duration-seconds=40",
			"--cidr=10.244.0.0/16",
			"--node-ip=127.0.0.1",
			fmt.Sprintf("--node-port=%d", port),
			fmt.Sprintf("--server-address=127.0.0.1:%d", port),
			"--tls-cert-file=" + c.pki.cert("kwok"),
			"--tls-private-key-file=" + c.pki.key("kwok"),
		},
		// Away from the user's own kwok configuration.
		env: []string{"KWOK_WORKDIR=" + c.path("kwok")},
	}, nil
}

// writeKwokConfig writes kwok's Stage objects and what its kubelet endpoints
// serve into one file of many documents.
func (c *ControlPlane) writeKwokConfig() (string, error) {
	for _, dir := range []string{filepath.Dir(c.podLog()), c.podRoot()} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return "", fmt.Errorf("make directory for pods: %w", err)
		}
	}
	if err := c.WritePodLog("hello from a pod that kwok plays"); err != nil {
		return "", err
	}
	stages, err := filepath.Glob(filepath.Join(c.opts.Programs, stagesDir, "*.yaml"))
	if err != nil || len(stages) == 0 {
		return "", fmt.Errorf("no Stage objects of kwok in %s", filepath.Join(c.opts.Programs, stagesDir))
	}
	var docs [][]byte
	for _, stage := range stages {
		text, err := os.ReadFile(stage)
		if err != nil {
			return "", fmt.Errorf("read stage: %w", err)
		}
		docs = append(docs, text)
	}
	endpoints, err := c.kubeletEndpoints()
	if err != nil {
		return "", err
	}
	path := c.path("kwok.yaml")
	if err := os.WriteFile(path, bytes.Join(append(docs, endpoints...), []byte("\n---\n")), 0o644); err != nil {
		return "", fmt.Errorf("write kwok's configuration: %w", err)
	}
	return path, nil
}

// kubeletEndpoints are kwok's objects that say what logs, attach, exec and
// port-forward do, for all containers of all pods. JSON is YAML.
func (c *ControlPlane) kubeletEndpoints() ([][]byte, error) {
	type object = map[string]any
	forwards := []object{{"command": []string{"cat"}}}
	for port, target := range c.opts.Forwards {
		host, number, err := net.SplitHostPort(target)
		if err != nil {
			return nil, fmt.Errorf("forward port %d: %w", port, err)
		}
		n, err := strconv.Atoi(number)
		if err != nil {
			return nil, fmt.Errorf("forward port %d to %s: %w", port, target, err)
		}
		forwards = append(forwards, object{"ports": []int{port}, "target": object{"address": host, "port": n}})
	}
	var docs [][]byte
	for _, o := range []struct {
		kind string
		spec object
	}{
		{"ClusterLogs", object{"logs": []object{{"logsFile": c.podLog()}}}},
		{"ClusterAttach", object{"attaches": []object{{"logsFile": c.podLog()}}}},
		{"ClusterExec", object{"execs": []object{{"local": object{"workDir": c.podRoot()}}}}},
		{"ClusterPortForward", object{"forwards": forwards}},
	} {
		doc, err := json.Marshal(object{
			"apiVersion": "kwok.x-k8s.io/v1alpha1", "kind": o.kind, "metadata": object{"name": "all"}, "spec": o.spec,
		})
		if err != nil {
			return nil, fmt.Errorf("encode %s: %w", o.kind, err)
		}
		docs = append(docs, doc)
	}
	return docs, nil
}
