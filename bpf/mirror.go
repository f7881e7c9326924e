package bpf

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/cilium/ebpf"
)

// A mirror knows what the kernel's table holds, so that a change costs what has
// changed. It is read from the kernel once, when the table is opened.
type mirror struct {
	rows    map[Frontend]redirectFrontend
	sets    map[string]*set
	byID    map[uint32]*set
	classes map[string]*class
	owners  map[uint32]*ownerName
	retired []retired

	// What has lost its last user since it was last looked for.
	idleSets    []*set
	idleClasses []*class
	idleOwners  []uint32

	lastSet   uint32
	lastClass uint32
	lastRow   uint32
	freeRows  []uint32
}

// A set is the backends of a layer. It never changes and is shared by the layers
// that look alike.
type set struct {
	id       uint32
	key      string
	addrs    []netip.AddrPort
	backends []redirectBackend
	members  bool
	users    int
}

// A class is a number of cgroups. Like a set, it never changes.
type class struct {
	id      uint32
	key     string
	cgroups []uint64
	users   int
}

// An ownerName is kept for people.
type ownerName struct {
	text  string
	users int
}

// What is retired has no users left, but perhaps a reader that copied its row
// just before.
type retired struct {
	set   *set
	class *class
	since time.Duration
}

func readMirror(maps *redirectMaps) (*mirror, error) {
	m := &mirror{
		rows: map[Frontend]redirectFrontend{}, sets: map[string]*set{},
		byID: map[uint32]*set{}, classes: map[string]*class{}, owners: map[uint32]*ownerName{},
	}
	for _, read := range []func(*redirectMaps) error{m.readSets, m.readClasses, m.readOwners, m.readRows} {
		if err := read(maps); err != nil {
			return nil, fmt.Errorf("read table from the kernel: %w", err)
		}
	}
	return m, nil
}

// each calls visit for every element of a map that nobody else changes.
func each[K, V any](m *ebpf.Map, visit func(K, V)) error {
	const atOnce = 4096
	var cursor ebpf.MapBatchCursor
	keys, values := make([]K, atOnce), make([]V, atOnce)
	for {
		n, err := m.BatchLookup(&cursor, keys, values, nil)
		for i := range n {
			visit(keys[i], values[i])
		}
		switch {
		case isEnd(err):
			return nil
		case err != nil:
			return err
		}
	}
}

func (m *mirror) readSets(maps *redirectMaps) error {
	remembered := map[uint32]bool{}
	err := each(maps.Members, func(k redirectMember, _ uint32) { remembered[k.Set] = true })
	if err != nil {
		return err
	}
	err = each(maps.Backends, func(k redirectSlot, b redirectBackend) {
		s := m.byID[k.Set]
		if s == nil {
			s = &set{id: k.Set, members: remembered[k.Set]}
			m.byID[k.Set] = s
			m.lastSet = max(m.lastSet, k.Set)
		}
		s.backends = append(s.backends, slices.Repeat([]redirectBackend{{}}, max(0, int(k.Index)+1-len(s.backends)))...)
		s.backends[k.Index] = b
	})
	for _, s := range m.byID {
		s.key = s.fill()
		m.sets[s.key] = s
	}
	return err
}

// fill computes what is not in the kernel, and returns the key.
func (s *set) fill() string {
	s.addrs = make([]netip.AddrPort, len(s.backends))
	for i, b := range s.backends {
		s.addrs[i] = b.Address.frontend().AddrPort
	}
	protocol := Protocol(s.backends[0].Address.Protocol)
	return setKey(s.addrs, protocol, s.members)
}

func (m *mirror) readClasses(maps *redirectMaps) error {
	byID := map[uint32]*class{}
	err := each(maps.Classes, func(k redirectClass, _ uint32) {
		if k.Class == exemptClass {
			return
		}
		c := byID[k.Class]
		if c == nil {
			c = &class{id: k.Class}
			byID[k.Class] = c
			m.lastClass = max(m.lastClass, k.Class)
		}
		c.cgroups = append(c.cgroups, k.Cgroup)
	})
	for _, c := range byID {
		c.cgroups = sortedCgroups(c.cgroups)
		c.key = classKey(c.cgroups)
		m.classes[c.key] = c
	}
	return err
}

func (m *mirror) readOwners(maps *redirectMaps) error {
	return each(maps.Owners, func(k uint32, v redirectName) {
		text, _, _ := bytes.Cut(v.Text[:], []byte{0})
		m.owners[k] = &ownerName{text: string(text)}
	})
}

// readRows counts the users of what readSets and readClasses have found; the
// rest is left over from a process that died, and is retired.
func (m *mirror) readRows(maps *redirectMaps) error {
	used := map[uint32]bool{}
	err := each(maps.Frontends, func(k redirectAddress, row redirectFrontend) {
		m.rows[k.frontend()] = row
		used[row.Id] = true
		m.lastRow = max(m.lastRow, row.Id+1)
		m.count(row, 1)
	})
	for id := range m.lastRow {
		if !used[id] {
			m.freeRows = append(m.freeRows, id)
		}
	}
	at, clockErr := now()
	if err == nil {
		err = clockErr
	}
	for _, s := range m.byID {
		if s.users == 0 {
			m.idleSets = append(m.idleSets, s)
		}
	}
	for _, c := range m.classes {
		if c.users == 0 {
			m.idleClasses = append(m.idleClasses, c)
		}
	}
	m.retireIdle(at)
	return err
}

// count adds n users to whatever a row refers to.
func (m *mirror) count(row redirectFrontend, n int) {
	for _, l := range []redirectLayer{row.Policy, row.Service} {
		if s := m.byID[l.Set]; s != nil {
			if s.users += n; s.users == 0 {
				m.idleSets = append(m.idleSets, s)
			}
		}
		for _, id := range []uint32{l.Clients, l.Except} {
			if c := m.classByID(id); c != nil {
				if c.users += n; c.users == 0 {
					m.idleClasses = append(m.idleClasses, c)
				}
			}
		}
		if o := m.owners[l.Owner]; o != nil && l.Flags&redirectLayerFlagPRESENT != 0 {
			if o.users += n; o.users == 0 {
				m.idleOwners = append(m.idleOwners, l.Owner)
			}
		}
	}
}

func (m *mirror) classByID(id uint32) *class {
	if id == 0 {
		return nil
	}
	for _, c := range m.classes {
		if c.id == id {
			return c
		}
	}
	return nil
}

// retireIdle takes what still has no users out of what can be used again.
func (m *mirror) retireIdle(at time.Duration) {
	for _, s := range m.idleSets {
		if s.users == 0 && m.byID[s.id] == s {
			delete(m.byID, s.id)
			if m.sets[s.key] == s {
				delete(m.sets, s.key)
			}
			m.retired = append(m.retired, retired{set: s, since: at})
		}
	}
	for _, c := range m.idleClasses {
		if c.users == 0 && m.classes[c.key] == c {
			delete(m.classes, c.key)
			m.retired = append(m.retired, retired{class: c, since: at})
		}
	}
	m.idleSets, m.idleClasses = nil, nil
}
