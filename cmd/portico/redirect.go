package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	cliflag "k8s.io/component-base/cli/flag"
	logsapi "k8s.io/component-base/logs/api/v1"
	"k8s.io/component-base/term"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/portico-proxy/portico/bpf"
)

// redirectOptions are the flags of `portico redirect`.
type redirectOptions struct {
	kubeconfig string
	nodeName   string
	policyDir  string
	servers    []string
	endStale   []string

	resolveServices bool
	reportStatus    bool
	dryRun          bool
	uninstall       bool

	pins, cgroup              string
	maxFrontends, maxBackends uint32
	exemptMark                uint32
	sampleEvents              uint32

	leaseDuration time.Duration
	handover      time.Duration
	probeInterval time.Duration

	metricsAddress, healthAddress string
	logging                       *logsapi.LoggingConfiguration
}

func defaultRedirectOptions() *redirectOptions {
	host, _ := os.Hostname() // empty is told to the user when it matters
	return &redirectOptions{
		nodeName: strings.ToLower(host), reportStatus: true,
		pins: bpf.DefaultPins, maxFrontends: 65536, maxBackends: 524288, exemptMark: 0x706f7274,
		leaseDuration: 900 * time.Millisecond, handover: 10 * time.Second, probeInterval: 250 * time.Millisecond,
		metricsAddress: "127.0.0.1:8082", healthAddress: ":8083",
		logging: logsapi.NewLoggingConfiguration(),
	}
}

func newRedirectCommand() *cobra.Command {
	o := defaultRedirectOptions()
	cmd := &cobra.Command{
		Use:   "redirect",
		Short: "Draw this node's connections to where policies want them",
		Long: `Draw connections of this node to where LocalRedirectPolicies and BalancingPolicies
want them, by programs in the kernel. It needs root, and Linux with cgroup2.

Policies are leased: if this process dies, connections go within a second to where
they went without it. If it is stopped, what it last decided holds for --handover,
so that its successor finds everything in place.

With --resolve-services, connections to Services find their endpoints by the same
programs, by kube-proxy's rules. Traffic that comes from outside still needs
kube-proxy.`,
		Example: `  # on a node
  portico redirect --node-name=$NODE_NAME

  # on a machine outside of the cluster, without one
  portico redirect --policy-dir=/etc/portico/policies

  # what would be done
  portico redirect --kubeconfig=admin.conf --dry-run

  # take everything out of the kernel again
  portico redirect --uninstall`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context(), cmd) },
	}
	o.addFlags(cmd)
	return cmd
}

func (o *redirectOptions) addFlags(cmd *cobra.Command) {
	var sets cliflag.NamedFlagSets
	f := sets.FlagSet("policies")
	f.StringVar(&o.kubeconfig, "kubeconfig", o.kubeconfig, "Kubeconfig of the cluster. Empty means the cluster this runs in or, with --policy-dir, none.")
	f.StringVar(&o.nodeName, "node-name", o.nodeName, "This node's name. If the cluster has no such Node, this is a machine outside of it.")
	f.StringVar(&o.policyDir, "policy-dir", o.policyDir, "Directory of policies (*.yaml, *.yml, *.json), read again when it changes, instead of those of the cluster.")
	f.BoolVar(&o.resolveServices, "resolve-services", o.resolveServices, "Find endpoints of Services too, instead of kube-proxy, for connections that begin on this node.")
	f.StringSliceVar(&o.servers, "server", o.servers, "Addresses (ip:port) at which this machine reaches the API server, for --resolve-services to use instead of the kubernetes Service's own endpoints.")
	f.BoolVar(&o.reportStatus, "report-status", o.reportStatus, "Say in the status of the cluster's policies what this node makes of them.")

	f = sets.FlagSet("kernel")
	f.StringVar(&o.pins, "pin-path", o.pins, "Directory on a BPF file system for what outlives this process.")
	f.StringVar(&o.cgroup, "cgroup", o.cgroup, "Directory of the cgroup whose processes are concerned. Empty means all: the root of the cgroup2 hierarchy.")
	f.Uint32Var(&o.maxFrontends, "max-frontends", o.maxFrontends, "How many addresses with ports the table has room for.")
	f.Uint32Var(&o.maxBackends, "max-backends", o.maxBackends, "How many backends the table has room for.")
	f.Uint32Var(&o.exemptMark, "exempt-mark", o.exemptMark, "SO_MARK of sockets that policies do not concern, this process's own among them; 0 is none.")

	f = sets.FlagSet("operation")
	f.DurationVar(&o.leaseDuration, "lease-duration", o.leaseDuration, "How long policies hold after this process was last seen alive.")
	f.DurationVar(&o.handover, "handover", o.handover, "How long policies hold after this process was stopped, for its successor.")
	f.DurationVar(&o.probeInterval, "probe-interval", o.probeInterval, "How often backends on this node are tried.")
	f.StringSliceVar(&o.endStale, "end-stale-sockets", o.endStale, "Protocols (UDP, TCP) of which sockets are ended that are connected to a redirected backend that is no more; unconnected ones never are. It needs Linux 6.5 and, in a container, the host's processes.")
	f.Uint32Var(&o.sampleEvents, "sample-events", o.sampleEvents, "Let one of so many verdicts about destinations become an event, which portico inspect redirect --events shows; 0 is none.")
	f.BoolVar(&o.dryRun, "dry-run", o.dryRun, "Print what would be done, and change nothing.")
	f.BoolVar(&o.uninstall, "uninstall", o.uninstall, "Take everything out of the kernel, and end.")
	f.StringVar(&o.metricsAddress, "metrics-bind-address", o.metricsAddress, `Where /metrics is; "0" turns it off. It is plain HTTP.`)
	f.StringVar(&o.healthAddress, "health-probe-bind-address", o.healthAddress, `Where /healthz and /readyz are; "0" turns them off.`)
	logsapi.AddFlags(o.logging, sets.FlagSet("logs"))
	for _, name := range sets.Order {
		cmd.Flags().AddFlagSet(sets.FlagSets[name])
	}
	width, _, _ := term.TerminalSize(cmd.OutOrStdout())
	cliflag.SetUsageAndHelpFunc(cmd, sets, width)
}

func (o *redirectOptions) run(ctx context.Context, cmd *cobra.Command) error {
	if err := logsapi.ValidateAndApply(o.logging, nil); err != nil {
		return fmt.Errorf("logging flags: %w", err)
	}
	ctrl.SetLogger(klog.Background())
	if o.uninstall {
		err := bpf.Uninstall(o.pins)
		if errors.Is(err, bpf.ErrNotInstalled) {
			return nil
		}
		return err
	}
	if err := o.validate(); err != nil {
		return err
	}
	cfg, err := o.restConfig()
	if err != nil {
		return err
	}
	if o.dryRun {
		return o.runDry(ctx, cfg, cmd.OutOrStdout())
	}
	return o.runAgent(ctx, cfg)
}

func (o *redirectOptions) validate() error {
	switch {
	case o.nodeName == "":
		return errors.New("give --node-name: this machine has no host name")
	case o.checkEndStale() != nil:
		return o.checkEndStale()
	case o.leaseDuration < 100*time.Millisecond:
		return fmt.Errorf("--lease-duration=%v is too short: policies would come and go with the load of the machine", o.leaseDuration)
	case o.probeInterval < 10*time.Millisecond:
		return fmt.Errorf("--probe-interval=%v is too short", o.probeInterval)
	}
	return nil
}

func (o *redirectOptions) checkEndStale() error {
	_, err := o.endedProtocols()
	return err
}

// serverAddresses reads --server.
func (o *redirectOptions) serverAddresses() ([]netip.AddrPort, error) {
	var all []netip.AddrPort
	for _, text := range o.servers {
		a, err := netip.ParseAddrPort(text)
		if err != nil {
			return nil, fmt.Errorf("--server=%s is not ip:port: %w", text, err)
		}
		all = append(all, netip.AddrPortFrom(a.Addr().Unmap(), a.Port()))
	}
	return all, nil
}

// restConfig is nil without a cluster.
func (o *redirectOptions) restConfig() (*rest.Config, error) {
	return o.restConfigBy(rest.InClusterConfig)
}

// restConfigBy is restConfig where inCluster knows of the cluster that this runs in,
// if it does.
func (o *redirectOptions) restConfigBy(inCluster func() (*rest.Config, error)) (*rest.Config, error) {
	cfg, err := o.findServer(inCluster)
	if cfg == nil || err != nil {
		return nil, err
	}
	cfg.UserAgent = "portico/" + version()
	cfg.QPS = -1 // the server bounds it better
	// Whether the proxy next door works must not be learnt through the proxy
	// next door. What can be has a road of its own.
	cfg.Dial = markedDialer(o.exemptMark).DialContext
	return cfg, nil
}

func (o *redirectOptions) findServer(inCluster func() (*rest.Config, error)) (*rest.Config, error) {
	if o.kubeconfig == "" && o.policyDir != "" {
		cfg, err := inCluster()
		if errors.Is(err, rest.ErrNotInCluster) {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("find the API server of the cluster this runs in: %w", err)
		}
		return cfg, nil
	}
	cfg, err := clientcmd.BuildConfigFromFlags("", o.kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("find the API server: no --kubeconfig that works, not in a cluster, and no --policy-dir: %w", err)
	}
	return cfg, nil
}
