package bpf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf/link"
)

// ofSockets are the maps that belong to sockets rather than to a table: they
// are kept when the table is made anew with another size.
var ofSockets = map[string]bool{"affinity": true, "flows": true, "peers": true, "translations": true}

// tables is named for what the maps in it look like, so that a process that
// wants them otherwise makes others, fills them, and only then exchanges the
// programs.
func (r *Redirector) tables() string {
	name := fmt.Sprintf("tables-%d-%dx%d", schema, r.options.MaxFrontends, r.options.MaxBackends)
	return filepath.Join(r.options.Pins, name)
}

func (r *Redirector) sockets() string {
	return filepath.Join(r.options.Pins, fmt.Sprintf("sockets-%d", schema))
}

func linkPath(pins, program string) string { return filepath.Join(pins, "links", program) }

// lockPins makes the directory and locks it until the file is closed.
func lockPins(dir string) (*os.File, error) {
	if err := checkPins(dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(dir, "links"), 0o700); err != nil {
		return nil, fmt.Errorf("make directory for pins: %w", err)
	}
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("open directory for pins: %w", err)
	}
	if err := lockFile(f); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", dir, err), f.Close())
	}
	return f, nil
}

// checkPins looks at the file system of dir, or of where dir is going to be.
func checkPins(dir string) error {
	at := dir
	for {
		on, err := onBPFFS(at)
		if errors.Is(err, fs.ErrNotExist) && filepath.Dir(at) != at {
			at = filepath.Dir(at)
			continue
		}
		if err != nil {
			return fmt.Errorf("look at directory for pins: %w", err)
		}
		if !on {
			return fmt.Errorf("pin under %s: %w: mount one (mount -t bpf bpf /sys/fs/bpf), or name a directory on one", dir, ErrNoPins)
		}
		return nil
	}
}

// prune removes the tables and links that belong to other schemas or sizes.
func (r *Redirector) prune() error {
	entries, err := os.ReadDir(r.options.Pins)
	if err != nil {
		return fmt.Errorf("list pins: %w", err)
	}
	keep := map[string]bool{"links": true, filepath.Base(r.tables()): true, filepath.Base(r.sockets()): true}
	for _, e := range entries {
		if !keep[e.Name()] && isOurs(e.Name()) {
			err = errors.Join(err, os.RemoveAll(filepath.Join(r.options.Pins, e.Name())))
		}
	}
	return err
}

func isOurs(name string) bool {
	return name == "links" || strings.HasPrefix(name, "tables-") || strings.HasPrefix(name, "sockets-")
}

// Uninstall detaches the programs and removes every pin, and the directory if
// nothing else is in it. Connections that were redirected live on. It returns
// [ErrNotInstalled] if there was nothing, and [ErrLocked] while a process
// steers.
func Uninstall(pins string) error {
	if pins == "" {
		pins = DefaultPins
	}
	if _, err := os.Stat(pins); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", pins, ErrNotInstalled)
	}
	lock, err := lockPins(pins)
	if err != nil {
		return err
	}
	defer lock.Close()
	// Programs go before the tables that they read.
	for _, p := range programs {
		if err := detach(linkPath(pins, p.name)); err != nil {
			return fmt.Errorf("detach %s: %w", p.name, err)
		}
	}
	entries, err := os.ReadDir(pins)
	if err != nil {
		return fmt.Errorf("list pins: %w", err)
	}
	for _, e := range entries {
		if isOurs(e.Name()) {
			err = errors.Join(err, os.RemoveAll(filepath.Join(pins, e.Name())))
		}
	}
	// A directory with something else in it is not ours to remove.
	os.Remove(pins)
	return err
}

func detach(path string) error {
	l, err := link.LoadPinnedLink(path, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer l.Close()
	// Another process may hold the link too, so that closing it would not end it.
	if err := l.Detach(); err != nil && !isGone(err) {
		return err
	}
	return l.Unpin()
}
