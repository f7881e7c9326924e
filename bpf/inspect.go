package bpf

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// A Report is what the kernel holds at a moment.
type Report struct {
	// Attached are the names of the programs that answer at the moment.
	Attached []string
	// Lease is how much longer leased policies count; it is negative when they
	// do no longer.
	Lease    time.Duration
	Settings Settings
	// Rows are sorted by address.
	Rows []Row
	// Affinity is which backends are remembered for clients.
	Affinity []Choice
}

// A Row is a destination, what becomes of it, and how often it was named.
type Row struct {
	Frontend Frontend
	Entry    Entry
	Counts   Counts
}

// Counts are verdicts since the row was made. Datagrams of unconnected sockets
// count one by one.
type Counts struct {
	Policy, Service uint64 // translated by one of the layers
	Refused         uint64
	Passed          uint64 // left as they were
	Lapsed          uint64 // the policy's lease had run out
	Exempt          uint64 // the policy was not for the client
}

// A Choice is a backend that is remembered for a client of a layer's owner.
type Choice struct {
	// Client is a cookie of a network namespace, or the number of a cgroup.
	Client uint64
	// Owner and Backend are the numbers of [Layer.Owner] and of a backend.
	Owner, Backend uint32
	// Age is how long ago the client last connected.
	Age time.Duration
}

// Inspect reads what is installed under pins; empty means [DefaultPins]. It
// disturbs nobody, and may be called while another process steers. It returns
// [ErrNotInstalled] if there is nothing.
func Inspect(pins string) (*Report, error) {
	if pins == "" {
		pins = DefaultPins
	}
	o, _, err := openPinned(pins)
	if err != nil {
		return nil, fmt.Errorf("inspect %s: %w", pins, err)
	}
	defer o.Close()
	r := &Report{}
	for _, p := range programs {
		if attached, err := isAttached(linkPath(pins, p.name)); err != nil {
			return nil, fmt.Errorf("inspect %s: %w", pins, err)
		} else if attached {
			r.Attached = append(r.Attached, p.name)
		}
	}
	return r, r.read(o)
}

func isAttached(path string) (bool, error) {
	l, err := link.LoadPinnedLink(path, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer l.Close()
	info, err := l.Info()
	return err == nil && info.Cgroup() != nil && info.Cgroup().CgroupId != 0, err
}

// openPinned opens the maps that the attached programs use, and returns where they
// are pinned.
func openPinned(pins string) (*redirectMaps, string, error) {
	ids, err := usedMaps(linkPath(pins, "connect4"))
	if err != nil {
		return nil, "", err
	}
	dirs, err := filepath.Glob(filepath.Join(pins, fmt.Sprintf("tables-%d-*", schema)))
	if err != nil {
		return nil, "", err
	}
	for _, dir := range dirs {
		o := &redirectMaps{}
		if err := o.open(dir, filepath.Join(pins, fmt.Sprintf("sockets-%d", schema))); err != nil {
			return nil, "", errors.Join(err, o.Close())
		}
		info, err := o.Frontends.Info()
		if err != nil {
			return nil, "", errors.Join(err, o.Close())
		}
		if id, _ := info.ID(); slices.Contains(ids, id) {
			return o, dir, nil
		}
		o.Close()
	}
	return nil, "", fmt.Errorf("%w: programs of another version of Portico are attached", ErrNotInstalled)
}

func usedMaps(path string) ([]ebpf.MapID, error) {
	l, err := link.LoadPinnedLink(path, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotInstalled
	}
	if err != nil {
		return nil, err
	}
	defer l.Close()
	attached, err := l.Info()
	if err != nil {
		return nil, err
	}
	p, err := ebpf.NewProgramFromID(attached.Program)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil {
		return nil, err
	}
	ids, _ := info.MapIDs()
	return ids, nil
}

func (m *redirectMaps) open(tables, sockets string) error {
	for name, to := range map[string]**ebpf.Map{
		"frontends": &m.Frontends, "backends": &m.Backends, "members": &m.Members, "counts": &m.Counts,
		"classes": &m.Classes, "owners": &m.Owners, "settings": &m.Settings, "lease": &m.Lease, "affinity": &m.Affinity,
	} {
		dir := tables
		if ofSockets[name] {
			dir = sockets
		}
		var err error
		if *to, err = ebpf.LoadPinnedMap(filepath.Join(dir, name), &ebpf.LoadPinOptions{ReadOnly: true}); err != nil {
			return err
		}
	}
	return nil
}

func (r *Report) read(m *redirectMaps) error {
	at, err := now()
	if err != nil {
		return err
	}
	var until uint64
	if err := m.Lease.Lookup(zero, &until); err != nil {
		return fmt.Errorf("read lease: %w", err)
	}
	r.Lease = time.Duration(until) - at
	if err := r.readSettings(m); err != nil {
		return err
	}
	if err := r.readRows(m); err != nil {
		return err
	}
	err = each(m.Affinity, func(k redirectClient, v redirectChoice) {
		r.Affinity = append(r.Affinity, Choice{
			Client: k.Id, Owner: k.Owner, Backend: v.Backend, Age: at - time.Duration(v.At),
		})
	})
	return err
}

func (r *Report) readSettings(m *redirectMaps) error {
	var s redirectSettings
	if err := m.Settings.Lookup(zero, &s); err != nil {
		return fmt.Errorf("read settings: %w", err)
	}
	r.Settings = Settings{Mark: s.Mark, Sample: s.Sample}
	return each(m.Classes, func(k redirectClass, _ uint32) {
		if k.Class == exemptClass {
			r.Settings.Exempt = append(r.Settings.Exempt, k.Cgroup)
		}
	})
}

func (r *Report) readRows(m *redirectMaps) error {
	known, err := readMirror(m)
	if err != nil {
		return err
	}
	for f, row := range known.rows {
		var c redirectCounters
		if err := m.Counts.Lookup(row.Id, &c); err != nil {
			return fmt.Errorf("read counters: %w", err)
		}
		r.Rows = append(r.Rows, Row{
			Frontend: f,
			Entry: Entry{
				Policy:  known.layer(row.Policy),
				Service: known.layer(row.Service),
			},
			Counts: Counts{c.Policy, c.Service, c.Refused, c.Passed, c.Lapsed, c.Exempt},
		})
	}
	slices.SortFunc(r.Rows, func(a, b Row) int {
		return cmp.Or(a.Frontend.Compare(b.Frontend.AddrPort), cmp.Compare(a.Frontend.Protocol, b.Frontend.Protocol))
	})
	return nil
}

// layer turns a row's layer back into what was asked for.
func (m *mirror) layer(l redirectLayer) *Layer {
	if l.Flags&redirectLayerFlagPRESENT == 0 {
		return nil
	}
	out := &Layer{
		Owner:     m.ownerOf(l.Owner),
		Affinity:  time.Duration(l.Affinity) * time.Second,
		HostOnly:  l.Flags&redirectLayerFlagHOST_ONLY != 0,
		PerCgroup: l.Flags&redirectLayerFlagBY_CGROUP != 0,
		Leased:    l.Flags&redirectLayerFlagLEASED != 0,
		Strict:    l.Flags&redirectLayerFlagSTRICT != 0,
	}
	if s := m.byID[l.Set]; s != nil {
		for _, b := range s.backends {
			out.Backends = append(out.Backends, b.Address.frontend().AddrPort)
		}
	}
	for id, to := range map[uint32]*[]uint64{l.Clients: &out.Clients, l.Except: &out.Except} {
		if c := m.classByID(id); c != nil {
			*to = c.cgroups
		}
	}
	return out
}

func (m *mirror) ownerOf(id uint32) string {
	if o := m.owners[id]; o != nil {
		return o.text
	}
	return fmt.Sprintf("%08x", id)
}

// OwnerNumber is the number of a layer's owner in a [Report].
func OwnerNumber(owner string) uint32 { return number(owner) }

// BackendNumber is the number of a backend in a [Choice].
func BackendNumber(a netip.AddrPort) uint32 { return backendID(a) }

// Counts returns the counters of every destination in the table.
func (r *Redirector) Counts() (map[Frontend]Counts, error) {
	all := make(map[Frontend]Counts, len(r.mirror.rows))
	for f := range maps.Keys(r.mirror.rows) {
		var c redirectCounters
		if err := r.objects.Counts.Lookup(r.mirror.rows[f].Id, &c); err != nil {
			return nil, fmt.Errorf("read counters: %w", err)
		}
		all[f] = Counts{c.Policy, c.Service, c.Refused, c.Passed, c.Lapsed, c.Exempt}
	}
	return all, nil
}
