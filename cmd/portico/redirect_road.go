package main

import (
	"context"
	"net"
	"net/netip"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"

	"github.com/portico-proxy/portico/core/redirect"
)

// A road is how the agent reaches the API server for what is most of what it reads,
// and says nothing of the proxy next door: as workloads do, by that proxy while
// a policy leads there. Connections that a policy's coming or going concerns
// are made anew. Before it has decided anything, the agent goes past the proxy:
// what an agent before it has left may lead to nobody.
type road struct {
	past *net.Dialer // by sockets that policies do not concern

	mu    sync.Mutex
	table redirect.Table // what was decided last
	open  map[*traveller]bool
}

// A traveller is a connection on a road.
type traveller struct {
	net.Conn
	road *road
	to   redirect.Target
	led  bool // whether a policy led it, as far as is known
}

func newRoad(mark uint32) *road {
	return &road{past: markedDialer(mark), open: map[*traveller]bool{}}
}

// config is cfg by the road. Proxies do not take everybody's certificate, but
// everybody's token.
func (r *road) config(cfg *rest.Config) *rest.Config {
	if cfg.BearerToken == "" && cfg.BearerTokenFile == "" || cfg.CertFile != "" || len(cfg.CertData) > 0 {
		return cfg
	}
	c := rest.CopyConfig(cfg)
	c.Dial = r.dial
	return c
}

func (r *road) dial(ctx context.Context, network, address string) (net.Conn, error) {
	d := r.past
	if r.decided() {
		d = markedDialer(0)
	}
	c, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	t := &traveller{Conn: c, road: r}
	if a, err := netip.ParseAddrPort(c.RemoteAddr().String()); err == nil {
		t.to = redirect.Target{AddrPort: netip.AddrPortFrom(a.Addr().Unmap(), a.Port()), Protocol: corev1.ProtocolTCP}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	t.led = d != r.past && r.leads(t.to)
	r.open[t] = true
	return t, nil
}

func (t *traveller) Close() error {
	t.road.mu.Lock()
	delete(t.road.open, t)
	t.road.mu.Unlock()
	return t.Conn.Close()
}

func (r *road) decided() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.table != nil
}

// leads says whether a policy leads elsewhere.
func (r *road) leads(to redirect.Target) bool {
	p := r.table[to].Policy
	return p != nil && len(p.Backends) > 0
}

// follow ends the connections that would go another way by now. Whoever has one
// connects again, and goes on reading where it was.
func (r *road) follow(t redirect.Table) {
	r.mu.Lock()
	r.table = t
	var ended []*traveller
	for c := range r.open {
		if c.led != r.leads(c.to) {
			ended = append(ended, c)
		}
	}
	r.mu.Unlock()
	for _, c := range ended {
		c.Close()
	}
}
