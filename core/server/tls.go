package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"

	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/client-go/util/cert"
)

var errHalfCertificate = errors.New("--tls-cert-file and --tls-private-key-file go together")

// ensureCertificate makes a self-signed certificate where none is given and
// keeps one it made before, so that clients that trust it go on doing so.
func (o *Options) ensureCertificate() error {
	if (o.CertFile == "") != (o.KeyFile == "") {
		return errHalfCertificate
	}
	if o.CertFile != "" {
		return nil
	}
	o.CertFile = filepath.Join(o.CertDir, "portico.crt")
	o.KeyFile = filepath.Join(o.CertDir, "portico.key")
	if ok, err := cert.CanReadCertAndKey(o.CertFile, o.KeyFile); err != nil || ok {
		return err
	}
	return o.selfSign()
}

func (o *Options) selfSign() error {
	host := "localhost"
	if o.BindAddress != nil && !o.BindAddress.IsUnspecified() {
		host = o.BindAddress.String()
	}
	names := []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"}
	if name, err := os.Hostname(); err == nil {
		names = append(names, name)
	}
	crt, key, err := cert.GenerateSelfSignedCertKey(host, []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}, names)
	if err != nil {
		return fmt.Errorf("make a self-signed certificate: %w", err)
	}
	if err := cert.WriteCert(o.CertFile, crt); err != nil {
		return fmt.Errorf("write a self-signed certificate (--cert-dir): %w", err)
	}
	if err := os.WriteFile(o.KeyFile, key, 0o600); err != nil {
		return fmt.Errorf("write a self-signed certificate's key (--cert-dir): %w", err)
	}
	return nil
}

// tlsConfig follows the certificate and client-authority files until ctx ends.
// wg waits for those who follow.
func (s *Server) tlsConfig(ctx context.Context, wg *sync.WaitGroup) (*tls.Config, error) {
	base := &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"h2", "http/1.1"},
		// Asked for even without an authority: a caller with nothing but a
		// certificate is told why it cannot be served, not taken for anonymous.
		ClientAuth: tls.RequestClientCert,
		// Small records at first help where packets are lost. Callers are near.
		DynamicRecordSizingDisabled: true,
	}
	serving, err := dynamiccertificates.NewDynamicServingContentFromFiles("serving", s.options.CertFile, s.options.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("load the serving certificate: %w", err)
	}
	controller := dynamiccertificates.NewDynamicServingCertificateController(base, s.options.ClientCA, serving, nil, nil)
	for _, provider := range []any{serving, s.options.ClientCA} {
		if n, ok := provider.(dynamiccertificates.Notifier); ok {
			n.AddListener(controller)
		}
		if r, ok := provider.(dynamiccertificates.ControllerRunner); ok {
			if err := r.RunOnce(ctx); err != nil {
				return nil, fmt.Errorf("load TLS files: %w", err)
			}
			wg.Go(func() { r.Run(ctx, 1) })
		}
	}
	if err := controller.RunOnce(); err != nil {
		return nil, fmt.Errorf("load TLS files: %w", err)
	}
	wg.Go(func() { controller.Run(1, ctx.Done()) })
	served := base.Clone() // base is the controller's
	served.GetConfigForClient = controller.GetConfigForClient
	return served, nil
}
