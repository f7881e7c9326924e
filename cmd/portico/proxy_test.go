package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/portico-proxy/portico/core/pipeline"
	"github.com/portico-proxy/portico/core/server"
)

func TestWhatFailsBesideTheServerEndsIt(t *testing.T) {
	s, err := server.New(server.Options{
		BindAddress: net.IPv4(127, 0, 0, 1), CertDir: t.TempDir(), Log: logr.Discard(),
		Handler: pipeline.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return nil }),
	})
	if err != nil {
		t.Fatal(err)
	}
	broken, said := errors.New("broken"), ""
	p := &proxy{server: s, log: funcr.New(func(_, args string) { said += args }, funcr.Options{})}
	other := false
	p.beside = []manager.Runnable{
		manager.RunnableFunc(func(context.Context) error { return broken }),
		manager.RunnableFunc(func(ctx context.Context) error {
			<-ctx.Done()
			other = s.Ready(nil) != nil
			return ctx.Err()
		}),
	}
	if err := p.serve(t.Context()); !errors.Is(err, broken) {
		t.Errorf("got %v, want what broke", err)
	}
	if !other {
		t.Error("what did not fail ended before the server did")
	}
	if strings.Count(said, "broken") != 1 || strings.Contains(said, "canceled") {
		t.Errorf("logged %q", said)
	}
}
