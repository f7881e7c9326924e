// Package replicas has proxies behind one address tell each other what they are
// about to show sessions, and says which of them have lost touch.
//
// A client in a session may write through one proxy and read through another. So
// before a proxy acknowledges a write, or shows a state, its peers confirm that
// they know from which resourceVersion on they may answer. One that cannot be told
// must know by itself that it is out of touch, so each holds leases of all others:
//
//   - A proxy answers sessions from memory only while it holds a lease of every peer
//     that it knows of.
//   - A proxy that has something to tell waits until each peer has confirmed it, or
//     until the lease that it gave that peer has run out.
//   - Who has been out of touch asks upstream how new it must be, once for each
//     resource: what was told meanwhile had been made there before. So leases say
//     nothing but how long they last, and nothing need be kept for who was away.
//
// Clocks are compared with nobody's: whoever asks for a lease counts from before he
// asks, and a tenth less, whoever gives it from after.
package replicas

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/go-logr/logr"
)

// lease is how long a peer may answer sessions without hearing of us, and so how
// long one that was killed can delay a write.
const lease = 2 * time.Second

var (
	errStarting = errors.New("peers may not know of this proxy yet")
	errNoLedger = errors.New("replicas: nothing to tell of; call Keep before Start")
)

// A Floor says how new a session's read of one resource must be at least. Its names have
// at most 253 bytes.
type Floor struct {
	Group    string `json:"group,omitempty"`
	Resource string `json:"resource"`
	// ResourceVersion is the least that will do; 0 says nothing.
	ResourceVersion uint64 `json:"resourceVersion,omitempty"`
	// Unknown says that there is more, and that only upstream knows how much.
	Unknown bool `json:"unknown,omitempty"`
}

// A Ledger is where floors are kept. It must not call this package while it holds
// a lock that Since or Hear need.
type Ledger interface {
	// Since returns the floors that were noted here after version, and the version
	// that the ledger has now. What peers told of is not among them.
	Since(version uint64) ([]Floor, uint64)
	// Hear takes a peer's floors.
	Hear([]Floor)
}

// Options says who the peers are and who this proxy is to them.
type Options struct {
	// Address (host:port) is where peers reach this proxy and what they know it by.
	// It listens at its port.
	Address string
	// Listen is where to listen instead, if that is not Address.
	Listen string
	// Identity is what peers know each other by.
	Identity Identity
	Log      logr.Logger
	// Lease is how long one lasts; 0 means 2 s. It is for tests.
	Lease time.Duration
}

// Replicas is this proxy and its peers. A nil one has none: it is in touch with
// everybody and waits for nobody.
type Replicas struct {
	options  Options
	instance string // of this process
	ledger   Ledger
	listener net.Listener
	client   *http.Client
	now      func() time.Time
	running  sync.WaitGroup

	mu    sync.Mutex // guards following
	ctx   context.Context
	peers map[string]*peer // by address
	// listed says that discovery has told who there is.
	listed bool
	// touch counts how often this proxy was, or may have been, out of touch.
	touch uint64
	// admitted is from when on whoever holds a lease has heard of this proxy.
	admitted   time.Time
	introduced bool
	ended      bool
	failed     int64         // times that a peer could not be told
	changed    chan struct{} // closed when somebody may have waited for it
}

// New begins to listen. Nobody is told anything before [Replicas.Start].
func New(o Options) (*Replicas, error) {
	if o.Lease <= 0 {
		o.Lease = lease
	}
	if o.Listen == "" {
		o.Listen = o.Address
	}
	if _, err := o.Identity.read(); err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", o.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen for peers: %w", err)
	}
	r := &Replicas{
		options: o, instance: rand.Text(), listener: l, now: time.Now,
		client: &http.Client{Transport: &http.Transport{DialTLSContext: o.dial, IdleConnTimeout: time.Minute}},
		peers:  map[string]*peer{}, changed: make(chan struct{}),
	}
	// Leases that a former process at this address gave have run out by then, and
	// who can be reached has been.
	r.admitted = r.now().Add(2 * o.Lease)
	return r, nil
}

// dial connects to a peer. net/http lets it go on when who asked for it waits no
// longer: one that accepts and says nothing would have a connection more each time.
func (o *Options) dial(ctx context.Context, network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, o.Lease/2)
	defer cancel()
	return o.Identity.dial(ctx, network, address)
}

// Keep says where floors are kept. It is called before [Replicas.Start].
func (r *Replicas) Keep(l Ledger) { r.ledger = l }

// Start exchanges floors until ctx ends, and tells peers that it has: they need no
// lease of a proxy that acknowledges nothing any more.
func (r *Replicas) Start(ctx context.Context) error {
	if r.ledger == nil {
		return errNoLedger
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r.mu.Lock()
	r.ctx = ctx
	for _, p := range r.peers {
		r.begin(p)
	}
	r.mu.Unlock()
	server := &http.Server{
		Handler: r.handler(), ReadTimeout: r.options.Lease, WriteTimeout: r.options.Lease, MaxHeaderBytes: 16 << 10,
		IdleTimeout: time.Minute, ErrorLog: quiet,
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(r.options.Identity.listen(r.listener)) }()
	err := r.attend(ctx, served)
	cancel()
	r.mu.Lock()
	r.ended = true
	r.mu.Unlock()
	r.running.Wait()
	r.leave(ctx)
	r.client.CloseIdleConnections()
	return errors.Join(err, server.Close())
}

// attend forgets peers and tells of losses until ctx ends or nobody is served.
func (r *Replicas) attend(ctx context.Context, served <-chan error) error {
	tick := time.NewTicker(r.options.Lease / 4)
	defer tick.Stop()
	for touched := false; ; {
		select {
		case <-ctx.Done():
			return nil
		case err := <-served:
			return fmt.Errorf("serve peers: %w", err)
		case <-tick.C:
		}
		r.mu.Lock()
		r.forget()
		r.mu.Unlock()
		if _, ok := r.Touch(); ok != touched {
			touched = ok
			r.options.Log.Info("touch with peers", "all", ok, "peers", r.Figures().Peers)
		}
	}
}

// List says who the peers are, by their addresses. This proxy's own may be among
// them.
func (r *Replicas) List(addresses []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.listed = true
	there := map[string]bool{}
	for _, a := range addresses {
		if there[a] = true; a != r.options.Address {
			r.meet(a).listed = true
		}
	}
	for a, p := range r.peers {
		if p.listed && !there[a] {
			p.listed, p.heard = false, r.now()
		}
	}
	r.forget()
	r.announce()
}

// Ready reports an error until what this proxy acknowledges will be known to all
// who answer sessions from memory.
func (r *Replicas) Ready(*http.Request) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.now().Before(r.admitted) {
		return errStarting
	}
	return nil
}

// Touch reports whether this proxy hears everything that its peers acknowledge, and
// since which loss of touch: what they acknowledged before it need not know. What
// was acknowledged before Touch is called has been heard.
func (r *Replicas) Touch() (since uint64, ok bool) {
	if r == nil {
		return 0, true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	if !r.listed || now.Before(r.admitted) {
		return r.touch, false
	}
	for _, p := range r.peers {
		if p.isNeeded() && !now.Before(p.ours) {
			return r.touch, false
		}
	}
	return r.touch, true
}

// Await returns once every peer that answers sessions from memory knows what the
// ledger noted up to version. It takes as long as a lease at most.
func (r *Replicas) Await(version uint64) {
	if r == nil {
		return
	}
	for {
		changed, wait := r.pending(version)
		if wait <= 0 {
			return
		}
		timer := time.NewTimer(wait)
		select {
		case <-changed:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// pending returns how long to wait at most for who does not know of version yet, and
// what closes when that may have changed. It has them told.
func (r *Replicas) pending(version uint64) (changed <-chan struct{}, wait time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	wait = r.admitted.Sub(now)
	for _, p := range r.peers {
		if p.confirmed < version && now.Before(p.theirs) {
			wait = max(wait, p.theirs.Sub(now))
			p.call()
		}
	}
	return r.changed, wait
}

// announce wakes those who wait. The caller holds r.mu.
func (r *Replicas) announce() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// Figures are what metrics tell of replicas.
type Figures struct {
	// Peers are those that this proxy needs leases of, and Held those that it has.
	Peers, Held int
	InTouch     bool
	// Lost counts how often it was out of touch, Failed how often a peer could not
	// be told.
	Lost   uint64
	Failed int64
}

// Figures reads them at one moment.
func (r *Replicas) Figures() Figures {
	since, ok := r.Touch()
	r.mu.Lock()
	defer r.mu.Unlock()
	f := Figures{InTouch: ok, Lost: since, Failed: r.failed}
	for _, p := range r.peers {
		if p.isNeeded() {
			f.Peers++
			if r.now().Before(p.ours) {
				f.Held++
			}
		}
	}
	return f
}
