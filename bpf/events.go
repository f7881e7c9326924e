package bpf

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
)

// A Verdict is what was decided about a destination.
type Verdict string

// The verdicts.
const (
	Passed    Verdict = "passed"
	ByPolicy  Verdict = "policy"
	ByService Verdict = "service"
	Refused   Verdict = "refused"
)

func verdictOf(v redirectVerdict) Verdict {
	switch v {
	case redirectVerdictPOLICY:
		return ByPolicy
	case redirectVerdictSERVICE:
		return ByService
	case redirectVerdictREFUSED:
		return Refused
	}
	return Passed
}

// An Event is one verdict.
type Event struct {
	// At is exact to some milliseconds.
	At       time.Time
	Frontend Frontend
	// Backend is where the frontend led; the zero value if it was refused.
	Backend Frontend
	Verdict Verdict
	// Cgroup and Netns are the client's, by number and cookie.
	Cgroup, Netns uint64
	PID           uint32
	Command       string
}

// Events calls visit for each event, as often as [Settings.Sample] lets one
// happen, until ctx ends. Events that nobody takes in time are lost.
func (r *Redirector) Events(ctx context.Context, visit func(Event)) error {
	return follow(ctx, r.objects.Events, visit)
}

// Follow does what [Redirector.Events] does for what is installed under pins, by
// whichever process; empty means [DefaultPins]. Of several who follow, each gets
// some of the events. It returns [ErrNotInstalled] if there is nothing.
func Follow(ctx context.Context, pins string, visit func(Event)) error {
	if pins == "" {
		pins = DefaultPins
	}
	o, dir, err := openPinned(pins)
	if err != nil {
		return fmt.Errorf("follow events of %s: %w", pins, err)
	}
	defer o.Close()
	events, err := ebpf.LoadPinnedMap(filepath.Join(dir, "events"), nil)
	if err != nil {
		return fmt.Errorf("follow events of %s: %w", pins, err)
	}
	defer events.Close()
	return follow(ctx, events, visit)
}

func follow(ctx context.Context, events *ebpf.Map, visit func(Event)) error {
	reader, err := ringbuf.NewReader(events)
	if err != nil {
		return fmt.Errorf("read events: %w", err)
	}
	defer context.AfterFunc(ctx, func() { reader.Close() })()
	defer reader.Close()
	for {
		record, err := reader.Read()
		if errors.Is(err, os.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read events: %w", err)
		}
		at, err := now()
		if err != nil {
			return err
		}
		if e, ok := parseEvent(record.RawSample, time.Now().Add(-at)); ok {
			visit(e)
		}
	}
}

// parseEvent needs to know when the kernel's clock began.
func parseEvent(raw []byte, began time.Time) (Event, bool) {
	var e redirectEvent
	if len(raw) < int(unsafe.Sizeof(e)) {
		return Event{}, false
	}
	e = *(*redirectEvent)(unsafe.Pointer(&raw[0]))
	command, _, _ := bytes.Cut(e.Command[:], []byte{0})
	out := Event{
		At: began.Add(time.Duration(e.At)), Frontend: e.Front.frontend(), Verdict: verdictOf(e.Verdict),
		Cgroup: e.Cgroup, Netns: e.Netns, PID: e.Pid, Command: string(command),
	}
	if e.Verdict != redirectVerdictREFUSED {
		out.Backend = e.Back.frontend()
	}
	return out, true
}
