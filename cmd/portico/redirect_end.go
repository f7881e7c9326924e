package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"

	"github.com/portico-proxy/portico/bpf"
	"github.com/portico-proxy/portico/core/redirect"
)

// endFor is how long sockets to a dead backend are looked for: one may just have
// been connecting.
const endFor = 10 * time.Second

// staleSockets ends those that are connected to backends that are no more.
type staleSockets struct {
	protocols []bpf.Protocol
	log       logr.Logger
	ender     *bpf.Ender // nil if there is nothing to end
	// leaving are backends that no new connection goes to, and since when they
	// are dead; the zero time means not yet.
	leaving map[bpf.Departure]time.Time
}

// endedProtocols reads --end-stale-sockets.
func (o *redirectOptions) endedProtocols() ([]bpf.Protocol, error) {
	var all []bpf.Protocol
	for _, text := range o.endStale {
		switch strings.ToUpper(text) {
		case "TCP":
			all = append(all, bpf.TCP)
		case "UDP":
			all = append(all, bpf.UDP)
		default:
			return nil, fmt.Errorf("--end-stale-sockets=%s is neither TCP nor UDP", text)
		}
	}
	return all, nil
}

func newStaleSockets(r *bpf.Redirector, protocols []bpf.Protocol, log logr.Logger) (*staleSockets, error) {
	s := &staleSockets{protocols: protocols, log: log, leaving: map[bpf.Departure]time.Time{}}
	if len(protocols) == 0 {
		return s, nil
	}
	var err error
	s.ender, err = r.NewEnder()
	return s, err
}

func (s *staleSockets) close() {
	if s.ender != nil {
		_ = s.ender.Close() // what it holds goes with the process anyway
	}
}

// note remembers backends that have left the table.
func (s *staleSockets) note(left []bpf.Departure) {
	for _, d := range left {
		if slices.Contains(s.protocols, d.Backend.Protocol) {
			s.leaving[d] = time.Time{}
		}
	}
}

// waiting says whether any backend is waited for to die.
func (s *staleSockets) waiting() bool { return len(s.leaving) > 0 }

// sweep ends what is connected to those among them that are dead by now.
func (s *staleSockets) sweep(w redirect.World, d redirect.Decision, now time.Time) error {
	dead := s.dead(w, d, now)
	if len(dead) == 0 {
		return nil
	}
	ended, err := s.ender.End(dead)
	for _, e := range ended {
		s.log.Info("Ended a socket to a dead backend", "frontend", e.Frontend.String(), "backend", e.Backend.String())
	}
	return err
}

func (s *staleSockets) dead(w redirect.World, d redirect.Decision, now time.Time) []bpf.Frontend {
	backends := map[redirect.Target]bool{}
	for l := range s.leaving {
		backends[targetOf(l.Backend)] = true
	}
	if len(backends) == 0 {
		return nil
	}
	alive := redirect.Lives(w, backends)
	var dead []bpf.Frontend
	for l, since := range s.leaving {
		switch {
		case !d.Holds(w, l.Owner), !since.IsZero() && now.Sub(since) > endFor:
			delete(s.leaving, l)
		case alive[targetOf(l.Backend)]:
			s.leaving[l] = time.Time{}
		default:
			if since.IsZero() {
				s.leaving[l] = now
			}
			dead = append(dead, l.Backend)
		}
	}
	return dead
}

func targetOf(f bpf.Frontend) redirect.Target {
	t := redirect.Target{AddrPort: f.AddrPort, Protocol: corev1.ProtocolTCP}
	if f.Protocol == bpf.UDP {
		t.Protocol = corev1.ProtocolUDP
	}
	return t
}
