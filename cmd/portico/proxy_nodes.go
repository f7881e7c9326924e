package main

import (
	"cmp"
	"time"

	"k8s.io/client-go/kubernetes"

	"github.com/portico-proxy/portico/core/body"
	"github.com/portico-proxy/portico/core/telemetry"
	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
	"github.com/portico-proxy/portico/filters/noderestriction"
)

// nodes prepares what keeps nodes that are not trusted to their policies. It
// follows them for as long as there are requests.
func (p *proxy) nodes(client kubernetes.Interface, o proxyOptions, rooms *body.Rooms) *noderestriction.Library {
	l := noderestriction.NewLibrary(noderestriction.Options{
		Client: client, Node: o.nodeName, Rooms: rooms, Log: p.log.WithName("noderestriction"),
		Observe: func(policy string, mode v1alpha1.FilterMode, decision string, took time.Duration) {
			p.telemetry.Metrics.Decided(telemetry.Decision{
				Filter: policy, Phase: string(v1alpha1.PhaseRestrict), Mode: string(cmp.Or(mode, v1alpha1.ModeEnforce)), Decision: decision, Took: took,
			})
		},
	})
	p.beside = append(p.beside, l)
	return l
}
