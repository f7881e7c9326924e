package main

import (
	"fmt"
	"net/http"
	"time"

	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	"github.com/portico-proxy/portico/core/body"
	"github.com/portico-proxy/portico/core/telemetry"
	"github.com/portico-proxy/portico/core/watches"
	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
	"github.com/portico-proxy/portico/filters/view"
)

// phaseView is what metrics call the phase of views.
const phaseView = "View"

// views prepares what shows callers their own worlds.
func (p *proxy) views(cfg *rest.Config, own *http.Client, rooms *body.Rooms, open *watches.Open) (*view.Library, error) {
	client, err := metadata.NewForConfigAndClient(cfg, own)
	if err != nil {
		return nil, fmt.Errorf("prepare the proxy's own client: %w", err)
	}
	seen := func(name string, mode v1alpha1.FilterMode, decision string, took time.Duration) {
		p.telemetry.Metrics.Decided(telemetry.Decision{Filter: name, Phase: phaseView, Mode: string(mode), Decision: decision, Took: took})
	}
	return view.NewLibrary(view.Options{Client: client, Observe: seen, Rooms: rooms, News: open.Again, Log: p.log.WithName("view")}), nil
}
