package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
)

type devOptions struct {
	kubeconfig string
	dir        string
	port       int
	nodes      int
	redirect   bool
	// cgroup and pins are where the kernel's part of redirect goes.
	cgroup, pins string
	in           io.Reader
	out          io.Writer
}

func newDevCommand() *cobra.Command {
	o := &devOptions{kubeconfig: os.Getenv(clientcmd.RecommendedConfigPathEnvVar), port: 6443, nodes: 2, pins: devPins}
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Try the proxy: a control plane, the proxy in front of it, and a kubeconfig",
		Long: `Start a proxy to try things on, in front of the API server that $KUBECONFIG names,
or of a control plane of its own: etcd, kube-apiserver, controller-manager,
scheduler and kwok, built from source the first time, which takes minutes and
must happen inside a checkout of portico. Ctrl-C stops all of it.

With --redirect, as root on Linux, workloads in a cgroup are drawn to the proxy
when they dial the kubernetes Service, as they do in a cluster.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.in, o.out = cmd.InOrStdin(), cmd.OutOrStdout()
			err := o.run(cmd.Context())
			if cmd.Context().Err() != nil && errors.Is(err, context.Canceled) {
				return nil // Ctrl-C during the start
			}
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.kubeconfig, "kubeconfig", o.kubeconfig, "API server to use instead of a control plane of its own.")
	f.StringVar(&o.dir, "dir", o.dir, "Directory for the kubeconfig, certificates and logs. Empty means portico/dev in the user's cache directory.")
	f.IntVar(&o.port, "secure-port", o.port, "Port of the proxy on 127.0.0.1; a free one if it is taken.")
	f.IntVar(&o.nodes, "nodes", o.nodes, "Nodes to play in the control plane of its own.")
	f.BoolVar(&o.redirect, "redirect", o.redirect, "Draw workloads that dial the kubernetes Service to the proxy. It needs root.")
	f.StringVar(&o.cgroup, "cgroup", o.cgroup, "Directory of the cgroup whose workloads --redirect concerns, made if need be. Empty means portico-dev below the root of the cgroup2 hierarchy.")
	f.StringVar(&o.pins, "pin-path", o.pins, "Directory on a BPF file system for the kernel's part of --redirect.")
	return cmd
}

// run starts everything, reports while it runs, and stops everything.
func (o *devOptions) run(ctx context.Context) error {
	started := time.Now()
	if err := errors.Join(o.checkRedirect(), o.place()); err != nil {
		return err
	}
	if err := errors.Join(o.settle(), o.checkKubeconfig()); err != nil {
		return err
	}
	if err := o.prepare(); err != nil {
		return err
	}
	behind, err := o.findUpstream(ctx)
	if err != nil {
		return err
	}
	defer behind.stop()
	p, err := newProxy(ctx, o.proxyOptions(behind))
	if err != nil {
		return err
	}
	if err := behind.writeProxied(o.proxiedKubeconfig(), p.server); err != nil {
		return err
	}
	serving, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- p.run(serving) }()
	if err := p.awaitReady(ctx, ended, o.out); err != nil {
		stop()
		return errors.Join(err, <-ended)
	}
	drawn, err := o.draw(ctx, behind, portOf(p.server.Addr()))
	if err != nil {
		stop()
		return errors.Join(err, <-ended)
	}
	o.greet(behind, p, time.Since(started))
	o.greetRedirect(drawn, behind.kubectl)
	return errors.Join(o.report(ctx, stop, ended, drawn), drawn.remove())
}

func (o *devOptions) proxiedKubeconfig() string { return filepath.Join(o.dir, "kubeconfig") }
func (o *devOptions) directKubeconfig() string  { return filepath.Join(o.dir, "direct.kubeconfig") }

// settle finds the directory to use.
func (o *devOptions) settle() error {
	if o.dir != "" {
		return nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return fmt.Errorf("find a directory to use: set --dir: %w", err)
	}
	o.dir = filepath.Join(cache, "portico", "dev")
	return nil
}

// checkKubeconfig refuses what another run has left, and told its user to export:
// what it leads to is gone, or is a proxy.
func (o *devOptions) checkKubeconfig() error {
	for _, own := range []string{o.proxiedKubeconfig(), o.directKubeconfig()} {
		if o.kubeconfig != "" && isSameFile(o.kubeconfig, own) {
			return fmt.Errorf("kubeconfig %s is what portico dev itself writes: `unset KUBECONFIG` for a control plane of its own, or name the kubeconfig of another cluster", o.kubeconfig)
		}
	}
	return nil
}

func isSameFile(a, b string) bool {
	one, err := os.Stat(a)
	other, err2 := os.Stat(b)
	return err == nil && err2 == nil && os.SameFile(one, other)
}

// prepare makes the directory and sends the log there, off the screen.
func (o *devOptions) prepare() error {
	if err := os.MkdirAll(o.dir, 0o700); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	log, err := os.Create(filepath.Join(o.dir, "proxy.log"))
	if err != nil {
		return fmt.Errorf("make log file: %w", err)
	}
	logOnlyTo(log)
	ctrl.SetLogger(klog.Background())
	return nil
}

// logOnlyTo has each line written once. As it comes, klog writes an error into the
// logs of all severities below it, which are one here, and to the screen.
func logOnlyTo(log io.Writer) {
	flags := flag.NewFlagSet("klog", flag.ContinueOnError)
	klog.InitFlags(flags)
	for name, value := range map[string]string{"logtostderr": "false", "one_output": "true", "stderrthreshold": "FATAL"} {
		_ = flags.Set(name, value) // they are klog's own
	}
	klog.SetOutput(log)
}

func (o *devOptions) proxyOptions(behind *devUpstream) proxyOptions {
	p := defaultProxyOptions()
	p.kubeconfig = behind.kubeconfig
	p.bindAddress, p.securePort = net.IPv4(127, 0, 0, 1), freePort(o.port)
	p.certDir = filepath.Join(o.dir, "pki")
	p.certFile, p.keyFile = behind.certFile, behind.keyFile
	p.clientCAFile = behind.clientCAFile
	p.impersonateX509 = behind.clientCAFile != ""
	p.metricsAddress = freeAddress(p.metricsAddress)
	p.healthAddress = "0"
	p.nodeName = "dev"
	p.drainTimeout = 3 * time.Second
	return *p
}

// freePort is port, or 0, which takes any, if somebody else listens there.
func freePort(port int) int {
	if _, ok := listen(net.JoinHostPort("127.0.0.1", strconv.Itoa(port))); ok {
		return port
	}
	return 0
}

// freeAddress is address, or another free one on loopback.
func freeAddress(address string) string {
	if _, ok := listen(address); ok {
		return address
	}
	if free, ok := listen("127.0.0.1:0"); ok {
		return free
	}
	return "0"
}

// listen reports whether address is free, and which it is.
func listen(address string) (string, bool) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return "", false
	}
	defer l.Close()
	return l.Addr().String(), true
}

// patience is how long a start may take without a word.
const patience = 3 * time.Second

// awaitReady waits until the proxy serves, or has ended. What keeps it waiting for
// long it tells out.
func (p *proxy) awaitReady(ctx context.Context, ended <-chan error, out io.Writer) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	started, told := time.Now(), ""
	for {
		reasons := strings.Join(p.unready(ctx), "; ")
		if reasons == "" {
			return nil
		}
		if reasons != told && time.Since(started) > patience {
			fmt.Fprintln(out, "Waiting until the proxy is ready:", reasons)
			told = reasons
		}
		select {
		case err := <-ended:
			return fmt.Errorf("proxy ended while starting: %w", err)
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

func (o *devOptions) greet(behind *devUpstream, p *proxy, took time.Duration) {
	fmt.Fprintf(o.out, `
The proxy is ready after %.1f s at https://%s, in front of %s.
In another terminal:

  export KUBECONFIG=%s
  alias kubectl=%s
  kubectl get nodes
  kubectl create deployment web --image=nginx --replicas=3
  kubectl get pods -w

The same, past the proxy: KUBECONFIG=%s
`, took.Seconds(), p.server.Addr(), behind.server, o.proxiedKubeconfig(), behind.kubectl, behind.kubeconfig)
	if p.metricsAddress != "0" {
		fmt.Fprintf(o.out, "Metrics: curl http://%s/metrics\n", p.metricsAddress)
	}
	fmt.Fprintf(o.out, "Log: %s\n\nCtrl-C stops everything.\n\n", filepath.Join(o.dir, "proxy.log"))
}

// report keeps one line up to date, where there is a terminal to keep it on,
// until the proxy has ended; if it was stopped by a key, until everything is.
func (o *devOptions) report(ctx context.Context, stop context.CancelFunc, ended <-chan error, drawn *devRedirect) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	line := newStatusLine(o.out)
	var pressed <-chan struct{}
	if drawn != nil {
		pressed = o.entered()
	}
	for {
		select {
		case err := <-ended:
			return err
		case <-drawn.failed():
			stop()
			return <-ended
		case <-pressed:
			stop()
			err := <-ended
			fmt.Fprintln(o.out, "\nThe proxy is stopped: the kubernetes Service is the API server itself again.")
			<-ctx.Done()
			return err
		case <-ctx.Done():
			fmt.Fprintln(o.out, "\nstopping")
			return <-ended
		case <-tick.C:
			line.update()
		}
	}
}
