package main

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/portico-proxy/portico/core/server"
	"github.com/portico-proxy/portico/test/controlplane"
)

// devUpstream is what `portico dev` puts the proxy in front of.
type devUpstream struct {
	server     string // URL
	kubeconfig string
	// clientCAFile is set where the kubeconfig's user has a certificate.
	clientCAFile string
	kubectl      string
	stop         func()

	// What follows is for --redirect. service is the kubernetes Service's, and
	// the certificate is one for it, by the cluster's authority.
	service                   netip.AddrPort
	certFile, keyFile, caFile string
}

func (o *devOptions) findUpstream(ctx context.Context) (*devUpstream, error) {
	if o.kubeconfig != "" {
		return o.existing(ctx)
	}
	return o.embedded(ctx)
}

// embedded starts a control plane.
func (o *devOptions) embedded(ctx context.Context) (*devUpstream, error) {
	cp, err := controlplane.Start(ctx, controlplane.Options{ControllerManager: true, Scheduler: true, Kwok: true, Log: o.out})
	if err != nil {
		return nil, err
	}
	u := &devUpstream{
		server:     cp.URL(),
		kubeconfig: o.directKubeconfig(),
		kubectl:    cp.Program("kubectl"),
		stop:       cp.Stop,
	}
	// By token: a certificate could only be passed on by impersonation.
	if err := cp.Kubeconfig(cp.Token("admin")).WriteFile(u.kubeconfig); err != nil {
		cp.Stop()
		return nil, err
	}
	if err := o.furnish(ctx, cp, u); err != nil {
		cp.Stop()
		return nil, err
	}
	return u, nil
}

// furnish makes what the control plane is to have besides.
func (o *devOptions) furnish(ctx context.Context, cp *controlplane.ControlPlane, u *devUpstream) error {
	for n := range o.nodes {
		if err := cp.AddNode(ctx, fmt.Sprintf("node-%d", n)); err != nil {
			return err
		}
	}
	if !o.redirect {
		return nil
	}
	return o.certify(ctx, cp, u)
}

// existing uses the cluster of a kubeconfig.
func (o *devOptions) existing(ctx context.Context) (*devUpstream, error) {
	cfg, err := clientcmd.BuildConfigFromFlags("", o.kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("read kubeconfig %s: %w", o.kubeconfig, err)
	}
	u := &devUpstream{server: cfg.Host, kubeconfig: o.kubeconfig, kubectl: "kubectl", stop: func() {}}
	if cfg.CertFile != "" || len(cfg.CertData) > 0 {
		u.clientCAFile = filepath.Join(o.dir, "client-ca.crt")
		return u, fetchClientCA(ctx, cfg, u.clientCAFile)
	}
	return u, nil
}

// fetchClientCA asks the cluster which authority it trusts for client
// certificates, as extension API servers do.
func fetchClientCA(ctx context.Context, cfg *rest.Config, file string) error {
	const namespace, name, key = "kube-system", "extension-apiserver-authentication", "client-ca-file"
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return fmt.Errorf("make client: %w", err)
	}
	cm, err := client.CoreV1().ConfigMaps(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("find the authority of client certificates in ConfigMap %s/%s: %w", namespace, name, err)
	}
	if err := os.WriteFile(file, []byte(cm.Data[key]), 0o600); err != nil {
		return fmt.Errorf("write the authority of client certificates: %w", err)
	}
	return nil
}

// writeProxied writes the upstream's kubeconfig with the proxy as its server.
func (u *devUpstream) writeProxied(path string, s *server.Server) error {
	cfg, err := clientcmd.LoadFromFile(u.kubeconfig)
	if err != nil {
		return fmt.Errorf("read kubeconfig %s: %w", u.kubeconfig, err)
	}
	if err := clientcmdapi.MinifyConfig(cfg); err != nil {
		return fmt.Errorf("read kubeconfig %s: %w", u.kubeconfig, err)
	}
	ca, err := os.ReadFile(cmp.Or(u.caFile, s.CertFile()))
	if err != nil {
		return fmt.Errorf("read the proxy's certificate: %w", err)
	}
	for _, c := range cfg.Clusters {
		*c = clientcmdapi.Cluster{Server: "https://" + s.Addr().String(), CertificateAuthorityData: ca}
	}
	if err := clientcmdapi.FlattenConfig(cfg); err != nil {
		return fmt.Errorf("read files of kubeconfig %s: %w", u.kubeconfig, err)
	}
	if err := clientcmd.WriteToFile(*cfg, path); err != nil {
		return fmt.Errorf("write kubeconfig: %w", err)
	}
	return nil
}
