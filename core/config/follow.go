package config

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-logr/logr"

	"github.com/portico-proxy/portico/core/directory"
)

// Follow calls apply with the policies now, and again whenever they change,
// until ctx ends. The first ones must be good; later ones that cannot be read,
// or that apply refuses, are logged and leave in force what was.
func (l Loader) Follow(ctx context.Context, log logr.Logger, apply func(*Snapshot) error) error {
	f, err := newFollower(l, apply)
	if err != nil {
		return err
	}
	defer f.close()
	look := time.NewTicker(directory.LookEvery)
	defer look.Stop()
	return f.run(ctx, log, look.C)
}

// follower applies each new state of a policy directory once.
type follower struct {
	loader  Loader
	apply   func(*Snapshot) error
	watcher *directory.Watcher
	applied string
}

// newFollower watches before it reads, so that no change falls in between.
func newFollower(l Loader, apply func(*Snapshot) error) (*follower, error) {
	f := &follower{loader: l, apply: apply}
	if l.Dir != "" {
		var err error
		if f.watcher, err = directory.New(); err != nil {
			return nil, fmt.Errorf("watch policy directory: %w", err)
		}
		if _, err := f.watcher.Follow(l.Dir); err != nil {
			return nil, errors.Join(fmt.Errorf("watch policy directory (--policy-dir %s): %w", l.Dir, err), f.watcher.Close())
		}
	}
	if err := f.reload(); err != nil {
		f.close()
		return nil, err
	}
	return f, nil
}

func (f *follower) close() {
	if f.watcher != nil {
		f.watcher.Close()
	}
}

func (f *follower) run(ctx context.Context, log logr.Logger, look <-chan time.Time) error {
	if f.watcher == nil {
		<-ctx.Done()
		return nil
	}
	for {
		looks := false
		select {
		case <-ctx.Done():
			return nil
		case <-f.watcher.Events():
		case err := <-f.watcher.Errors():
			// An overflow loses events, not the state we read next.
			log.Error(err, "watch policy directory", "dir", f.loader.Dir)
		case <-look:
			looks = true
		}
		another, err := f.watcher.Follow(f.loader.Dir)
		if looks && !another {
			continue
		}
		if err != nil {
			log.Error(err, "watch policy directory")
		}
		if err := f.reload(); err != nil {
			log.Error(err, "policies refused; the ones before stay in force", "dir", f.loader.Dir)
		}
	}
}

func (f *follower) reload() error {
	s, err := f.loader.Load()
	if err != nil {
		return err
	}
	if s.Digest == f.applied {
		return nil
	}
	if err := f.apply(s); err != nil {
		return err
	}
	f.applied = s.Digest
	return nil
}
