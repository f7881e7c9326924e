//go:build linux

package bpf

import (
	"context"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

const vip = "10.96.0.1:443"

// both has a leased policy above a Service.
func both(policy, service netip.AddrPort) Entry {
	return Entry{
		Policy:  &Layer{Owner: "policy", Backends: []netip.AddrPort{policy}, Leased: true},
		Service: &Layer{Owner: "service", Backends: []netip.AddrPort{service}},
	}
}

func mustRenew(tb testing.TB, r *Redirector, d time.Duration) {
	tb.Helper()
	if err := r.Renew(d); err != nil {
		tb.Fatal(err)
	}
}

func mustSet(tb testing.TB, r *Redirector, s Settings) {
	tb.Helper()
	if err := r.Set(s); err != nil {
		tb.Fatal(err)
	}
}

func TestALeasedPolicyLastsAsLongAsItsLease(t *testing.T) {
	n := newNetns(t)
	local, remote := n.listen(t, "127.0.0.5:0", "local"), n.listen(t, "127.0.0.6:0", "remote")
	e := both(local, remote)
	r := steer(t, Table{front(vip, TCP): e})
	n.mustAsk(t, "tcp", vip, "remote")
	mustRenew(t, r, time.Hour)
	n.mustAsk(t, "tcp", vip, "local")
	mustRenew(t, r, 0)
	n.mustAsk(t, "tcp", vip, "remote")

	e.Service = nil // somebody else resolves Services
	mustSync(t, r, Table{front(vip, TCP): e})
	n.mustMiss(t, "tcp", vip)

	e.Policy.Strict = true
	mustSync(t, r, Table{front(vip, TCP): e})
	n.mustRefuse(t, "tcp", vip)
	mustRenew(t, r, time.Hour)
	n.mustAsk(t, "tcp", vip, "local")
}

// The lease runs in the kernel: nobody has to be there for it to end.
func TestALeaseEndsByItself(t *testing.T) {
	n := newNetns(t)
	local, remote := n.listen(t, "127.0.0.5:0", "local"), n.listen(t, "127.0.0.6:0", "remote")
	r := steer(t, Table{front(vip, TCP): both(local, remote)})
	mustRenew(t, r, 300*time.Millisecond)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(patience); ; {
		name, _, err := n.ask("tcp", vip)
		if err != nil {
			t.Fatal(err)
		}
		if name == "remote" {
			return
		}
		if time.Now().After(end) {
			t.Fatal("the lease does not end")
		}
	}
}

func TestMarkedSocketsAreNotForPolicies(t *testing.T) {
	n := newNetns(t)
	local, remote := n.listen(t, "127.0.0.5:0", "local"), n.listen(t, "127.0.0.6:0", "remote")
	r := steer(t, Table{front(vip, TCP): both(local, remote)})
	mustRenew(t, r, time.Hour)
	mustSet(t, r, Settings{Mark: 0x70})
	n.mustAsk(t, "tcp", vip, "local")
	s := n.socket(t, unix.AF_INET, unix.SOCK_STREAM, 0)
	if err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_MARK, 0x70); err != nil {
		t.Fatal(err)
	}
	s.connect(t, "10.96.0.1", 443)
	if got := s.read(t); got != "remote" {
		t.Errorf("%s answered a marked socket, want the Service", got)
	}
}

func TestExemptCgroupsAreNotForPolicies(t *testing.T) {
	n := newNetns(t)
	local, remote := n.listen(t, "127.0.0.5:0", "local"), n.listen(t, "127.0.0.6:0", "remote")
	r := steer(t, Table{front(vip, TCP): both(local, remote)})
	mustRenew(t, r, time.Hour)
	dir, id := newCgroup(t, lab, "exempt")
	below, _ := newCgroup(t, dir, "below")
	other, _ := newCgroup(t, lab, "other")
	mustSet(t, r, Settings{Exempt: []uint64{id}})
	for where, want := range map[string]string{dir: "remote", below: "remote", other: "local"} {
		if got := n.inCgroup(t, where, "tcp", vip); got != want {
			t.Errorf("%s answered in cgroup %s, want %s", got, filepath.Base(where), want)
		}
	}
	mustSet(t, r, Settings{})
	if got := n.inCgroup(t, dir, "tcp", vip); got != "local" {
		t.Errorf("%s answered in a cgroup that is exempt no longer", got)
	}
}

func TestAPolicyIsForItsClients(t *testing.T) {
	n := newNetns(t)
	local, remote := n.listen(t, "127.0.0.5:0", "local"), n.listen(t, "127.0.0.6:0", "remote")
	web, webID := newCgroup(t, lab, "web")
	container, _ := newCgroup(t, web, "container")
	backend, backendID := newCgroup(t, lab, "backend")
	for _, c := range []struct {
		name            string
		clients, except []uint64
		want            map[string]string
	}{
		{"everybody", nil, nil, map[string]string{web: "local", container: "local", backend: "local"}},
		{"some", []uint64{webID}, nil, map[string]string{web: "local", container: "local", backend: "remote", lab: "remote"}},
		{"nobody", []uint64{}, nil, map[string]string{web: "remote", lab: "remote"}},
		{"not-its-own-backend", nil, []uint64{backendID}, map[string]string{web: "local", backend: "remote", lab: "local"}},
		{"some-but-the-backend", []uint64{webID, backendID}, []uint64{backendID}, map[string]string{web: "local", backend: "remote"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := both(local, remote)
			e.Policy.Leased, e.Policy.Clients, e.Policy.Except = false, c.clients, c.except
			steer(t, Table{front(vip, TCP): e})
			for where, want := range c.want {
				if got := n.inCgroup(t, where, "tcp", vip); got != want {
					t.Errorf("%s answered in cgroup %s, want %s", got, filepath.Base(where), want)
				}
			}
		})
	}
}

// 127.0.0.1 is somebody else in each network namespace.
func TestHostOnlyLayersAreForTheHostsNamespace(t *testing.T) {
	host, pod := newNetns(t), newNetns(t)
	b := host.listen(t, "127.0.0.5:0", "node port")
	o := Options{Pins: pinsIn(t), Cgroup: lab}
	var r *Redirector
	host.do(func() { r = mustOpen(t, o) })
	e := service("s", b)
	e.Service.HostOnly = true
	mustSync(t, r, Table{front("127.0.0.1:30080", TCP): e})
	if err := r.Attach(); err != nil {
		t.Fatal(err)
	}
	host.mustAsk(t, "tcp", "127.0.0.1:30080", "node port")
	pod.mustRefuse(t, "tcp", "127.0.0.1:30080") // nobody listens there
	pod.listen(t, "127.0.0.1:30080", "own")
	pod.mustAsk(t, "tcp", "127.0.0.1:30080", "own")

	both := both(b, b)
	both.Policy.Leased, both.Policy.HostOnly = false, true
	mustSync(t, r, Table{front(vip, TCP): {Policy: both.Policy}})
	host.mustAsk(t, "tcp", vip, "node port")
	pod.mustMiss(t, "tcp", vip)
}

func affine(owner string, backends ...netip.AddrPort) Entry {
	e := service(owner, backends...)
	e.Service.Affinity = time.Hour
	return e
}

func TestAClientKeepsItsBackend(t *testing.T) {
	n := newNetns(t)
	a, b, c := n.listen(t, "127.0.0.5:0", "a"), n.listen(t, "127.0.0.6:0", "b"), n.listen(t, "127.0.0.7:0", "c")
	r := steer(t, Table{front(vip, TCP): affine("s", a, b), front("10.96.0.9:443", TCP): affine("s", a, b)})
	first, _, err := n.ask("tcp", vip)
	if err != nil {
		t.Fatal(err)
	}
	for range 40 {
		n.mustAsk(t, "tcp", vip, first)
		n.mustAsk(t, "tcp", "10.96.0.9:443", first) // another way to the same Service
	}
	mustSync(t, r, Table{front(vip, TCP): affine("s", c, b, a)})
	for range 20 {
		n.mustAsk(t, "tcp", vip, first)
	}
	// The backend goes away: nobody is sent there any more.
	left := map[string]netip.AddrPort{"a": b, "b": a}[first]
	mustSync(t, r, Table{front(vip, TCP): affine("s", left)})
	want := map[string]string{"a": "b", "b": "a"}[first]
	n.mustAsk(t, "tcp", vip, want)
	// And the client stays where it is now.
	mustSync(t, r, Table{front(vip, TCP): affine("s", a, b, c)})
	for range 20 {
		n.mustAsk(t, "tcp", vip, want)
	}
}

func TestAffinityIsForgottenInTime(t *testing.T) {
	n := newNetns(t)
	a, b := n.listen(t, "127.0.0.5:0", "a"), n.listen(t, "127.0.0.6:0", "b")
	r := steer(t, Table{front(vip, TCP): affine("s", a, b)})
	seen := map[string]bool{}
	for range 100 {
		name, _, err := n.ask("tcp", vip)
		if err != nil {
			t.Fatal(err)
		}
		seen[name] = true
		age(t, r, time.Hour)
	}
	if len(seen) != 2 {
		t.Errorf("an hour after each other, connections went to %v only", seen)
	}
}

// TestAClientKeepsWhatItChoseMeanwhile has choices be newer than the time at which
// they are looked up.
func TestAClientKeepsWhatItChoseMeanwhile(t *testing.T) {
	n := newNetns(t)
	a, b := n.listen(t, "127.0.0.5:0", "a"), n.listen(t, "127.0.0.6:0", "b")
	steered := steer(t, Table{front(vip, TCP): affine("s", a, b)})
	first, _, err := n.ask("tcp", vip)
	if err != nil {
		t.Fatal(err)
	}
	for range 40 {
		age(t, steered, -time.Minute)
		n.mustAsk(t, "tcp", vip, first)
	}
}

// age makes all choices older.
func age(tb testing.TB, r *Redirector, d time.Duration) {
	tb.Helper()
	aged := map[redirectClient]redirectChoice{}
	if err := each(r.objects.Affinity, func(k redirectClient, v redirectChoice) { aged[k] = v }); err != nil {
		tb.Fatal(err)
	}
	for k, v := range aged {
		// The clock began when the machine did, so this may go below 0, which is
		// as good a difference.
		v.At -= uint64(d)
		if err := r.objects.Affinity.Put(k, v); err != nil {
			tb.Fatal(err)
		}
	}
}

func TestClientsAreNetworkNamespacesOrCgroups(t *testing.T) {
	one, two := newNetns(t), newNetns(t)
	var all []netip.AddrPort
	for _, ip := range []string{"127.0.0.5:7001", "127.0.0.6:7001", "127.0.0.7:7001", "127.0.0.8:7001"} {
		one.listen(t, ip, ip)
		two.listen(t, ip, ip)
		all = append(all, netip.MustParseAddrPort(ip))
	}
	e := affine("s", all...)
	r := steer(t, Table{front(vip, TCP): e})
	for _, n := range []*netns{one, two} {
		if _, _, err := n.ask("tcp", vip); err != nil {
			t.Fatal(err)
		}
	}
	if got := len(mustInspect(t, r).Affinity); got != 2 {
		t.Errorf("two namespaces are %d clients", got)
	}
	perCgroup := *e.Service
	perCgroup.PerCgroup, perCgroup.Owner = true, "t"
	mustSync(t, r, Table{front(vip, TCP): {Service: &perCgroup}})
	dir, id := newCgroup(t, lab, "client")
	one.inCgroup(t, dir, "tcp", vip)
	two.inCgroup(t, dir, "tcp", vip)
	found := 0
	for _, c := range mustInspect(t, r).Affinity {
		if c.Client == id && c.Owner == OwnerNumber("t") {
			found++
		}
	}
	if found != 1 {
		t.Errorf("one cgroup is %d clients", found)
	}
}

func mustInspect(tb testing.TB, r *Redirector) *Report {
	tb.Helper()
	got, err := Inspect(r.options.Pins)
	if err != nil {
		tb.Fatal(err)
	}
	return got
}

func TestVerdictsAreCounted(t *testing.T) {
	n := newNetns(t)
	local, remote := n.listen(t, "127.0.0.5:0", "local"), n.listen(t, "127.0.0.6:0", "remote")
	e := both(local, remote)
	r := steer(t, Table{front(vip, TCP): e, front("10.96.0.2:443", TCP): service("none")})
	mustRenew(t, r, time.Hour)
	n.mustAsk(t, "tcp", vip, "local")
	n.mustAsk(t, "tcp", vip, "local")
	mustRenew(t, r, 0)
	n.mustAsk(t, "tcp", vip, "remote")
	n.mustRefuse(t, "tcp", "10.96.0.2:443")
	got, err := r.Counts()
	if err != nil {
		t.Fatal(err)
	}
	want := map[Frontend]Counts{
		front(vip, TCP):             {Policy: 2, Service: 1, Lapsed: 1},
		front("10.96.0.2:443", TCP): {Refused: 1},
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
		t.Errorf("counts differ (-want +got):\n%s", diff)
	}
	// Whoever gets the row next begins at 0.
	mustSync(t, r, Table{})
	mustSync(t, r, Table{front("10.96.0.3:443", TCP): service("new")})
	if got, err := r.Counts(); err != nil || got[front("10.96.0.3:443", TCP)] != (Counts{}) {
		t.Errorf("a new row has %v, error %v", got, err)
	}
}

func TestVerdictsBecomeEvents(t *testing.T) {
	n := newNetns(t)
	local, remote := n.listen(t, "127.0.0.5:0", "local"), n.listen(t, "127.0.0.6:0", "remote")
	r := steer(t, Table{front(vip, TCP): both(local, remote), front("10.96.0.2:443", TCP): service("none")})
	mustRenew(t, r, time.Hour)
	for name, follow := range map[string]func(context.Context, func(Event)) error{
		"own": r.Events,
		"another's": func(ctx context.Context, visit func(Event)) error {
			return Follow(ctx, r.options.Pins, visit)
		},
	} {
		t.Run(name, func(t *testing.T) { testEvents(t, n, r, local, follow) })
	}
}

func testEvents(t *testing.T, n *netns, r *Redirector, local netip.AddrPort, follow func(context.Context, func(Event)) error) {
	t.Helper()
	mustSet(t, r, Settings{})
	ctx, cancel := context.WithCancel(t.Context())
	got := make(chan Event, 16)
	var reading sync.WaitGroup
	reading.Go(func() {
		if err := follow(ctx, func(e Event) { got <- e }); err != nil {
			t.Error(err)
		}
	})
	began := time.Now()
	n.mustAsk(t, "tcp", vip, "local") // not sampled
	mustSet(t, r, Settings{Sample: 1})
	n.mustAsk(t, "tcp", vip, "local")
	n.mustRefuse(t, "tcp", "10.96.0.2:443")
	for _, want := range []Event{
		{Frontend: front(vip, TCP), Backend: Frontend{local, TCP}, Verdict: ByPolicy},
		{Frontend: front("10.96.0.2:443", TCP), Verdict: Refused},
	} {
		e := <-got
		if e.Frontend != want.Frontend || e.Backend != want.Backend || e.Verdict != want.Verdict || e.PID == 0 || e.Cgroup == 0 || e.Netns == 0 || e.Command == "" || e.At.Before(began.Add(-time.Second)) || e.At.After(time.Now().Add(time.Second)) {
			t.Errorf("event is %+v, want %+v", e, want)
		}
	}
	cancel()
	reading.Wait()
}
