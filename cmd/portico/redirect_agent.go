package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	"github.com/portico-proxy/portico/bpf"
	"github.com/portico-proxy/portico/core/config"
	"github.com/portico-proxy/portico/core/redirect"
)

// beat is how often the agent looks whether there is something to do. Changes
// that come in between are made together.
const beat = 50 * time.Millisecond

// An agent keeps the kernel's table true to the world.
type agent struct {
	options *redirectOptions
	log     logr.Logger
	watcher *watcher
	prober  *prober
	pods    *podCgroups
	servers []netip.AddrPort
	stale   *staleSockets
	syncs   *prometheus.HistogramVec
	world   redirect.World // the one of the last decision on everything
	decider redirect.Decider
	steer   *bpf.Redirector // nil for a dry run
	table   sync.Mutex      // held while steer's table is read or changed

	dirty    atomic.Bool
	ready    atomic.Bool
	decision atomic.Pointer[redirect.Decision] // the last one, for reports
}

func newAgent(ctx context.Context, cfg *rest.Config, o *redirectOptions) (*agent, error) {
	a := &agent{options: o, log: klog.FromContext(ctx).WithName("redirect"), syncs: newSyncs()}
	changed := func() { a.dirty.Store(true) }
	a.prober = &prober{mark: o.exemptMark, changed: changed}
	a.pods = &podCgroups{root: o.cgroup}
	if a.pods.root == "" {
		root, err := bpf.FindCgroup()
		if err != nil && !o.dryRun {
			return nil, err
		}
		a.pods.root = root
	}
	var err error
	if a.servers, err = o.serverAddresses(); err != nil {
		return nil, err
	}
	a.watcher, err = newWatcher(ctx, cfg, o, changed)
	return a, err
}

func (o *redirectOptions) runDry(ctx context.Context, cfg *rest.Config, out io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	a, err := newAgent(ctx, cfg, o)
	if err != nil {
		return err
	}
	if err := a.see(ctx); err != nil {
		return err
	}
	d, err := a.first(ctx)
	if err != nil {
		return err
	}
	printDecision(out, d)
	return nil
}

// runAgent steers until ctx ends.
func (o *redirectOptions) runAgent(ctx context.Context, cfg *rest.Config) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// What is missing in the kernel is said before anybody is waited for.
	if err := bpf.Supported(); err != nil {
		return err
	}
	a, err := newAgent(ctx, cfg, o)
	if err != nil {
		return err
	}
	return a.serve(ctx)
}

// serve steers, and answers operators, until ctx ends.
func (a *agent) serve(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return serveOperators(ctx, a.options, a) })
	g.Go(func() error { return a.run(ctx, g) })
	return g.Wait()
}

// run opens the kernel's table, which an agent before may have filled, and
// changes it only when everything has been seen.
func (a *agent) run(ctx context.Context, g *errgroup.Group) error {
	if err := a.see(ctx); err != nil {
		return ignoreEnd(ctx, err)
	}
	if err := a.open(ctx); err != nil {
		return ignoreEnd(ctx, err)
	}
	defer a.close()
	protocols, err := a.options.endedProtocols()
	if err != nil {
		return err
	}
	if a.stale, err = newStaleSockets(a.steer, protocols, a.log); err != nil {
		return err
	}
	defer a.stale.close()
	if err := a.begin(ctx); err != nil {
		return ignoreEnd(ctx, err)
	}
	var beside sync.WaitGroup
	probing, end := context.WithCancel(ctx)
	beside.Go(func() { a.prober.run(probing, a.options.probeInterval) })
	if a.watcher.main != nil && a.options.reportStatus && !a.watcher.fromFiles {
		g.Go(func() error { return newReporter(a).run(ctx) })
	}
	err = a.loop(ctx)
	end() // the loop may have failed while ctx goes on
	beside.Wait()
	return err
}

func (a *agent) close() {
	a.table.Lock()
	defer a.table.Unlock()
	a.ready.Store(false)
	_ = a.steer.Close() // what it holds goes with the process anyway
}

// counts are what has become of connections, by destination; nothing while the
// agent does not steer.
func (a *agent) counts() map[bpf.Frontend]bpf.Counts {
	a.table.Lock()
	defer a.table.Unlock()
	if !a.ready.Load() {
		return nil
	}
	all, err := a.steer.Counts()
	if err != nil {
		a.log.Error(err, "The kernel's counters are not in the metrics")
	}
	return all
}

func ignoreEnd(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// see returns when everything that is watched has been seen once.
func (a *agent) see(ctx context.Context) error {
	if a.options.policyDir != "" {
		if err := a.followFiles(ctx); err != nil {
			return err
		}
	}
	return a.watcher.start(ctx)
}

// followFiles returns when the policies of files were read, and goes on reading
// them.
func (a *agent) followFiles(ctx context.Context) error {
	loader := config.Loader{Dir: a.options.policyDir, Scheme: a.watcher.scheme}
	first, ended := make(chan struct{}), make(chan error, 1)
	var once sync.Once
	go func() {
		ended <- loader.Follow(ctx, a.log, func(s *config.Snapshot) error {
			err := a.watcher.apply(s)
			if err == nil {
				once.Do(func() { close(first) })
			}
			return err
		})
	}()
	select {
	case <-first:
		return nil
	case err := <-ended:
		return err
	}
}

// open waits for an agent before this one to end.
func (a *agent) open(ctx context.Context) error {
	o := bpf.Options{
		Pins: a.options.pins, Cgroup: a.options.cgroup,
		MaxFrontends: a.options.maxFrontends, MaxBackends: a.options.maxBackends,
	}
	ticker := time.NewTicker(beat)
	defer ticker.Stop()
	for waiting := false; ; waiting = true {
		var err error
		a.steer, err = bpf.Open(o)
		if !errors.Is(err, bpf.ErrLocked) {
			return err
		}
		if !waiting {
			a.log.Info("Waiting for another agent to end", "pins", a.options.pins)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

// begin makes the first table, and only then exchanges the programs.
func (a *agent) begin(ctx context.Context) error {
	if err := a.steer.Set(bpf.Settings{Mark: a.options.exemptMark, Sample: a.options.sampleEvents}); err != nil {
		return err
	}
	d, err := a.first(ctx)
	if err != nil {
		return err
	}
	if err := a.write(d); err != nil {
		return err
	}
	if err := a.steer.Renew(a.options.leaseDuration); err != nil {
		return err
	}
	if err := a.steer.Attach(); err != nil {
		return err
	}
	a.ready.Store(true)
	a.watcher.road.follow(d.Table)
	neighbours, err := a.steer.Neighbours()
	if err == nil && len(neighbours) > 0 {
		a.log.Info("Other programs choose destinations here too; the one that is first wins", "programs", neighbours)
	}
	a.log.Info("Steering connections", "node", a.options.nodeName, "frontends", len(d.Table))
	return err
}

// first decides with everything at hand: backends are probed before the first
// table is made, so that a new agent takes nothing back that holds.
func (a *agent) first(ctx context.Context) (redirect.Decision, error) {
	d, err := a.decide(true)
	if err != nil || len(d.Probes) == 0 {
		return d, err
	}
	a.prober.probeAll(ctx)
	return a.decide(true)
}

func (a *agent) decide(wait bool) (redirect.Decision, error) {
	w, err := a.watcher.world(wait)
	if err != nil {
		return redirect.Decision{}, err
	}
	w.ResolveServices, w.APIServers = a.options.resolveServices, a.servers
	w.Answers = a.prober.Answers
	w.Cgroups = a.pods.of(w.Pods)
	a.world = w
	d := a.decider.Decide(w)
	a.prober.follow(d.Probes)
	return d, nil
}

func (a *agent) write(d redirect.Decision) error {
	a.table.Lock()
	defer a.table.Unlock()
	stats, err := a.steer.Sync(kernelTable(d.Table))
	if err != nil {
		return err
	}
	a.decision.Store(&d)
	a.wrote(stats)
	return nil
}

// wrote takes note of what a change has done.
func (a *agent) wrote(stats bpf.Stats) {
	a.stale.note(a.steer.Left())
	if stats != (bpf.Stats{}) {
		a.log.V(2).Info("Changed the kernel's table", "frontends", stats.Frontends, "backends", stats.Backends, "deleted", stats.Deleted)
	}
}

// stuckAfter is how long a change may take before the agent counts as dead.
const stuckAfter = 5 * time.Second

// loop makes changes and renews the lease. A change in a large cluster may take
// longer than a lease, so that it is made beside; but who does not get done with
// it may not go on renewing.
func (a *agent) loop(ctx context.Context) error {
	ticker := time.NewTicker(beat)
	defer ticker.Stop()
	var renewed, swept, began time.Time
	failing, done := "", make(chan string, 1)
	busy := false
	for {
		select {
		case <-ctx.Done():
			if busy {
				<-done
			}
			return a.hand()
		case failing = <-done:
			busy = false
		case now := <-ticker.C:
			// From time to time without a reason: sets are swept, addresses of this
			// machine and cgroups of pods come up without anybody saying so.
			if now.Sub(swept) > 3*time.Second {
				swept = now
				a.dirty.Store(true)
			}
			if change := a.due(); !busy && change != nil {
				busy, began = true, now
				go func(failing string) { done <- a.once(change, failing) }(failing)
			}
			if now.Sub(renewed) < a.options.leaseDuration/4 || busy && now.Sub(began) > stuckAfter {
				continue
			}
			renewed = now
			if err := a.steer.Renew(a.options.leaseDuration); err != nil {
				return err
			}
		}
	}
}

// due is what there is to do, or nil: everything again, or only what the endpoints
// of some Services come to.
func (a *agent) due() func() error {
	switch {
	case a.dirty.Load():
		return a.again
	case a.watcher.touches():
		return a.follow
	}
	return nil
}

// once makes a change. What fails is tried again, with everything, and logged when
// it is news.
func (a *agent) once(change func() error, failing string) string {
	err := change()
	if err == nil {
		return ""
	}
	if err.Error() != failing {
		a.log.Error(err, "The kernel's table is not up to date")
	}
	return err.Error()
}

// again decides on everything.
func (a *agent) again() error {
	began := time.Now()
	a.dirty.Store(false)
	a.watcher.touched() // what comes in from here on comes again
	d, err := a.decide(false)
	if err == nil {
		err = a.write(d)
	}
	if err != nil {
		return err
	}
	a.watcher.road.follow(d.Table)
	a.syncs.WithLabelValues("everything").Observe(time.Since(began).Seconds())
	return a.stale.sweep(a.world, d, time.Now())
}

// follow decides on the Services whose endpoints have changed, and on nothing
// else. In a large cluster that is what happens all the time.
func (a *agent) follow() error {
	began := time.Now()
	changed := redirect.Table{}
	for _, service := range a.watcher.touched() {
		now, err := a.watcher.endpointSlices(service)
		if err != nil {
			a.dirty.Store(true)
			return err
		}
		maps.Copy(changed, a.decider.Endpoints(service, now))
	}
	if err := a.change(changed); err != nil {
		a.dirty.Store(true) // what has been decided is not what is in the kernel
		return err
	}
	a.syncs.WithLabelValues("endpoints").Observe(time.Since(began).Seconds())
	if a.stale.waiting() {
		a.dirty.Store(true) // whoever looks for the dead must see everything
	}
	return nil
}

func (a *agent) change(t redirect.Table) error {
	a.table.Lock()
	defer a.table.Unlock()
	stats, err := a.steer.Change(kernelTable(t))
	if err == nil {
		a.wrote(stats)
	}
	return err
}

// hand leaves everything to a successor.
func (a *agent) hand() error {
	if err := a.steer.Renew(a.options.handover); err != nil {
		return fmt.Errorf("hand over: %w", err)
	}
	a.log.Info("Stopped; what was decided holds for a successor", "for", a.options.handover)
	return nil
}
