package server

import (
	"context"
	"crypto/tls"
	"fmt"
	"sync"

	"k8s.io/apiserver/pkg/server/dynamiccertificates"
)

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
