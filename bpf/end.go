package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// An Ending is a socket that was ended: the destination that it named, and the
// backend that it had been given.
type Ending struct{ Frontend, Backend Frontend }

// An Ender ends sockets that are connected to backends that are no more. It sees
// what the programs of a [Redirector] have left at sockets, so that it ends no
// others, and none that is not connected.
type Ender struct {
	objects struct {
		endPrograms
		endMaps
	}
}

// NewEnder loads the programs that look at sockets. It returns an error that
// wraps [ErrNotSupported] if the kernel is too old: it needs Linux 6.5.
func (r *Redirector) NewEnder() (*Ender, error) {
	spec, err := loadEnd()
	if err != nil {
		return nil, fmt.Errorf("read compiled programs: %w", err)
	}
	// Global variables only name types to the generator.
	delete(spec.Maps, ".bss")
	e := &Ender{}
	err = spec.LoadAndAssign(&e.objects, &ebpf.CollectionOptions{
		MapReplacements: map[string]*ebpf.Map{"peers": r.objects.Peers, "translations": r.objects.Translations},
	})
	if err != nil {
		return nil, fmt.Errorf("load programs that end sockets (Linux 6.5, with CONFIG_DEBUG_INFO_BTF): %w", explain(err))
	}
	return e, nil
}

// Close frees what the Ender holds.
func (e *Ender) Close() error {
	return errors.Join(e.objects.endPrograms.Close(), e.objects.endMaps.Close())
}

// End ends the sockets that are connected to dead backends, in every network
// namespace that has a process. What it returns with an error has been ended
// all the same.
func (e *Ender) End(dead []Frontend) ([]Ending, error) {
	if err := e.name(dead); err != nil {
		return nil, err
	}
	programs := e.programsFor(dead)
	if len(programs) == 0 {
		return nil, nil
	}
	var all []Ending
	err := eachNetns(func() error {
		for _, p := range programs {
			ended, err := pass(p)
			all = append(all, ended...)
			if err != nil {
				return err
			}
		}
		return nil
	})
	return all, err
}

// programsFor are those for the protocols that are there.
func (e *Ender) programsFor(dead []Frontend) []*ebpf.Program {
	var tcp, udp bool
	for _, d := range dead {
		tcp, udp = tcp || d.Protocol == TCP, udp || d.Protocol == UDP
	}
	var all []*ebpf.Program
	if tcp {
		all = append(all, e.objects.EndTcp)
	}
	if udp {
		all = append(all, e.objects.EndUdp)
	}
	return all
}

// name tells the programs who is dead, and nobody else.
func (e *Ender) name(dead []Frontend) error {
	wanted := map[redirectAddress]bool{}
	for _, d := range dead {
		wanted[addressOf(d.AddrPort, d.Protocol)] = true
	}
	var gone []redirectAddress
	err := each(e.objects.Dead, func(a redirectAddress, _ uint32) {
		if !wanted[a] {
			gone = append(gone, a)
		}
	})
	if err != nil {
		return fmt.Errorf("read dead backends: %w", err)
	}
	for _, a := range gone {
		if err := e.objects.Dead.Delete(a); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("forget dead backend: %w", err)
		}
	}
	for a := range wanted {
		if err := e.objects.Dead.Put(a, uint32(1)); err != nil {
			return fmt.Errorf("name dead backend: %w", explain(err))
		}
	}
	return nil
}

// pass looks at all sockets of the calling thread's network namespace.
func pass(p *ebpf.Program) ([]Ending, error) {
	l, err := link.AttachIter(link.IterOptions{Program: p})
	if err != nil {
		return nil, fmt.Errorf("look at sockets: %w", explain(err))
	}
	defer l.Close()
	// The namespace is that of the thread that opens it, not of one that reads.
	sockets, err := l.Open()
	if err != nil {
		return nil, fmt.Errorf("look at sockets: %w", err)
	}
	defer sockets.Close()
	raw, err := io.ReadAll(sockets)
	if err != nil {
		err = fmt.Errorf("look at sockets: %w", err)
	}
	return endings(raw), err
}

func endings(raw []byte) []Ending {
	const size = int(unsafe.Sizeof(endEnded{}))
	var all []Ending
	for ; len(raw) >= size; raw = raw[size:] {
		var e endEnded
		if _, err := binary.Decode(raw, binary.NativeEndian, &e); err == nil {
			all = append(all, Ending{redirectAddress(e.Front).frontend(), redirectAddress(e.Back).frontend()})
		}
	}
	return all
}
