package main

import (
	"fmt"
	"net"
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	cliflag "k8s.io/component-base/cli/flag"
	logsapi "k8s.io/component-base/logs/api/v1"
	"k8s.io/component-base/term"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"

	// Makes --logging-format=json known.
	_ "k8s.io/component-base/logs/json/register"
)

// proxyOptions are the flags of `portico proxy`, named as kube-apiserver's and
// controller-runtime's are where those have the same thing.
type proxyOptions struct {
	kubeconfig string
	servers    []string

	bindAddress       net.IP
	securePort        int
	certFile, keyFile string
	certDir           string
	maxStreams        int
	maxConnections    int
	ownHTTP2          bool
	maxRequests       int
	maxLists          int
	maxWatches        int
	drainDelay        time.Duration
	drainTimeout      time.Duration

	clientCAFile    string
	impersonateX509 bool

	watchCache  bool
	cacheMemory resource.QuantityValue
	// cacheMemoryGiven is set where the operator has said so himself.
	cacheMemoryGiven bool

	replicas replicaOptions

	nodeName       string
	policyDir      string
	watchPolicies  bool
	filterCacheDir string
	registryConfig string
	lookupMemory   resource.QuantityValue
	decisions      decisionOptions

	metricsAddress    string
	healthAddress     string
	tracingConfigFile string
	profiling         bool
	logging           *logsapi.LoggingConfiguration
}

func defaultProxyOptions() *proxyOptions {
	return &proxyOptions{
		bindAddress:    net.IPv4zero,
		securePort:     6443,
		certDir:        "/var/run/portico",
		maxStreams:     250,
		maxRequests:    1000,
		maxLists:       256,
		maxWatches:     20000,
		drainTimeout:   20 * time.Second,
		watchCache:     true,
		watchPolicies:  true,
		ownHTTP2:       true,
		decisions:      decisionOptions{sample: 1, perSecond: 100, mask: []string{"user.extra"}},
		cacheMemory:    resource.QuantityValue{Quantity: resource.MustParse("512Mi")},
		lookupMemory:   resource.QuantityValue{Quantity: resource.MustParse("64Mi")},
		replicas:       replicaOptions{advertisePort: 6444},
		metricsAddress: "127.0.0.1:8080",
		healthAddress:  ":8081",
		logging:        logsapi.NewLoggingConfiguration(),
	}
}

// addFlags groups the flags as --help shows them.
func (o *proxyOptions) addFlags(cmd *cobra.Command) {
	var sets cliflag.NamedFlagSets
	o.addUpstreamFlags(sets.FlagSet("upstream"))
	o.addServingFlags(sets.FlagSet("serving"))
	o.addCallerFlags(sets.FlagSet("caller"))
	o.addMemoryFlags(sets.FlagSet("memory"))
	o.replicas.addFlags(sets.FlagSet("replicas"))
	o.addOperationFlags(sets.FlagSet("operation"))
	o.decisions.addFlags(sets.FlagSet("decision log"))
	logs := sets.FlagSet("logs")
	logsapi.AddFlags(o.logging, logs)
	for _, alpha := range []string{"log-json-info-buffer-size", "log-json-split-stream", "log-text-info-buffer-size", "log-text-split-stream"} {
		_ = logs.MarkHidden(alpha) // behind feature gates that we do not have
	}
	for _, name := range sets.Order {
		cmd.Flags().AddFlagSet(sets.FlagSets[name])
	}
	width, _, _ := term.TerminalSize(cmd.OutOrStdout())
	cliflag.SetUsageAndHelpFunc(cmd, sets, width)
}

func (o *proxyOptions) addUpstreamFlags(f *pflag.FlagSet) {
	f.StringVar(&o.kubeconfig, "kubeconfig", o.kubeconfig, "Kubeconfig of the API server and of the proxy's own identity there. Empty means the cluster the proxy runs in.")
	f.StringSliceVar(&o.servers, "server", o.servers, "Addresses (host:port) of the same API server, to be used instead of the kubeconfig's: one at a time, another when it is gone. Which is preferred --node-name decides, or chance. Each must present a certificate for its host, or for the kubeconfig's tls-server-name. Not with a kubeconfig that has a proxy-url.")
}

func (o *proxyOptions) addServingFlags(f *pflag.FlagSet) {
	f.IPVar(&o.bindAddress, "bind-address", o.bindAddress, "IP address to listen on.")
	f.IntVar(&o.securePort, "secure-port", o.securePort, "Port to listen on; 0 takes a free one.")
	f.StringVar(&o.certFile, "tls-cert-file", o.certFile, "Serving certificate, read again when it changes. Empty means one that the proxy signs itself and keeps in --cert-dir.")
	f.StringVar(&o.keyFile, "tls-private-key-file", o.keyFile, "Key of --tls-cert-file.")
	f.StringVar(&o.certDir, "cert-dir", o.certDir, "Directory of the self-signed certificate.")
	f.IntVar(&o.maxStreams, "http2-max-streams-per-connection", o.maxStreams, "How many requests one HTTP/2 connection may have open.")
	f.BoolVar(&o.ownHTTP2, "own-http2", o.ownHTTP2, "Serve HTTP/2 with the proxy's own server, which takes less processor time where answers are small; false serves it with net/http's.")
	f.IntVar(&o.maxConnections, "max-connections", o.maxConnections, "How many connections there may be. Beyond, an address that has few takes one from the address that has the most. 0 means half of the files that the process may open, and no more than 20000.")
	f.IntVar(&o.maxRequests, "max-requests-inflight", o.maxRequests, "How many requests are answered at a time, besides lists, watches, and what a cluster needs to live. Others wait for their callers' turns; none gets more than three quarters.")
	f.IntVar(&o.maxLists, "max-lists-inflight", o.maxLists, "How many lists are answered at a time.")
	f.IntVar(&o.maxWatches, "max-watches", o.maxWatches, "How many watches, logs and terminals may be open.")
	f.DurationVar(&o.drainDelay, "shutdown-delay-duration", o.drainDelay, "How long to go on serving after SIGTERM, unready, so that whoever sends traffic here notices.")
	f.DurationVar(&o.drainTimeout, "shutdown-timeout", o.drainTimeout, "How long requests in flight may then take. Watches are ended at once, between two events.")
}

func (o *proxyOptions) addCallerFlags(f *pflag.FlagSet) {
	f.StringVar(&o.clientCAFile, "client-ca-file", o.clientCAFile, "Authorities for client certificates, read again when the file changes.")
	f.BoolVar(&o.impersonateX509, "impersonate-x509", o.impersonateX509, "Pass callers with a client certificate on by impersonation. The proxy's identity must be allowed to impersonate them.")
}

func (o *proxyOptions) addMemoryFlags(f *pflag.FlagSet) {
	f.BoolVar(&o.watchCache, "watch-cache", o.watchCache, "Answer reads from memory where the proxy's own identity may list and watch the resource, and the caller may have the answer.")
	f.Var(&o.cacheMemory, "cache-memory-limit", "How much memory collections may take together; what does not fit is read upstream. Unless it is given, it is no more than half of GOMEMLIMIT, which is set from the cgroup; more than 60 % of that leaves requests too little. 0 means no bound.")
	f.Var(&o.lookupMemory, "lookup-memory-limit", "How much memory may take together what WebAssembly filters look up. A filter whose contextResources do not fit is not in force. 0 means no bound.")
}

func (o *proxyOptions) addOperationFlags(f *pflag.FlagSet) {
	f.StringVar(&o.nodeName, "node-name", o.nodeName, "Node the proxy runs on; named in traces. It decides which of several --server the proxy prefers.")
	f.BoolVar(&o.watchPolicies, "watch-policies", o.watchPolicies, "Follow policies in the API as well, where their CustomResourceDefinition is installed and the proxy's identity may read them.")
	f.StringVar(&o.policyDir, "policy-dir", o.policyDir, "Directory of policies (*.yaml, *.yml, *.json), read again when it changes.")
	f.StringVar(&o.filterCacheDir, "filter-cache-dir", o.filterCacheDir, "Directory that keeps WebAssembly modules and bundles of policies that were fetched, and what modules were compiled to, so that all are there at once after a restart. Only the proxy may write there. Empty keeps nothing.")
	f.StringVar(&o.registryConfig, "registry-config", o.registryConfig, "File of credentials of the registries that WebAssembly modules and bundles of policies come from, as docker's config.json. Empty asks them anonymously.")
	f.StringVar(&o.metricsAddress, "metrics-bind-address", o.metricsAddress, `Where /metrics is; "0" turns it off. It is plain HTTP.`)
	f.StringVar(&o.healthAddress, "health-probe-bind-address", o.healthAddress, `Where /healthz and /readyz are; "0" turns them off.`)
	f.BoolVar(&o.profiling, "profiling", o.profiling, "Serve /debug/pprof on --metrics-bind-address. Profiles tell what the proxy does, and for whom.")
	f.StringVar(&o.tracingConfigFile, "tracing-config-file", o.tracingConfigFile, "File of kind TracingConfiguration, as kube-apiserver's. Empty means the OTEL_* environment variables.")
}

// complete notes which flags have been given, where that matters.
func (o *proxyOptions) complete(cmd *cobra.Command) {
	o.cacheMemoryGiven = cmd.Flags().Changed("cache-memory-limit")
}

// applyLogging makes klog, and with it controller-runtime, log as asked.
func (o *proxyOptions) applyLogging() error {
	if err := logsapi.ValidateAndApply(o.logging, nil); err != nil {
		return fmt.Errorf("logging flags: %w", err)
	}
	ctrl.SetLogger(klog.Background())
	return nil
}

// name is what this proxy calls itself among others.
func (o *proxyOptions) name() string {
	if o.nodeName != "" {
		return o.nodeName
	}
	host, _ := os.Hostname() // without either, its refusals are nobody's in particular
	return host
}

// restConfig is who the proxy is to which API server.
func (o *proxyOptions) restConfig() (*rest.Config, error) {
	for _, address := range o.servers {
		if _, _, err := net.SplitHostPort(address); err != nil {
			return nil, fmt.Errorf("--server=%s is not host:port: %w", address, err)
		}
	}
	cfg, err := clientcmd.BuildConfigFromFlags("", o.kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("find the API server: no --kubeconfig that works, and not in a cluster: %w", err)
	}
	cfg.UserAgent = "portico/" + version()
	// The proxy's own requests are few; the API server's priority and fairness
	// bounds them better than a client-side limit.
	cfg.QPS = -1
	return cfg, nil
}

// clientCA is nil where no authority is given.
func (o *proxyOptions) clientCA() (dynamiccertificates.CAContentProvider, error) {
	if o.clientCAFile == "" {
		return nil, nil
	}
	ca, err := dynamiccertificates.NewDynamicCAContentFromFile("client-ca", o.clientCAFile)
	if err != nil {
		return nil, fmt.Errorf("read --client-ca-file: %w", err)
	}
	return ca, nil
}
