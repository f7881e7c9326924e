package main

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"

	"github.com/portico-proxy/portico/core/redirect"
)

// probeTimeout is how long a backend on this node, or one that a policy wants
// probed, may take to answer.
const probeTimeout = 300 * time.Millisecond

// A prober knows which backends answer.
type prober struct {
	mark    uint32
	changed func()

	mu      sync.Mutex // guards following
	targets []redirect.Target
	answers map[redirect.Target]bool
}

// Answers says whether a backend answered the last time; one that was not tried
// yet has not.
func (p *prober) Answers(t redirect.Target) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.answers[t]
}

// follow sets what is probed from now on.
func (p *prober) follow(targets []redirect.Target) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.targets = targets
}

// run probes until ctx ends.
func (p *prober) run(ctx context.Context, interval time.Duration) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			p.probeAll(ctx)
		}
	}
}

// probeAll tries every backend once, many at a time.
func (p *prober) probeAll(ctx context.Context) {
	p.mu.Lock()
	targets := p.targets
	p.mu.Unlock()
	found := make([]bool, len(targets))
	var g errgroup.Group
	g.SetLimit(64)
	for i, t := range targets {
		g.Go(func() error {
			found[i] = p.probe(ctx, t)
			return nil
		})
	}
	_ = g.Wait() // they return none
	if ctx.Err() == nil && p.note(targets, found) {
		p.changed()
	}
}

// note says whether anything is new.
func (p *prober) note(targets []redirect.Target, found []bool) bool {
	next := make(map[redirect.Target]bool, len(targets))
	p.mu.Lock()
	defer p.mu.Unlock()
	changed := false
	for i, t := range targets {
		next[t] = found[i]
		changed = changed || p.answers[t] != found[i]
	}
	p.answers = next
	return changed
}

func (p *prober) probe(ctx context.Context, t redirect.Target) bool {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	if t.Protocol == corev1.ProtocolUDP {
		return p.probeUDP(ctx, t.AddrPort)
	}
	d := markedDialer(p.mark)
	d.Control = both(d.Control, halfOpen)
	c, err := d.DialContext(ctx, "tcp", t.AddrPort.String())
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// udpPatience is how long it may take until the kernel next door says that nobody
// listens.
const udpPatience = 50 * time.Millisecond

// probeUDP sends an empty datagram. A server has nothing to answer to it; where
// there is none, the host says so.
func (p *prober) probeUDP(ctx context.Context, to netip.AddrPort) bool {
	d := markedDialer(p.mark)
	c, err := d.DialContext(ctx, "udp", to.String())
	if err != nil {
		return false
	}
	defer c.Close()
	if _, err := c.Write(nil); err != nil {
		return false
	}
	if err := c.SetReadDeadline(time.Now().Add(udpPatience)); err != nil {
		return false
	}
	_, err = c.Read(make([]byte, 1))
	var timeout net.Error
	return err == nil || errors.As(err, &timeout) && timeout.Timeout()
}

type control = func(network, address string, c syscall.RawConn) error

// both runs two controls of a socket, of which the first may be nil.
func both(a, b control) control {
	return func(network, address string, c syscall.RawConn) error {
		if a != nil {
			if err := a(network, address, c); err != nil {
				return err
			}
		}
		return b(network, address, c)
	}
}

// markedDialer dials with sockets that policies do not concern.
func markedDialer(mark uint32) *net.Dialer {
	d := &net.Dialer{Timeout: 30 * time.Second}
	if mark != 0 {
		d.Control = func(_, _ string, c syscall.RawConn) error { return setMark(c, mark) }
	}
	return d
}
