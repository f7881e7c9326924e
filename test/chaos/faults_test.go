package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/portico-proxy/portico/test/controlplane"
	"github.com/portico-proxy/portico/test/relay"
)

// fault is something that goes wrong for a while. Faults of one victim never
// overlap.
type fault struct {
	what   string
	victim string
	begin  func() error
	end    func() error
}

// faults are all that can go wrong, etcd's first: what is restarted waits for it.
func (w *world) faults(ctx context.Context) []fault {
	all := append(w.partFaults(ctx, controlplane.Etcd), fault{what: "compact", victim: string(controlplane.Etcd), begin: func() error { return w.compact(ctx) }})
	for n := range apiServers {
		all = append(all, w.partFaults(ctx, controlplane.APIServerN(n))...)
	}
	for n := range replicas {
		all = append(all, w.proxyFaults(n)...)
		name := fmt.Sprintf("proxy-%d", n)
		all = append(all, lineFaults("the line of "+name+" to the API servers", name, w.lines[n]...)...)
	}
	all = append(all, w.bookmarkFaults()...)
	for n, line := range w.peers {
		name := fmt.Sprintf("the line to proxy-%d of its peers", n)
		all = append(all, lineFaults(name, name, line)...)
	}
	return all
}

func (w *world) partFaults(ctx context.Context, part controlplane.Part) []fault {
	return []fault{
		{what: "kill " + string(part), victim: string(part),
			begin: func() error { return w.plane.Kill(part) },
			end:   func() error { return w.plane.Restart(ctx, part) }},
		{what: "freeze " + string(part), victim: string(part),
			begin: func() error { return w.plane.Freeze(part) },
			end:   func() error { return w.plane.Thaw(part) }},
	}
}

func (w *world) proxyFaults(n int) []fault {
	p, name := w.proxies[n], fmt.Sprintf("proxy-%d", n)
	return []fault{
		{what: "kill " + name, victim: name,
			begin: func() error { p.Kill(); return nil },
			end:   func() error { p.Start(); return nil }},
		{what: "stop " + name, victim: name,
			begin: func() error { p.Stop(); return nil },
			end:   func() error { p.Start(); return nil }},
		{what: "freeze " + name, victim: name,
			begin: func() error { p.Signal(syscall.SIGSTOP); return nil },
			end:   func() error { p.Signal(syscall.SIGCONT); return nil }},
	}
}

// late is by how much a slow line delays.
const late = 150 * time.Millisecond

// lineFaults are of lines to somebody: cut, without a word one way or the other, and
// slow.
func lineFaults(name, victim string, lines ...*relay.Relay) []fault {
	each := func(do func(*relay.Relay)) func() error {
		return func() error {
			for _, line := range lines {
				do(line)
			}
			return nil
		}
	}
	return []fault{
		{what: "cut " + name, victim: victim, begin: each((*relay.Relay).Cut), end: each((*relay.Relay).Mend)},
		{what: "hold answers on " + name, victim: victim,
			begin: each(func(r *relay.Relay) { r.Hold(relay.Back) }), end: each(func(r *relay.Relay) { r.Release(relay.Back) })},
		{what: "hold requests on " + name, victim: victim,
			begin: each(func(r *relay.Relay) { r.Hold(relay.There) }), end: each(func(r *relay.Relay) { r.Release(relay.There) })},
		{what: "slow " + name, victim: victim,
			begin: each(func(r *relay.Relay) { r.Delay(relay.Back, late) }), end: each(func(r *relay.Relay) { r.Delay(relay.Back, 0) })},
	}
}

// lateBookmarks is by how much bookmarks are late: about as much as the API server takes
// to send one.
const lateBookmarks = time.Second

// bookmarkFaults keep from the first proxy how far its watches have come, though not what
// happens.
func (w *world) bookmarkFaults() []fault {
	each := func(do func(*relay.Watches)) func() error {
		return func() error {
			for _, one := range w.watches {
				do(one)
			}
			return nil
		}
	}
	return []fault{
		{what: "lose bookmarks for proxy-0", victim: "proxy-0", begin: each((*relay.Watches).Starve), end: each((*relay.Watches).Feed)},
		{what: "delay bookmarks for proxy-0", victim: "proxy-0",
			begin: each(func(r *relay.Watches) { r.Delay(lateBookmarks, 0) }), end: each(func(r *relay.Watches) { r.Delay(0, 0) })},
	}
}

// compact makes etcd forget all but the last few revisions.
func (w *world) compact(ctx context.Context) error {
	got, err := w.etcd.Get(ctx, "none")
	if err != nil {
		return err
	}
	_, err = w.etcd.Compact(ctx, got.Header.Revision-5)
	return err
}

// disturb lets faults happen one after another, or two at a time.
func (w *world) disturb(t *testing.T, r *rand.Rand, until time.Time) {
	t.Helper()
	for time.Now().Before(until) {
		<-time.After(between(r, 200*time.Millisecond, time.Second))
		chosen := choose(r, w.faults(t.Context()))
		for _, f := range chosen {
			t.Logf("%s: %s", time.Now().Format(time.TimeOnly), f.what)
			if err := f.begin(); err != nil {
				t.Errorf("%s: %v", f.what, err)
			}
		}
		<-time.After(between(r, 100*time.Millisecond, 3*time.Second))
		for _, f := range chosen {
			if f.end == nil {
				continue
			}
			if err := f.end(); err != nil {
				t.Errorf("end of %s: %v", f.what, err)
			}
			t.Logf("%s: end of %s", time.Now().Format(time.TimeOnly), f.what)
		}
	}
}

func between(r *rand.Rand, low, high time.Duration) time.Duration {
	return low + time.Duration(r.Int64N(int64(high-low)))
}

// choose returns one fault, or two of different victims in the order of all.
func choose(r *rand.Rand, all []fault) []fault {
	i, j := r.IntN(len(all)), r.IntN(len(all))
	if i > j {
		i, j = j, i
	}
	if all[i].victim == all[j].victim || r.IntN(2) == 0 {
		return all[i : i+1]
	}
	return []fault{all[i], all[j]}
}
