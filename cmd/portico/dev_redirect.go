package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/portico-proxy/portico/bpf"
	"github.com/portico-proxy/portico/test/controlplane"
)

// devCgroup is the cgroup of the workloads that `portico dev --redirect` draws
// to the proxy, if no other is named.
const devCgroup = "portico-dev"

// devPins is where the kernel's part of it is pinned.
const devPins = bpf.DefaultPins + "-dev"

// devPolicy draws the kubernetes Service to the proxy while that answers.
const devPolicy = `apiVersion: balancing.elf.io/v1beta1
kind: BalancingPolicy
metadata:
  name: kubernetes-by-the-proxy
spec:
  frontend:
    serviceMatcher:
      serviceName: kubernetes
      namespace: default
  backend:
    addressEndpoint:
      addresses: [127.0.0.1]
      probe: true
      toPorts: [{port: "%d", protocol: TCP}]
`

// devRedirect steers the processes of one cgroup.
type devRedirect struct {
	options *redirectOptions
	service netip.AddrPort // of the kubernetes Service
	made    bool           // whether the cgroup is ours to remove
	agent   *agent
	stop    context.CancelFunc
	ended   chan struct{} // closed when the agent has ended, with err
	err     error
}

// checkRedirect says early what would go wrong late.
func (o *devOptions) checkRedirect() error {
	switch {
	case !o.redirect:
		return nil
	case o.kubeconfig != "":
		return errors.New("--redirect needs a control plane of its own, for a certificate of its authority: unset $KUBECONFIG and --kubeconfig")
	case os.Geteuid() != 0:
		return errors.New("--redirect puts programs into the kernel: run it as root")
	}
	return bpf.Supported()
}

// certify gives the proxy a certificate by which it may answer for the
// kubernetes Service.
func (o *devOptions) certify(ctx context.Context, cp *controlplane.ControlPlane, u *devUpstream) error {
	var err error
	if u.service, err = kubernetesService(ctx, cp); err != nil {
		return err
	}
	cert, key, err := cp.ServerCert("portico-dev", "127.0.0.1", "localhost", u.service.Addr().String(),
		"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local")
	if err != nil {
		return err
	}
	u.caFile, u.certFile, u.keyFile = cp.CAFile(), filepath.Join(o.dir, "proxy.crt"), filepath.Join(o.dir, "proxy.key")
	return errors.Join(writePrivate(u.certFile, cert), writePrivate(u.keyFile, key))
}

func writePrivate(path string, data []byte) error {
	if err := os.WriteFile(path, data, 0o600); err != nil {
		return fmt.Errorf("write file: %w", err)
	}
	return nil
}

// kubernetesService asks where workloads of the cluster find its API server.
func kubernetesService(ctx context.Context, cp *controlplane.ControlPlane) (netip.AddrPort, error) {
	client, err := kubernetes.NewForConfig(cp.Config())
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("make client: %w", err)
	}
	s, err := client.CoreV1().Services(corev1.NamespaceDefault).Get(ctx, "kubernetes", metav1.GetOptions{})
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("find the kubernetes Service: %w", err)
	}
	ip, err := netip.ParseAddr(s.Spec.ClusterIP)
	if err != nil || len(s.Spec.Ports) == 0 {
		return netip.AddrPort{}, fmt.Errorf("the kubernetes Service has the address %q and %d ports", s.Spec.ClusterIP, len(s.Spec.Ports))
	}
	return netip.AddrPortFrom(ip, uint16(s.Spec.Ports[0].Port)), nil
}

// draw starts what --redirect asks for: nothing, without it.
func (o *devOptions) draw(ctx context.Context, behind *devUpstream, port int) (*devRedirect, error) {
	if !o.redirect {
		return nil, nil
	}
	return o.startRedirect(ctx, behind, port)
}

// failed tells when the agent ended by itself.
func (d *devRedirect) failed() <-chan struct{} {
	if d == nil {
		return nil
	}
	return d.ended
}

// startRedirect draws what the cgroup's processes send to the kubernetes Service
// to the proxy, and returns when it does.
func (o *devOptions) startRedirect(ctx context.Context, behind *devUpstream, port int) (*devRedirect, error) {
	d := &devRedirect{service: behind.service, stop: func() {}, ended: make(chan struct{})}
	upstream, err := url.Parse(behind.server)
	if err != nil {
		return nil, fmt.Errorf("read address of the API server: %w", err)
	}
	policies := filepath.Join(o.dir, "redirect")
	if err := os.MkdirAll(policies, 0o700); err != nil {
		return nil, fmt.Errorf("make directory of policies: %w", err)
	}
	if err := writePrivate(filepath.Join(policies, "kubernetes.yaml"), fmt.Appendf(nil, devPolicy, port)); err != nil {
		return nil, err
	}
	if err := d.makeCgroup(o.cgroup); err != nil {
		return nil, err
	}
	d.options = defaultRedirectOptions()
	d.options.kubeconfig, d.options.policyDir = behind.kubeconfig, policies
	d.options.nodeName, d.options.servers = "dev", []string{upstream.Host}
	d.options.cgroup, d.options.pins = o.cgroup, o.pins
	d.options.resolveServices, d.options.reportStatus = true, false
	d.options.metricsAddress, d.options.healthAddress = "0", "0"
	if err := d.start(ctx); err != nil {
		return nil, errors.Join(err, d.remove())
	}
	return d, o.writeWorkload(behind)
}

// makeCgroup makes the cgroup, and fills in which one if none was named.
func (d *devRedirect) makeCgroup(dir string) error {
	err := os.Mkdir(dir, 0o755) //nolint:gosec // others may look, as into every cgroup
	if err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("make cgroup: %w", err)
	}
	d.made = err == nil
	return nil
}

// start runs the agent until the table is in force.
func (d *devRedirect) start(ctx context.Context) error {
	cfg, err := d.options.restConfig()
	if err != nil {
		return err
	}
	ctx, d.stop = context.WithCancel(ctx)
	if d.agent, err = newAgent(ctx, cfg, d.options); err != nil {
		return err
	}
	go func() {
		d.err = d.agent.serve(ctx)
		close(d.ended)
	}()
	tick := time.NewTicker(beat)
	defer tick.Stop()
	for !d.agent.ready.Load() {
		select {
		case <-d.ended:
			return errors.New("the agent ended while starting")
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
	return nil
}

// remove ends the agent and takes everything back.
func (d *devRedirect) remove() error {
	if d == nil {
		return nil
	}
	d.stop()
	if d.agent != nil {
		<-d.ended
	}
	err := d.err
	if gone := bpf.Uninstall(d.options.pins); !errors.Is(gone, bpf.ErrNotInstalled) {
		err = errors.Join(err, gone)
	}
	if d.made {
		err = errors.Join(err, removeCgroup(d.options.cgroup))
	}
	return err
}

// removeCgroup gives processes that are just ending a moment to leave.
func removeCgroup(dir string) error {
	tick := time.NewTicker(beat)
	defer tick.Stop()
	err := os.Remove(dir)
	for range 40 {
		if !errors.Is(err, syscall.EBUSY) {
			break
		}
		<-tick.C
		err = os.Remove(dir)
	}
	if err != nil {
		return fmt.Errorf("remove cgroup, in which processes may still run: %w", err)
	}
	return nil
}

// writeWorkload writes the kubeconfig that a workload in the cluster would have:
// the Service's address, and the cluster's authority.
func (o *devOptions) writeWorkload(behind *devUpstream) error {
	cfg, err := clientcmd.LoadFromFile(behind.kubeconfig)
	if err != nil {
		return fmt.Errorf("read kubeconfig %s: %w", behind.kubeconfig, err)
	}
	for _, c := range cfg.Clusters {
		*c = clientcmdapi.Cluster{Server: "https://" + behind.service.String(), CertificateAuthority: behind.caFile}
	}
	if err := clientcmdapi.FlattenConfig(cfg); err != nil {
		return fmt.Errorf("read files of kubeconfig %s: %w", behind.kubeconfig, err)
	}
	if err := clientcmd.WriteToFile(*cfg, o.workloadKubeconfig()); err != nil {
		return fmt.Errorf("write kubeconfig: %w", err)
	}
	return nil
}

func (o *devOptions) workloadKubeconfig() string { return filepath.Join(o.dir, "workload.kubeconfig") }

// place fills in where the kernel's part goes.
func (o *devOptions) place() error {
	if !o.redirect || o.cgroup != "" {
		return nil
	}
	root, err := bpf.FindCgroup()
	if err != nil {
		return err
	}
	o.cgroup = filepath.Join(root, devCgroup)
	return nil
}

func (o *devOptions) greetRedirect(d *devRedirect, kubectl string) {
	if d == nil {
		return
	}
	fmt.Fprintf(o.out, `Redirected: whatever in the cgroup %[1]s dials the kubernetes Service reaches the proxy.

  sh -c 'echo $$ > %[1]s/cgroup.procs; %[2]s --kubeconfig=%[3]s get nodes'
  portico inspect redirect %[4]s --pin-path=%[5]s

Enter stops the proxy alone: the same then reaches the API server itself.

`, o.cgroup, kubectl, o.workloadKubeconfig(), d.service, o.pins)
}

// portOf is the port that a server listens on.
func portOf(a net.Addr) int {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return tcp.Port
	}
	return 0
}

// entered is closed when somebody presses Enter.
func (o *devOptions) entered() <-chan struct{} {
	pressed := make(chan struct{})
	go func() {
		one := make([]byte, 1)
		for {
			n, err := o.in.Read(one)
			if n > 0 && strings.Contains(string(one), "\n") {
				close(pressed)
				return
			}
			if err != nil {
				return // there is no keyboard
			}
		}
	}()
	return pressed
}
