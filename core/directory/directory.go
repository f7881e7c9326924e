// Package directory notices changes in directories, also in those that take the
// place of others.
package directory

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
)

// LookEvery is how often [Watcher.Follow] is to be called without a reason, for
// nothing tells that a directory has come back or that a link leads elsewhere.
const LookEvery = 5 * time.Second

// A Watcher tells of changes in directories. It may be used by one goroutine.
type Watcher struct {
	watcher  *fsnotify.Watcher
	followed map[string]os.FileInfo // what was found there
}

// New returns a watcher that follows nothing yet. Whoever has it closes it.
func New() (*Watcher, error) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, err
	}
	return &Watcher{watcher: w, followed: map[string]os.FileInfo{}}, nil
}

// Close ends watching.
func (w *Watcher) Close() error { return w.watcher.Close() }

// Events are of the directories and of what is in them. After each of them,
// [Watcher.Follow] is to be called.
func (w *Watcher) Events() <-chan fsnotify.Event { return w.watcher.Events }

// Errors may mean that events were lost.
func (w *Watcher) Errors() <-chan error { return w.watcher.Errors }

// Follow follows these directories, and no others. It reports whether there is
// one in which something may have changed before it was followed; errors are
// those of directories that cannot be.
func (w *Watcher) Follow(names ...string) (news bool, err error) {
	for name := range w.followed {
		if !slices.Contains(names, name) {
			w.leave(name)
		}
	}
	// The kernel has left directories that were removed or have moved away.
	watched := w.watcher.WatchList()
	var errs []error
	for _, name := range names {
		now, err := os.Stat(name)
		if err == nil && w.isFollowed(name, now) && slices.Contains(watched, filepath.Clean(name)) {
			continue
		}
		w.leave(name)
		if err == nil {
			err = w.watcher.Add(name)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("watch %s: %w", name, err))
			continue
		}
		w.followed[name], news = now, true
	}
	return news, errors.Join(errs...)
}

func (w *Watcher) isFollowed(name string, now os.FileInfo) bool {
	before := w.followed[name]
	return before != nil && os.SameFile(before, now)
}

func (w *Watcher) leave(name string) {
	if w.followed[name] != nil {
		_ = w.watcher.Remove(name) // it may be gone
		delete(w.followed, name)
	}
}
