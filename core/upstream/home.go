package upstream

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// awayFor is after how long on average an address is asked again that is preferred
// to the one in use.
const awayFor = 30 * time.Second

// ranked orders addresses by how much the proxy of a name prefers them (rendezvous
// hashing): proxies share a list, and neither its first entry nor, when one is gone,
// the next. Without a name it is any order.
func ranked(name string, addresses []string) []string {
	if name == "" {
		name = fmt.Sprint(rand.Uint64())
	}
	weight := func(address string) uint64 {
		sum := sha256.Sum256([]byte(name + "\x00" + address))
		return binary.BigEndian.Uint64(sum[:])
	}
	return slices.SortedFunc(slices.Values(addresses), func(a, b string) int {
		return cmp.Or(cmp.Compare(weight(b), weight(a)), cmp.Compare(a, b))
	})
}

// homing is how a dialer goes back to an address that it prefers. Otherwise the one
// that was restarted last would have no callers, and the others all of them.
type homing struct {
	away time.Duration // [awayFor]
	// check reports whether an address answers requests. Nil has the dialer stay.
	check func(ctx context.Context, address string) error
	// moves counts homecomings: connections of before should not be used for what
	// begins.
	moves atomic.Uint64

	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup
	coming  bool // guarded by dialer.mu
}

// comeHome goes back once a preferred address answers. The caller holds d.mu.
func (d *dialer) comeHome() {
	if d.inUse == 0 || d.coming || d.check == nil || d.ctx.Err() != nil {
		return
	}
	d.coming = true
	d.running.Go(func() {
		for d.pause() && !d.isHome() {
			d.prefer()
		}
	})
}

// pause waits for about as long as an address is left alone, and reports whether to
// go on. Proxies that have lost the same address do not come back all at once.
func (d *dialer) pause() bool {
	select {
	case <-d.ctx.Done():
		return false
	case <-time.After(d.away/2 + rand.N(d.away)):
		return true
	}
}

// isHome reports whether there is no more to do, and then nobody does it.
func (d *dialer) isHome() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.coming = d.inUse != 0
	return !d.coming
}

// prefer has what begins go to the most preferred address that answers.
func (d *dialer) prefer() {
	d.mu.Lock()
	inUse := d.inUse
	d.mu.Unlock()
	for i := range inUse {
		if d.check(d.ctx, d.addresses[i]) == nil {
			d.log.Info("going back to an API server address that is preferred", "address", d.addresses[i])
			d.report(i, nil)
			d.moves.Add(1)
			return
		}
	}
}

// end returns when nothing of d runs any more.
func (d *dialer) end() {
	d.mu.Lock() // nothing begins from now on
	d.cancel()
	d.mu.Unlock()
	d.running.Wait()
}

// answers reports whether somebody at an address answers requests, who may be a
// proxy that starts or ends.
func answers(ctx context.Context, url, address string, secure tlsFor) error {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	t := &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) { return connect(ctx, network, address) },
		DialTLSContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			raw, err := connect(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return handshake(ctx, raw, address, secure)
		},
		DisableKeepAlives: true,
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("ask the API server: %w", err)
	}
	res, err := t.RoundTrip(r)
	if err != nil {
		return fmt.Errorf("ask the API server: %w", err)
	}
	defer func() { _ = res.Body.Close() }()
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 1<<10))
	if res.StatusCode >= http.StatusInternalServerError {
		return fmt.Errorf("ask the API server: %s", res.Status) //nolint:err113 // nobody asks which
	}
	return nil
}
