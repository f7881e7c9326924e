package bpf

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/cilium/ebpf"
)

// zero is the key of the only element of some maps.
const zero uint32 = 0

// Settings hold for all policies.
type Settings struct {
	// Mark is the SO_MARK of sockets that policies are not for; 0 is none.
	Mark uint32
	// Exempt are the cgroups, by number, that policies are not for, with all
	// below them.
	Exempt []uint64
	// Sample lets one of so many verdicts become an event; 0 is none.
	Sample uint32
}

// Set changes the settings.
func (r *Redirector) Set(s Settings) error {
	before := map[uint64]bool{}
	err := each(r.objects.Classes, func(k redirectClass, _ uint32) {
		if k.Class == exemptClass {
			before[k.Cgroup] = true
		}
	})
	if err != nil {
		return fmt.Errorf("read exempt cgroups: %w", err)
	}
	for _, id := range s.Exempt {
		delete(before, id)
		if err := r.objects.Classes.Put(redirectClass{Cgroup: id, Class: exemptClass}, uint32(1)); err != nil {
			return fmt.Errorf("exempt cgroup %d: %w", id, explain(err))
		}
	}
	host, err := r.settings()
	if err != nil {
		return err
	}
	host.Mark, host.Sample, host.Exempt = s.Mark, s.Sample, uint32(min(len(s.Exempt), 1))
	if err := r.objects.Settings.Put(zero, host); err != nil {
		return fmt.Errorf("write settings: %w", err)
	}
	for id := range before {
		err := r.objects.Classes.Delete(redirectClass{Cgroup: id, Class: exemptClass})
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("exempt cgroup %d no longer: %w", id, err)
		}
	}
	return nil
}

func (r *Redirector) settings() (redirectSettings, error) {
	var s redirectSettings
	if err := r.objects.Settings.Lookup(zero, &s); err != nil {
		return s, fmt.Errorf("read settings: %w", err)
	}
	return s, nil
}

// rememberNetns notes which network namespace is the host's.
func (r *Redirector) rememberNetns() error {
	s, err := r.settings()
	if err != nil {
		return err
	}
	if s.HostNetns, err = netnsCookie(); err != nil {
		return err
	}
	if err := r.objects.Settings.Put(zero, s); err != nil {
		return fmt.Errorf("write settings: %w", err)
	}
	return nil
}

// Renew lets leased layers count for d from now. It may be called at any time,
// also to shorten the lease, and 0 ends it.
func (r *Redirector) Renew(d time.Duration) error {
	at, err := now()
	if err != nil {
		return err
	}
	until := uint64(at + d)
	if d <= 0 {
		// The programs' clock is coarser, and would be behind for some milliseconds.
		until = 0
	}
	if err := r.objects.Lease.Put(zero, until); err != nil {
		return fmt.Errorf("renew lease: %w", err)
	}
	return nil
}

func isEnd(err error) bool {
	return errors.Is(err, ebpf.ErrKeyNotExist) || errors.Is(err, fs.ErrNotExist)
}
