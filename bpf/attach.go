package bpf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// A place is where one program attaches.
type place struct {
	name   string
	attach ebpf.AttachType
	of     func(*redirectPrograms) *ebpf.Program
}

// programs are in the order in which they are attached: what undoes a
// translation comes before what makes it, so that no answer seems to come from a
// stranger.
var programs = []place{
	{"release", ebpf.AttachCgroupInetSockRelease, func(p *redirectPrograms) *ebpf.Program { return p.Release }},
	{"getpeername4", ebpf.AttachCgroupInet4GetPeername, func(p *redirectPrograms) *ebpf.Program { return p.Getpeername4 }},
	{"getpeername6", ebpf.AttachCgroupInet6GetPeername, func(p *redirectPrograms) *ebpf.Program { return p.Getpeername6 }},
	{"recvmsg4", ebpf.AttachCGroupUDP4Recvmsg, func(p *redirectPrograms) *ebpf.Program { return p.Recvmsg4 }},
	{"recvmsg6", ebpf.AttachCGroupUDP6Recvmsg, func(p *redirectPrograms) *ebpf.Program { return p.Recvmsg6 }},
	{"sendmsg4", ebpf.AttachCGroupUDP4Sendmsg, func(p *redirectPrograms) *ebpf.Program { return p.Sendmsg4 }},
	{"sendmsg6", ebpf.AttachCGroupUDP6Sendmsg, func(p *redirectPrograms) *ebpf.Program { return p.Sendmsg6 }},
	{"connect4", ebpf.AttachCGroupInet4Connect, func(p *redirectPrograms) *ebpf.Program { return p.Connect4 }},
	{"connect6", ebpf.AttachCGroupInet6Connect, func(p *redirectPrograms) *ebpf.Program { return p.Connect6 }},
}

// flagBefore puts a program before those that are attached already: the second
// one to look sees what the first one made of the destination.
const flagBefore = 1 << 3

// An undo takes back one step of attaching.
type undo func() error

// Attach lets the programs of r answer from now on: in place of those that an
// earlier process attached, each exchanged at once, or else for the first time.
// If it returns an error, everything is as it was before. Tables of earlier
// processes that the programs do not use are removed.
func (r *Redirector) Attach() error {
	cgroup, err := os.Open(r.options.Cgroup)
	if err != nil {
		return fmt.Errorf("open cgroup: %w", err)
	}
	defer cgroup.Close()
	var undos []undo
	for _, p := range programs {
		u, err := r.attach(cgroup, p)
		if err != nil {
			err = fmt.Errorf("attach %s to %s: %w", p.name, r.options.Cgroup, err)
			return errors.Join(err, rollback(undos))
		}
		undos = append(undos, u)
	}
	// From here on the node is steered by r alone.
	return r.prune()
}

func rollback(undos []undo) error {
	var errs []error
	for _, u := range slices.Backward(undos) {
		errs = append(errs, u())
	}
	return errors.Join(errs...)
}

func (r *Redirector) attach(cgroup *os.File, p place) (undo, error) {
	program, path := p.of(&r.objects.redirectPrograms), linkPath(r.options.Pins, p.name)
	old, err := link.LoadPinnedLink(path, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return attachNew(cgroup, p.attach, program, path)
	}
	if err != nil {
		return nil, err
	}
	defer old.Close()
	here, err := attachedTo(old, cgroup)
	if err != nil {
		return nil, err
	}
	if here {
		return exchange(old, program, path)
	}
	// Its cgroup is gone, or is another one than we are asked for.
	return move(cgroup, p.attach, program, path)
}

func attachedTo(l link.Link, cgroup *os.File) (bool, error) {
	info, err := l.Info()
	if err != nil {
		return false, fmt.Errorf("look at pinned link: %w", err)
	}
	id, err := CgroupID(cgroup.Name())
	if err != nil {
		return false, err
	}
	c := info.Cgroup()
	return c != nil && c.CgroupId == id, nil
}

// exchange puts a program in the place of the one that a link has.
func exchange(l link.Link, program *ebpf.Program, path string) (undo, error) {
	info, err := l.Info()
	if err != nil {
		return nil, fmt.Errorf("look at pinned link: %w", err)
	}
	before, err := ebpf.NewProgramFromID(info.Program)
	if err != nil {
		return nil, fmt.Errorf("keep program %d: %w", info.Program, err)
	}
	if err := l.Update(program); err != nil {
		return nil, errors.Join(fmt.Errorf("update link: %w", err), before.Close())
	}
	return func() error {
		defer before.Close()
		l, err := link.LoadPinnedLink(path, nil)
		if err != nil {
			return err
		}
		defer l.Close()
		return l.Update(before)
	}, nil
}

func attachNew(cgroup *os.File, at ebpf.AttachType, program *ebpf.Program, path string) (undo, error) {
	o := link.RawLinkOptions{Target: int(cgroup.Fd()), Program: program, Attach: at, Flags: flagBefore}
	l, err := link.AttachRawLink(o)
	if err != nil {
		// Older kernels know no order but that of arrival.
		o.Flags = 0
		l, err = link.AttachRawLink(o)
	}
	if err != nil {
		return nil, explain(err)
	}
	defer l.Close()
	if err := l.Pin(path); err != nil {
		return nil, fmt.Errorf("pin link: %w", err)
	}
	return func() error { return detach(path) }, nil
}

// move attaches anew, and only then lets go of the old link. It is not undone:
// the old cgroup is none that anybody asked for.
func move(cgroup *os.File, at ebpf.AttachType, program *ebpf.Program, path string) (undo, error) {
	next := path + "-next"
	if err := detach(next); err != nil {
		return nil, err
	}
	if _, err := attachNew(cgroup, at, program, next); err != nil {
		return nil, err
	}
	if err := detach(path); err != nil {
		return nil, err
	}
	if err := os.Rename(next, path); err != nil {
		return nil, fmt.Errorf("rename pin: %w", err)
	}
	return func() error { return nil }, nil
}

// Neighbours returns the programs of others at the same places, each as
// "connect4: name". Those that change destinations too see ours, or we see
// theirs.
func (r *Redirector) Neighbours() ([]string, error) {
	cgroup, err := os.Open(r.options.Cgroup)
	if err != nil {
		return nil, fmt.Errorf("open cgroup: %w", err)
	}
	defer cgroup.Close()
	var found []string
	for _, p := range programs {
		names, err := r.neighboursAt(cgroup, p)
		if err != nil {
			return nil, fmt.Errorf("list programs at %s: %w", p.name, err)
		}
		found = append(found, names...)
	}
	return found, nil
}

func (r *Redirector) neighboursAt(cgroup *os.File, p place) ([]string, error) {
	info, err := p.of(&r.objects.redirectPrograms).Info()
	if err != nil {
		return nil, err
	}
	ours, _ := info.ID()
	attached, err := link.QueryPrograms(link.QueryOptions{Target: int(cgroup.Fd()), Attach: p.attach})
	if err != nil {
		return nil, err
	}
	var names []string
	for _, a := range attached.Programs {
		if a.ID == ours {
			continue
		}
		names = append(names, p.name+": "+programName(a.ID))
	}
	return names, nil
}

func programName(id ebpf.ProgramID) string {
	p, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return fmt.Sprintf("program %d", id)
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil {
		return fmt.Sprintf("program %d", id)
	}
	return info.Name
}
