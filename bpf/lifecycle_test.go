//go:build linux

package bpf

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/google/go-cmp/cmp"
)

// mustClose leaves the pins, as a process does that ends.
func mustClose(tb testing.TB, r *Redirector) {
	tb.Helper()
	if err := r.Close(); err != nil {
		tb.Fatal(err)
	}
}

func TestWhatIsAttachedOutlivesItsProcess(t *testing.T) {
	n := newNetns(t)
	e := service("s", n.listen(t, "127.0.0.5:0", "backend"))
	e.Service.Affinity, e.Service.Clients, e.Service.Except = time.Hour, []uint64{1, 2}, []uint64{3}
	table := Table{front(vip, TCP): e, front("10.96.0.2:443", TCP): service("none")}
	table[front("10.96.0.3:443", TCP)] = service("s", netip.MustParseAddrPort("127.0.0.5:1"), netip.MustParseAddrPort("127.0.0.6:1"))
	r := steer(t, table)
	mustClose(t, r)
	n.mustAsk(t, "tcp", vip, "backend")

	// The next process finds the table as it is, and has nothing to write.
	next := mustOpen(t, r.options)
	n.mustAsk(t, "tcp", vip, "backend")
	for _, row := range mustInspect(t, next).Rows {
		if diff := cmp.Diff(table[row.Frontend], row.Entry, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
			t.Errorf("%s differs (-want +got):\n%s", row.Frontend, diff)
		}
	}
	if s := mustSync(t, next, table); s != (Stats{}) {
		t.Errorf("a table that has not changed cost %+v", s)
	}
	mustSync(t, next, Table{front("10.96.0.3:443", TCP): table[front("10.96.0.3:443", TCP)]})
	n.mustMiss(t, "tcp", vip)
}

func TestAnEmptyTableChangesNothing(t *testing.T) {
	n := newNetns(t)
	r := steer(t, Table{})
	n.mustMiss(t, "tcp", vip)
	if got := mustInspect(t, r); len(got.Attached) != 9 || len(got.Rows) != 0 {
		t.Errorf("the report is %+v", got)
	}
}

// traffic connects over and over, until it is stopped.
type traffic struct {
	asked, stop, stopped chan struct{}
	bad                  string
}

func (n *netns) traffic(addr string, wanted ...string) *traffic {
	a := &traffic{asked: make(chan struct{}), stop: make(chan struct{}), stopped: make(chan struct{})}
	go n.do(func() {
		defer close(a.stopped)
		for {
			name, _, err := ask("tcp", addr)
			if err != nil || !slices.Contains(wanted, name) {
				a.bad = fmt.Sprintf("%q answered, with error %v", name, err)
				return
			}
			select {
			case <-a.stop:
				return
			case a.asked <- struct{}{}:
			default:
			}
		}
	})
	return a
}

// during runs f some times, with connections before, meanwhile and after.
func (a *traffic) during(tb testing.TB, times int, f func()) {
	tb.Helper()
	for range times {
		for range 2 {
			select {
			case <-a.asked:
			case <-a.stopped:
				tb.Fatalf("%s; want none to fail or to go astray", a.bad)
			}
		}
		f()
	}
	close(a.stop)
	<-a.stopped
	if a.bad != "" {
		tb.Errorf("%s; want none to fail or to go astray", a.bad)
	}
}

func TestNoConnectionFailsWhileTheTableChanges(t *testing.T) {
	n := newNetns(t)
	a, b, c := n.listen(t, "127.0.0.5:0", "a"), n.listen(t, "127.0.0.6:0", "b"), n.listen(t, "127.0.0.7:0", "c")
	key := front(vip, TCP)
	tables := []Table{
		{key: service("s", a)}, {key: service("s", b, c)}, {key: affine("s", c, a, b)},
		{key: service("s", a, b), front("10.96.0.2:443", TCP): service("s", c)},
	}
	r := steer(t, tables[0])
	i := 0
	n.traffic(vip, "a", "b", "c").during(t, 300, func() {
		i++
		// Sets are removed as soon as may be, not when the grace is over.
		for j := range r.mirror.retired {
			r.mirror.retired[j].since -= grace - 5*time.Millisecond
		}
		mustSync(t, r, tables[i%len(tables)])
	})
}

func TestAnUpgradeDropsNothing(t *testing.T) {
	n := newNetns(t)
	table := Table{front(vip, TCP): both(n.listen(t, "127.0.0.5:0", "local"), n.listen(t, "127.0.0.6:0", "astray"))}
	r := steer(t, table)
	mustRenew(t, r, time.Hour)
	n.traffic(vip, "local").during(t, 20, func() {
		mustClose(t, r)
		r = mustOpen(t, r.options)
		mustSync(t, r, table)
		if err := r.Attach(); err != nil {
			t.Fatal(err)
		}
	})
}

// A table of another size is another table: it is filled before it is used.
func TestAResizedTableDropsNothing(t *testing.T) {
	n := newNetns(t)
	table := Table{front(vip, TCP): both(n.listen(t, "127.0.0.5:0", "local"), n.listen(t, "127.0.0.6:0", "astray"))}
	r := steer(t, table)
	mustRenew(t, r, time.Hour)
	n.traffic(vip, "local").during(t, 4, func() {
		mustClose(t, r)
		o := r.options
		o.MaxFrontends, o.MaxBackends = o.MaxFrontends/2, o.MaxBackends*2
		r = mustOpen(t, o)
		mustSync(t, r, table)
		mustRenew(t, r, time.Hour)
		if err := r.Attach(); err != nil {
			t.Fatal(err)
		}
	})
	dirs, err := filepath.Glob(filepath.Join(r.options.Pins, "tables-*"))
	if err != nil || len(dirs) != 1 {
		t.Errorf("tables are %v, error %v; want one", dirs, err)
	}
	if got := mustInspect(t, r); len(got.Rows) != 1 {
		t.Errorf("the report has %d rows", len(got.Rows))
	}
}

// Translations belong to sockets, which know nothing of sizes.
func TestOpenSocketsSurviveAnUpgrade(t *testing.T) {
	n := newNetns(t)
	table := Table{front("10.96.0.10:53", UDP): service("dns", n.echo(t, "127.0.0.5:0", "dns"))}
	r := steer(t, table)
	s := n.socket(t, 2, 2, 0)
	s.connect(t, "10.96.0.10", 53)
	mustClose(t, r)
	o := r.options
	o.MaxFrontends *= 2
	r = mustOpen(t, o)
	mustSync(t, r, table)
	if err := r.Attach(); err != nil {
		t.Fatal(err)
	}
	s.write(t, "who")
	if got, from := s.recvfrom(t); got != "dns" || from.String() != "10.96.0.10:53" {
		t.Errorf("%s answered from %s", got, from)
	}
}

func TestAFailedAttachLeavesEverythingAsItWas(t *testing.T) {
	n := newNetns(t)
	b := n.listen(t, "127.0.0.5:0", "backend")
	r := steer(t, Table{front(vip, TCP): service("s", b)})
	mustClose(t, r)
	before := attachedPrograms(t, r.options.Pins)

	// The last program cannot be attached: something else has its place.
	last := linkPath(r.options.Pins, programs[len(programs)-1].name)
	aside := filepath.Join(r.options.Pins, "aside")
	if err := os.Rename(last, aside); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(last, 0o700); err != nil {
		t.Fatal(err)
	}
	next := mustOpen(t, r.options)
	if err := next.Attach(); err == nil {
		t.Fatal("attached over a directory")
	}
	if err := errors.Join(os.Remove(last), os.Rename(aside, last)); err != nil {
		t.Fatal(err)
	}
	if after := attachedPrograms(t, r.options.Pins); after != before {
		t.Errorf("programs are %v, were %v", after, before)
	}
	n.mustAsk(t, "tcp", vip, "backend")
	if err := next.Attach(); err != nil {
		t.Fatal(err)
	}
	if after := attachedPrograms(t, r.options.Pins); after == before {
		t.Error("programs were not exchanged")
	}
	n.mustAsk(t, "tcp", vip, "backend")
}

func TestAFailedFirstAttachLeavesNothingAttached(t *testing.T) {
	n := newNetns(t)
	o := Options{Pins: pinsIn(t), Cgroup: lab}
	r := mustOpen(t, o)
	mustSync(t, r, Table{front(vip, TCP): service("s")})
	last := linkPath(o.Pins, programs[len(programs)-1].name)
	if err := os.Mkdir(last, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := r.Attach(); err == nil {
		t.Fatal("attached over a directory")
	}
	if err := os.Remove(last); err != nil {
		t.Fatal(err)
	}
	if got := attachedPrograms(t, o.Pins); got != [9]ebpf.ProgramID{} {
		t.Errorf("programs are %v, want none", got)
	}
	n.mustMiss(t, "tcp", vip)
}

func attachedPrograms(tb testing.TB, pins string) (ids [9]ebpf.ProgramID) {
	tb.Helper()
	for i, p := range programs {
		l, err := link.LoadPinnedLink(linkPath(pins, p.name), nil)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			tb.Fatal(err)
		}
		info, err := l.Info()
		if err != nil {
			tb.Fatal(err)
		}
		ids[i] = info.Program
		l.Close()
	}
	return ids
}

func TestAnotherCgroupIsMovedTo(t *testing.T) {
	n := newNetns(t)
	b := n.listen(t, "127.0.0.5:0", "backend")
	dir, _ := newCgroup(t, lab, "narrow")
	gone := filepath.Join(lab, "gone")
	if err := os.Mkdir(gone, 0o700); err != nil {
		t.Fatal(err)
	}
	o := Options{Pins: pinsIn(t), Cgroup: gone}
	for _, cgroup := range []string{gone, dir, lab} {
		o.Cgroup = cgroup
		r := mustOpen(t, o)
		mustSync(t, r, Table{front(vip, TCP): service("s", b)})
		if err := r.Attach(); err != nil {
			t.Fatal(err)
		}
		if cgroup == gone {
			if err := os.Remove(gone); err != nil {
				t.Fatal(err)
			}
		}
		if cgroup == dir {
			n.mustMiss(t, "tcp", vip)
			if got := n.inCgroup(t, dir, "tcp", vip); got != "backend" {
				t.Errorf("%s answered in the cgroup", got)
			}
		}
		mustClose(t, r)
	}
	n.mustAsk(t, "tcp", vip, "backend")
}

func TestOnlyOneProcessSteers(t *testing.T) {
	r := steer(t, Table{})
	if _, err := Open(r.options); !errors.Is(err, ErrLocked) {
		t.Errorf("opening again: %v, want ErrLocked", err)
	}
	if err := Uninstall(r.options.Pins); !errors.Is(err, ErrLocked) {
		t.Errorf("uninstalling: %v, want ErrLocked", err)
	}
	mustClose(t, r)
	mustOpen(t, r.options)
}

func TestUninstallLeavesNothing(t *testing.T) {
	n := newNetns(t)
	r := steer(t, Table{front(vip, TCP): service("s", n.listen(t, "127.0.0.5:0", "backend"))})
	mustClose(t, r)
	n.mustAsk(t, "tcp", vip, "backend")
	if err := Uninstall(r.options.Pins); err != nil {
		t.Fatal(err)
	}
	n.mustMiss(t, "tcp", vip)
	if _, err := os.Stat(r.options.Pins); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the pins are still there: %v", err)
	}
	if got := allAttached(t, lab); len(got) != 0 {
		t.Errorf("still attached: %v", got)
	}
	if err := Uninstall(r.options.Pins); !errors.Is(err, ErrNotInstalled) {
		t.Errorf("uninstalling again: %v, want ErrNotInstalled", err)
	}
	if _, err := Inspect(r.options.Pins); !errors.Is(err, ErrNotInstalled) {
		t.Errorf("inspecting: %v, want ErrNotInstalled", err)
	}
}

func allAttached(tb testing.TB, cgroup string) []string {
	tb.Helper()
	dir, err := os.Open(cgroup)
	if err != nil {
		tb.Fatal(err)
	}
	defer dir.Close()
	var found []string
	for _, p := range programs {
		got, err := link.QueryPrograms(link.QueryOptions{Target: int(dir.Fd()), Attach: p.attach})
		if err != nil {
			tb.Fatal(err)
		}
		for _, a := range got.Programs {
			found = append(found, p.name+" "+programName(a.ID))
		}
	}
	return found
}

func TestAFullTableSaysSo(t *testing.T) {
	b := netip.MustParseAddrPort("127.0.0.5:1")
	r := mustOpen(t, Options{Pins: pinsIn(t), Cgroup: lab, MaxFrontends: 2, MaxBackends: 4})
	two := Table{front("10.96.0.1:1", TCP): service("a", b), front("10.96.0.2:1", TCP): service("b", b)}
	three := Table{front("10.96.0.3:1", TCP): service("c", b)}
	maps.Copy(three, two)
	if _, err := r.Sync(three); !errors.Is(err, ErrFull) {
		t.Errorf("three frontends for two: %v, want ErrFull", err)
	}
	var many []netip.AddrPort
	for port := range 5 {
		many = append(many, netip.AddrPortFrom(b.Addr(), uint16(port+1)))
	}
	// However often that is tried, there is room for what fits.
	for range 3 {
		if _, err := r.Sync(Table{front("10.96.0.1:1", TCP): service("a", many...)}); !errors.Is(err, ErrFull) {
			t.Errorf("five backends for four: %v, want ErrFull", err)
		}
	}
	mustSync(t, r, two)
	mustSync(t, r, Table{front("10.96.0.1:1", TCP): service("a", many[:3]...)})
}

func TestUnsuitablePlacesAreRefused(t *testing.T) {
	needKernel(t)
	dir := t.TempDir()
	if _, err := Open(Options{Pins: filepath.Join(dir, "not", "there"), Cgroup: lab}); !errors.Is(err, ErrNoPins) {
		t.Errorf("pins on another file system: %v, want ErrNoPins", err)
	}
	if _, err := Open(Options{Pins: pinsIn(t), Cgroup: dir}); !errors.Is(err, ErrNoCgroup) {
		t.Errorf("another directory as cgroup: %v, want ErrNoCgroup", err)
	}
}

func TestAChangeLeavesTheRestAsItIs(t *testing.T) {
	n := newNetns(t)
	a, b := n.listen(t, "127.0.0.5:0", "a"), n.listen(t, "127.0.0.6:0", "b")
	// Both share a set, which has to outlive that one of them leaves it.
	one, other := front(vip, TCP), front("10.96.0.2:443", TCP)
	r := steer(t, Table{one: service("one", a), other: service("other", a)})
	change := func(t *testing.T, want Stats, table Table) {
		t.Helper()
		got, err := r.Change(table)
		if err != nil {
			t.Fatal(err)
		}
		if got.Calls = 0; got != want {
			t.Errorf("the change was %+v, want %+v", got, want)
		}
	}
	change(t, Stats{Frontends: 1, Backends: 1}, Table{one: service("one", b)})
	if diff := cmp.Diff([]Departure{{Owner: "one", Backend: Frontend{a, TCP}}}, r.Left(), cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
		t.Errorf("who has left differs (-want +got):\n%s", diff)
	}
	n.mustAsk(t, "tcp", vip, "b")
	n.mustAsk(t, "tcp", "10.96.0.2:443", "a")
	change(t, Stats{}, Table{one: service("one", b)})
	change(t, Stats{}, nil)
	change(t, Stats{Frontends: 1}, Table{front("10.96.0.3:443", TCP): service("new", b)})
	n.mustAsk(t, "tcp", "10.96.0.3:443", "b")
	n.mustAsk(t, "tcp", "10.96.0.2:443", "a")
}

// Another version may want other tables: it fills its own before its programs
// take the place of those that are there, whose tables go then.
func TestAnotherSchemaIsReplacedWithoutAGap(t *testing.T) {
	n := newNetns(t)
	table := Table{front(vip, TCP): both(n.listen(t, "127.0.0.5:0", "local"), n.listen(t, "127.0.0.6:0", "astray"))}
	r := steer(t, table)
	mustRenew(t, r, time.Hour)
	n.traffic(vip, "local").during(t, 3, func() {
		mustClose(t, r)
		old := filepath.Join(r.options.Pins, "tables-0-1x1")
		if err := errors.Join(os.Rename(r.tables(), old), os.Rename(r.sockets(), filepath.Join(r.options.Pins, "sockets-0"))); err != nil {
			t.Fatal(err)
		}
		if _, err := Inspect(r.options.Pins); !errors.Is(err, ErrNotInstalled) || strings.Contains(err.Error(), "\n") {
			t.Errorf("inspecting what another version left: %v", err)
		}
		r = mustOpen(t, r.options)
		mustSync(t, r, table)
		mustRenew(t, r, time.Hour)
		if err := r.Attach(); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(old); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the tables of the other version are still there: %v", err)
		}
	})
}
