// Package bpf steers the connections of a node as the table it is given says,
// with programs that it attaches to a cgroup, and undoes it completely. It
// decides nothing.
package bpf

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
)

// Compiling needs clang and nothing else. BPF2GO_CC and BPF2GO_STRIP name
// another clang and llvm-strip. What is generated is committed, so that building
// needs neither; the sums say of which source.
//
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -type layer -type event -type layer_flag -type verdict redirect redirect.c -- -O2 -g -mcpu=v3 -Wall -Werror
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -type ended end end.c -- -O2 -g -mcpu=v3 -Wall -Werror
//go:generate sh -c "sha256sum end.c kernel.h redirect.c socket.h > redirect.sha256"

var (
	// ErrNotSupported says that the kernel lacks something the programs need. The
	// error that wraps it names the thing.
	ErrNotSupported = errors.New("not supported by this kernel")

	// ErrNoCgroup says that there is no cgroup2 hierarchy where one is looked
	// for.
	ErrNoCgroup = errors.New("no cgroup2 hierarchy")

	// ErrNoPins says that the directory for pins is not on a BPF file system.
	ErrNoPins = errors.New("not on a BPF file system")

	// ErrLocked says that another process steers with the same pins.
	ErrLocked = errors.New("another process holds the pins")

	// ErrFull says that a table has no room for what it is to hold.
	ErrFull = errors.New("the kernel's table is full")

	// ErrNotInstalled says that there is nothing under the pins.
	ErrNotInstalled = errors.New("not installed")
)

// DefaultPins is where what outlives the process is pinned.
const DefaultPins = "/sys/fs/bpf/portico"

// schema is raised whenever a map's layout changes or a map comes to mean
// something else. Processes of different schemas do not share maps.
const schema = 2

// Options says where to steer, and how much. The zero value works on a node.
type Options struct {
	// Pins is a directory on a BPF file system, made if need be; empty means
	// [DefaultPins]. Each directory has programs and tables of its own.
	Pins string
	// Cgroup is the directory of the cgroup whose processes are steered; empty
	// means the root that [FindCgroup] finds.
	Cgroup string
	// MaxFrontends and MaxBackends bound the table; 0 means 65536 and 524288.
	// Memory is taken as it fills.
	MaxFrontends, MaxBackends uint32
}

func (o Options) withDefaults() (Options, error) {
	if o.Pins == "" {
		o.Pins = DefaultPins
	}
	if o.MaxFrontends == 0 {
		o.MaxFrontends = 65536
	}
	if o.MaxBackends == 0 {
		o.MaxBackends = 524288
	}
	var err error
	if o.Cgroup == "" {
		o.Cgroup, err = FindCgroup()
	} else {
		err = checkCgroup(o.Cgroup)
	}
	return o, err
}

// A Redirector holds the programs and their tables. Its methods must not be
// called at once, but for [Redirector.Renew], [Redirector.Events] and
// [Redirector.Close].
type Redirector struct {
	options Options
	lock    *os.File
	objects objects
	mirror  *mirror
	left    []Departure
}

type objects struct {
	redirectPrograms
	redirectMaps
}

func (o *objects) Close() error {
	return errors.Join(o.redirectPrograms.Close(), o.redirectMaps.Close())
}

// Open loads the programs and opens their tables: those that an earlier process
// left, if they fit, or else new and empty ones. What the node does changes only
// with [Redirector.Attach]. If the table was there before, though, then
// changing it has its effect at once.
func Open(o Options) (*Redirector, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	if err := Supported(); err != nil {
		return nil, err
	}
	lock, err := lockPins(o.Pins)
	if err != nil {
		return nil, err
	}
	r := &Redirector{options: o, lock: lock}
	if err := r.open(); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

func (r *Redirector) open() error {
	spec, err := loadRedirect()
	if err != nil {
		return fmt.Errorf("read compiled programs: %w", err)
	}
	// Global variables only name types to the generator.
	delete(spec.Maps, ".bss")
	if hasMultipath() {
		if err := spec.Variables["multipath"].Set(uint32(1)); err != nil {
			return fmt.Errorf("tell programs of Multipath TCP: %w", err)
		}
	}
	spec.Maps["frontends"].MaxEntries = r.options.MaxFrontends
	spec.Maps["counts"].MaxEntries = r.options.MaxFrontends
	spec.Maps["owners"].MaxEntries = r.options.MaxFrontends * 2 // a policy's and a Service's
	spec.Maps["backends"].MaxEntries = r.options.MaxBackends
	spec.Maps["members"].MaxEntries = r.options.MaxBackends
	maps, err := r.openMaps(spec)
	defer closeAll(maps)
	if err != nil {
		return err
	}
	err = spec.LoadAndAssign(&r.objects, &ebpf.CollectionOptions{MapReplacements: maps})
	if err != nil {
		return fmt.Errorf("load programs: %w", explain(err))
	}
	if err := r.rememberNetns(); err != nil {
		return err
	}
	r.mirror, err = readMirror(&r.objects.redirectMaps)
	return err
}

// openMaps opens or makes every map. The caller closes them, even those returned
// with an error.
func (r *Redirector) openMaps(spec *ebpf.CollectionSpec) (map[string]*ebpf.Map, error) {
	maps := map[string]*ebpf.Map{}
	for name, m := range spec.Maps {
		if strings.HasPrefix(name, ".") {
			continue // constants are the programs' own
		}
		dir := r.tables()
		if ofSockets[name] {
			dir = r.sockets()
		}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return maps, fmt.Errorf("make directory for maps: %w", err)
		}
		var err error
		if maps[name], err = openMap(m, filepath.Join(dir, name)); err != nil {
			return maps, fmt.Errorf("open map %s: %w", name, err)
		}
	}
	return maps, nil
}

func openMap(spec *ebpf.MapSpec, path string) (*ebpf.Map, error) {
	m, err := ebpf.LoadPinnedMap(path, nil)
	if err == nil {
		if err := spec.Compatible(m); err != nil {
			return m, fmt.Errorf("%s is not ours: %w", path, err)
		}
		return m, nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if m, err = ebpf.NewMap(spec); err != nil {
		return nil, explain(err)
	}
	return m, m.Pin(path)
}

func closeAll(maps map[string]*ebpf.Map) {
	for _, m := range maps {
		m.Close()
	}
}

// Close frees what the process holds. The node goes on doing what it did.
func (r *Redirector) Close() error {
	return errors.Join(r.objects.Close(), r.lock.Close())
}
