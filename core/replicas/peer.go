package replicas

import (
	"context"
	"time"
)

// peer is what is known about another proxy. Replicas.mu guards it.
type peer struct {
	address  string
	instance string // of its process, as far as is known
	// listed says that discovery names it; others are known because they or a
	// third told of them.
	listed bool
	// left says that this instance acknowledges nothing any more.
	left  bool
	heard time.Time // when it was last known to be alive
	met   time.Time // when it spoke to us, or answered
	// reached is when it last answered us. Who cannot be told gets no lease.
	reached time.Time
	failing bool // the last time that it was to be told

	ours      time.Time // until when we hold its lease
	theirs    time.Time // until when it holds ours
	confirmed uint64    // version of the ledger that it knows
	wake      chan struct{}
	ask       chan struct{}
}

// oblivion is after how many leases a peer is forgotten that nobody lists and that
// is not heard of.
const oblivion = 30

// isNeeded reports whether p may acknowledge something that we have to hear of.
func (p *peer) isNeeded() bool { return !p.left }

// call has p told what is new.
func (p *peer) call() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// meet returns the peer at an address, who may be new. The caller holds r.mu.
func (r *Replicas) meet(address string) *peer {
	if p, ok := r.peers[address]; ok {
		return p
	}
	p := &peer{address: address, heard: r.now(), wake: make(chan struct{}, 1), ask: make(chan struct{}, 1)}
	r.peers[address] = p
	r.lose()
	if r.ctx != nil && !r.ended {
		r.begin(p)
	}
	return p
}

// begin keeps up with p until it is forgotten. The caller holds r.mu.
func (r *Replicas) begin(p *peer) {
	r.running.Go(func() { r.askOften(r.ctx, p) })
	r.running.Go(func() { r.tellWhenCalled(r.ctx, p) })
}

// isForgotten reports whether p is a peer no more.
func (r *Replicas) isForgotten(p *peer) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.peers[p.address] != p
}

// forget drops peers that nobody lists and of whom nothing was heard for long. The
// caller holds r.mu.
func (r *Replicas) forget() {
	now := r.now()
	for a, p := range r.peers {
		if p.listed || now.Before(p.theirs) || now.Sub(p.heard) < oblivion*r.options.Lease {
			continue
		}
		delete(r.peers, a)
		p.call()
		r.lose() // what it acknowledged last we may not have heard
	}
}

// lose notes that something may have been acknowledged that was not heard. The
// caller holds r.mu.
func (r *Replicas) lose() { r.touch++ }

// askOften keeps the lease of p fresh.
func (r *Replicas) askOften(ctx context.Context, p *peer) {
	tick := time.NewTicker(r.options.Lease / 4)
	defer tick.Stop()
	for !r.isForgotten(p) {
		r.askLease(ctx, p)
		select {
		case <-ctx.Done():
			return
		case <-p.ask:
		case <-tick.C:
		}
	}
}

// askLease asks p for a lease and introduces this proxy to it.
func (r *Replicas) askLease(ctx context.Context, p *peer) {
	asked := r.now()
	var got leaseAnswer
	err := r.post(ctx, p, leasePath, r.hello(), &got)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.options.Log.V(1).Info("a peer gives no lease", "peer", p.address, "reason", err.Error())
		return
	}
	now := r.now()
	p.heard, p.met, p.reached = now, now, now
	r.introduce(now)
	r.learn(got.Members)
	r.recognize(p, got.Instance)
	if !got.Granted || p.left {
		return
	}
	if !now.Before(p.ours) {
		r.lose()
	}
	p.ours = asked.Add(r.options.Lease * 9 / 10)
	r.announce()
}

// introduce notes that a peer knows of this proxy now. Who holds a lease of that
// peer a whole lease later has heard of it from that peer. The caller holds r.mu.
func (r *Replicas) introduce(now time.Time) {
	if r.introduced {
		return
	}
	r.introduced = true
	if at := now.Add(r.options.Lease); at.Before(r.admitted) {
		r.admitted = at
		r.announce()
	}
}

// recognize notes which process is at p's address now. The caller holds r.mu.
func (r *Replicas) recognize(p *peer, instance string) {
	if p.instance == instance {
		return
	}
	p.instance, p.left = instance, false
	p.ours = time.Time{} // it was another's
	r.lose()
}

// learn takes who a peer is in contact with. The caller holds r.mu.
func (r *Replicas) learn(members []member) {
	for _, m := range members {
		if m.Address == r.options.Address {
			continue
		}
		p := r.meet(m.Address)
		if p.left && p.instance == m.Instance {
			continue // it has not heard yet
		}
		p.left, p.heard = false, r.now()
	}
}

// tellWhenCalled tells p what it does not know, whenever somebody waits for that.
func (r *Replicas) tellWhenCalled(ctx context.Context, p *peer) {
	for !r.isForgotten(p) {
		select {
		case <-ctx.Done():
			return
		case <-p.wake:
		}
		if !r.tell(ctx, p) {
			pause(ctx, r.options.Lease/50)
			p.call()
		}
	}
}

// tell brings p up to date. It reports false if that is worth trying again.
func (r *Replicas) tell(ctx context.Context, p *peer) bool {
	r.mu.Lock()
	confirmed, listens := p.confirmed, r.now().Before(p.theirs)
	r.mu.Unlock()
	if !listens {
		return true
	}
	floors, version := r.ledger.Since(confirmed)
	if version <= confirmed {
		return true
	}
	err := r.tellAll(ctx, p, floors)
	r.mu.Lock()
	defer r.mu.Unlock()
	if p.failing = err != nil; p.failing {
		r.failed++
		r.options.Log.V(1).Info("a peer cannot be told", "peer", p.address, "reason", err.Error())
		return false
	}
	p.confirmed, p.reached = max(p.confirmed, version), r.now()
	r.announce()
	return true
}

// tellAll tells p of floors, in as many messages as that takes.
func (r *Replicas) tellAll(ctx context.Context, p *peer, floors []Floor) error {
	for {
		n := min(len(floors), maxFloors)
		if err := r.post(ctx, p, floorsPath, news{From: r.options.Address, Floors: floors[:n]}, &struct{}{}); err != nil {
			return err
		}
		if floors = floors[n:]; len(floors) == 0 {
			return nil
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
