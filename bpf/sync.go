package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/cilium/ebpf"
)

// grace is how long a set outlives its last row. A reader is done with a row
// within microseconds, unless its processor is taken from it.
const grace = 2 * time.Second

// exemptClass holds the cgroups that policies are not for at all.
const exemptClass = 0

// Stats counts what a sync has done to the kernel's maps.
type Stats struct {
	// Frontends, Backends and Deleted are elements written and removed.
	Frontends, Backends, Deleted int
	// Calls are system calls.
	Calls int
}

// A Departure is a backend that no new connection goes to by the word of an
// owner.
type Departure struct {
	Owner   string
	Backend Frontend
}

// Sync makes the kernel's table look like t. Each destination changes at one
// moment from what it was to what it is to be; what has not changed is not
// written. After an error, some destinations have changed and others have not;
// calling Sync again completes it.
func (r *Redirector) Sync(t Table) (Stats, error) {
	return r.write(t, (*syncer).deleteRows)
}

// Change makes the destinations of t look like t, and leaves all others what they
// are: it costs what is in t, and not what is in the table. Otherwise it does
// what Sync does.
func (r *Redirector) Change(t Table) (Stats, error) {
	return r.write(t, func(*syncer, Table) error { return nil })
}

func (r *Redirector) write(t Table, prune func(*syncer, Table) error) (Stats, error) {
	s := syncer{maps: &r.objects.redirectMaps, mirror: r.mirror}
	err := s.run(t, prune)
	r.left = s.left
	if err != nil {
		err = fmt.Errorf("write table to the kernel: %w", explain(err))
	}
	return s.stats, err
}

// Left returns the backends that some destination lost in the last Sync
// or Change.
func (r *Redirector) Left() []Departure { return r.left }

// A syncer is one run of Sync or Change.
type syncer struct {
	maps   *redirectMaps
	mirror *mirror
	stats  Stats
	left   []Departure

	// What is to be written, by order of writing: a row comes after what it
	// refers to.
	newSets []*set
	owners  []uint32
	names   []redirectName
	keys    []redirectAddress
	rows    []redirectFrontend
	fronts  []Frontend
}

func (s *syncer) run(t Table, prune func(*syncer, Table) error) error {
	if err := s.collect(); err != nil {
		return err
	}
	if err := prune(s, t); err != nil {
		return err
	}
	if err := s.plan(t); err != nil {
		return s.giveUp(err)
	}
	if err := s.writeSets(); err != nil {
		return s.giveUp(err)
	}
	if err := s.writeRows(); err != nil {
		return s.giveUp(err)
	}
	return s.retire()
}

// plan finds the rows that differ, and gives them what they refer to.
func (s *syncer) plan(t Table) error {
	for f, e := range t {
		before, known := s.mirror.rows[f]
		key := addressOf(f.AddrPort, f.Protocol)
		row, err := s.row(f, key.tag(), e, before)
		if err != nil {
			return err
		}
		row.Id = before.Id
		if known && row == before {
			continue
		}
		if !known {
			if row.Id, err = s.newRow(); err != nil {
				return err
			}
		}
		s.keys, s.rows, s.fronts = append(s.keys, key), append(s.rows, row), append(s.fronts, f)
	}
	return nil
}

func (s *syncer) row(f Frontend, tag uint32, e Entry, before redirectFrontend) (redirectFrontend, error) {
	row := redirectFrontend{Tag: tag, TagEnd: tag}
	var err error
	if row.Policy, err = s.layer(f, e.Policy, before.Policy); err != nil {
		return row, err
	}
	row.Service, err = s.layer(f, e.Service, before.Service)
	return row, err
}

func (s *syncer) layer(f Frontend, l *Layer, before redirectLayer) (redirectLayer, error) {
	if l == nil {
		return redirectLayer{}, nil
	}
	s.owner(l.Owner)
	out := redirectLayer{
		Flags:    l.flags(),
		Affinity: uint32(l.Affinity / time.Second),
		Owner:    number(l.Owner),
		Count:    uint32(len(l.Backends)),
	}
	if len(l.Backends) > 0 {
		out.Set = s.set(f, l, before.Set).id
	}
	if len(l.Backends) == 1 {
		out.Only = addressOf(l.Backends[0], f.Protocol)
	}
	var err error
	if out.Clients, err = s.class(l.Clients); err != nil {
		return out, err
	}
	if len(l.Except) > 0 {
		out.Except, err = s.class(l.Except)
	}
	return out, err
}

func (l *Layer) flags() redirectLayerFlag {
	flags := redirectLayerFlagPRESENT
	if l.Leased {
		flags |= redirectLayerFlagLEASED
	}
	if l.Strict {
		flags |= redirectLayerFlagSTRICT
	}
	if l.PerCgroup {
		flags |= redirectLayerFlagBY_CGROUP
	}
	if l.HostOnly {
		flags |= redirectLayerFlagHOST_ONLY
	}
	return flags
}

// set returns the set of a layer's backends, which may be one to be written. It is
// most often the one from before.
func (s *syncer) set(f Frontend, l *Layer, before uint32) *set {
	if b := s.mirror.byID[before]; b != nil && b.members == l.needsMembers(f.Protocol) && slices.Equal(b.addrs, l.Backends) {
		return b
	}
	key := setKey(l.Backends, f.Protocol, l.needsMembers(f.Protocol))
	if known := s.mirror.sets[key]; known != nil {
		return known
	}
	s.mirror.lastSet++
	made := &set{id: s.mirror.lastSet, key: key, addrs: slices.Clone(l.Backends), members: l.needsMembers(f.Protocol)}
	for _, b := range l.Backends {
		made.backends = append(made.backends, redirectBackend{
			Address: addressOf(b, f.Protocol), Id: backendID(b), Set: made.id,
		})
	}
	s.mirror.sets[key], s.mirror.byID[made.id] = made, made
	s.newSets = append(s.newSets, made)
	return made
}

// owner keeps the name of an owner for people.
func (s *syncer) owner(text string) {
	id := number(text)
	if s.mirror.owners[id] != nil {
		return
	}
	var n redirectName
	copy(n.Text[:len(n.Text)-1], text)
	s.mirror.owners[id] = &ownerName{text: text}
	s.owners, s.names = append(s.owners, id), append(s.names, n)
}

// class returns the number of the class of some cgroups, which is written at
// once: there are few.
func (s *syncer) class(cgroups []uint64) (uint32, error) {
	if cgroups == nil {
		return 0, nil
	}
	cgroups = sortedCgroups(cgroups)
	key := classKey(cgroups)
	if known := s.mirror.classes[key]; known != nil {
		return known.id, nil
	}
	s.mirror.lastClass++
	made := &class{id: s.mirror.lastClass, key: key, cgroups: cgroups}
	for _, cgroup := range cgroups {
		s.stats.Calls++
		if err := s.maps.Classes.Put(redirectClass{Cgroup: cgroup, Class: made.id}, uint32(1)); err != nil {
			return 0, errors.Join(fmt.Errorf("put cgroup: %w", err), s.deleteClass(made))
		}
	}
	s.mirror.classes[key] = made
	return made.id, nil
}

func (s *syncer) newRow() (uint32, error) {
	m := s.mirror
	id := m.lastRow
	if n := len(m.freeRows); n > 0 {
		id, m.freeRows = m.freeRows[n-1], m.freeRows[:n-1]
		s.stats.Calls++
		if err := s.maps.Counts.Put(id, redirectCounters{}); err != nil {
			return 0, fmt.Errorf("reset counters: %w", err)
		}
		return id, nil
	}
	if id >= s.maps.Counts.MaxEntries() {
		return 0, fmt.Errorf("%w: it has room for %d frontends", ErrFull, id)
	}
	m.lastRow++
	return id, nil
}

func (s *syncer) writeSets() error {
	var slots []redirectSlot
	var backends []redirectBackend
	var members []redirectMember
	var indexes []uint32
	for _, made := range s.newSets {
		for i, b := range made.backends {
			slots, backends = append(slots, redirectSlot{Set: made.id, Index: uint32(i)}), append(backends, b)
			if made.members {
				members, indexes = append(members, redirectMember{Set: made.id, Backend: b.Id}), append(indexes, uint32(i))
			}
		}
	}
	if _, err := put(s, s.maps.Backends, slots, backends); err != nil {
		return fmt.Errorf("put %d backends: %w", len(slots), err)
	}
	if _, err := put(s, s.maps.Members, members, indexes); err != nil {
		return fmt.Errorf("put %d members: %w", len(members), err)
	}
	s.stats.Backends = len(slots)
	return nil
}

func (s *syncer) writeRows() error {
	if _, err := put(s, s.maps.Owners, s.owners, s.names); err != nil {
		return fmt.Errorf("put %d names: %w", len(s.owners), err)
	}
	n, err := put(s, s.maps.Frontends, s.keys, s.rows)
	s.stats.Frontends = n
	for i, f := range s.fronts[:n] {
		s.depart(f, s.mirror.rows[f], s.rows[i])
		s.mirror.count(s.mirror.rows[f], -1)
		s.mirror.count(s.rows[i], 1)
		s.mirror.rows[f] = s.rows[i]
	}
	if err != nil {
		return fmt.Errorf("put %d frontends: %w", len(s.keys), err)
	}
	return nil
}

func (s *syncer) deleteRows(t Table) error {
	for f, row := range s.mirror.rows {
		if _, wanted := t[f]; wanted {
			continue
		}
		if err := s.delete(s.maps.Frontends, addressOf(f.AddrPort, f.Protocol)); err != nil {
			return fmt.Errorf("delete frontend %s: %w", f, err)
		}
		s.depart(f, row, redirectFrontend{})
		s.mirror.count(row, -1)
		s.mirror.freeRows = append(s.mirror.freeRows, row.Id)
		delete(s.mirror.rows, f)
	}
	return nil
}

// depart notes which backends a row has lost.
func (s *syncer) depart(f Frontend, before, after redirectFrontend) {
	for _, l := range [][2]redirectLayer{{before.Policy, after.Policy}, {before.Service, after.Service}} {
		old, next := s.mirror.byID[l[0].Set], s.mirror.byID[l[1].Set]
		if old == nil || old == next {
			continue
		}
		stays := map[netip.AddrPort]bool{}
		if next != nil {
			for _, a := range next.addrs {
				stays[a] = true
			}
		}
		owner := s.mirror.ownerOf(l[0].Owner)
		for _, a := range old.addrs {
			if !stays[a] {
				s.left = append(s.left, Departure{owner, Frontend{a, f.Protocol}})
			}
		}
	}
}

// retire remembers since when sets and classes have no users.
func (s *syncer) retire() error {
	at, err := now()
	if err != nil {
		return err
	}
	s.mirror.retireIdle(at)
	for _, id := range s.mirror.idleOwners {
		if o := s.mirror.owners[id]; o != nil && o.users == 0 {
			delete(s.mirror.owners, id)
			if err := s.delete(s.maps.Owners, id); err != nil {
				return fmt.Errorf("delete name: %w", err)
			}
		}
	}
	s.mirror.idleOwners = nil
	return nil
}

// collect removes what has been retired for long enough.
func (s *syncer) collect() error {
	at, err := now()
	if err != nil {
		return err
	}
	for len(s.mirror.retired) > 0 && at-s.mirror.retired[0].since >= grace {
		old := s.mirror.retired[0]
		if old.set != nil {
			err = s.deleteSet(old.set)
		} else {
			err = s.deleteClass(old.class)
		}
		if err != nil {
			return err
		}
		s.mirror.retired = s.mirror.retired[1:]
	}
	return nil
}

func (s *syncer) deleteSet(old *set) error {
	for i, b := range old.backends {
		if err := s.delete(s.maps.Backends, redirectSlot{Set: old.id, Index: uint32(i)}); err != nil {
			return fmt.Errorf("delete backend: %w", err)
		}
		if !old.members {
			continue
		}
		if err := s.delete(s.maps.Members, redirectMember{Set: old.id, Backend: b.Id}); err != nil {
			return fmt.Errorf("delete member: %w", err)
		}
	}
	return nil
}

func (s *syncer) deleteClass(old *class) error {
	for _, cgroup := range old.cgroups {
		if err := s.delete(s.maps.Classes, redirectClass{Cgroup: cgroup, Class: old.id}); err != nil {
			return fmt.Errorf("delete cgroup: %w", err)
		}
	}
	return nil
}

// giveUp leaves nothing behind that a failed sync has begun, lest trying again
// fills the table with it.
func (s *syncer) giveUp(err error) error {
	for i, f := range s.fronts {
		if _, written := s.mirror.rows[f]; !written {
			s.mirror.freeRows = append(s.mirror.freeRows, s.rows[i].Id)
		}
	}
	for _, id := range s.owners {
		delete(s.mirror.owners, id)
	}
	for _, made := range s.newSets {
		if made.users > 0 {
			continue
		}
		delete(s.mirror.sets, made.key)
		delete(s.mirror.byID, made.id)
		err = errors.Join(err, s.deleteSet(made))
	}
	return err
}

func (s *syncer) delete(m *ebpf.Map, key any) error {
	s.stats.Calls++
	err := m.Delete(key)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil
	}
	s.stats.Deleted++
	return err
}

// put writes many elements with one system call, and returns how many of the
// first were written.
func put[K, V any](s *syncer, m *ebpf.Map, keys []K, values []V) (int, error) {
	if len(keys) == 0 {
		return 0, nil
	}
	s.stats.Calls++
	return m.BatchUpdate(keys, values, nil)
}

func sortedCgroups(ids []uint64) []uint64 {
	return slices.Compact(slices.Sorted(slices.Values(ids)))
}

func classKey(ids []uint64) string {
	var key []byte
	for _, id := range ids {
		key = binary.NativeEndian.AppendUint64(key, id)
	}
	return string(key)
}
