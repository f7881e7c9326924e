// Package fetch has what policies are made of, from where it lies: files, https
// addresses, registries and ConfigMaps.
package fetch

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"

	"github.com/portico-proxy/portico/core/directory"
)

const (
	// fetchTimeout bounds one attempt to fetch.
	fetchTimeout = time.Minute
	// firstRetry and lastRetry bound the time between two attempts.
	firstRetry = time.Second
	lastRetry  = time.Minute
	// maxTries bounds attempts at the same time. Each may hold MaxSize bytes.
	maxTries = 4
)

// A Fetcher has what sources hold. What is far away it fetches by itself, so that
// nothing waits for it, and of what is near it notices changes.
type Fetcher struct {
	sources Sources
	dir     string // "" keeps nothing
	log     logr.Logger
	changed chan struct{} // has room for one: something is wanted

	mu     sync.Mutex // guards following
	wanted map[string]*order
	files  map[string]bool // of the last reading; never changed
	read   map[string]bool // files since begin
	used   map[string]bool // since begin
	trying int
}

// An order is something to be fetched.
type order struct {
	source Source
	code   []byte // nil until it is there
	err    error
	next   time.Time // of the next attempt
	trying bool
	pause  time.Duration
}

// New returns a fetcher that keeps what it has fetched in a directory; "" keeps
// nothing.
func New(s Sources, dir string, log logr.Logger) *Fetcher {
	return &Fetcher{sources: s, dir: dir, log: log, changed: make(chan struct{}, 1), wanted: map[string]*order{}}
}

// Begin and End enclose one reading of all sources. What is not asked for in
// between is forgotten.
func (f *Fetcher) Begin() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.used, f.read = map[string]bool{}, map[string]bool{}
}

// End is where a reading ends that [Fetcher.Begin] began.
func (f *Fetcher) End() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for id := range f.wanted {
		if !f.used[id] {
			delete(f.wanted, id)
		}
	}
	f.files = f.read
	f.wake()
}

func (f *Fetcher) wake() {
	select {
	case f.changed <- struct{}{}:
	default: // it has been said
	}
}

// Content is a source's, or why it is not there.
func (f *Fetcher) Content(s *Source) (Content, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if isLocal(s) {
		if s.File != "" {
			f.read[filepath.Clean(s.File)] = true
		}
		return local(s)
	}
	id := Pin(s)
	f.used[id] = true
	// Whoever has compiled it already never asks for it.
	return Content{Identity: id, Read: func() ([]byte, error) { return f.fetched(id, s) }}, nil
}

// fetched returns what has been fetched, or orders it.
func (f *Fetcher) fetched(id string, s *Source) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	o := f.wanted[id]
	if o == nil {
		if code, err := f.remembered(id, s); err == nil {
			return code, nil
		}
		o = &order{source: *s, err: ErrFetching, pause: firstRetry}
		f.wanted[id] = o
		f.wake()
	}
	if o.code == nil {
		return nil, o.err
	}
	delete(f.wanted, id) // it is asked for once, and is large
	return o.code, nil
}

// Run fetches what is wanted and notices changes of files until ctx ends, and
// calls again when either comes to something.
func (f *Fetcher) Run(ctx context.Context, again func()) error {
	look := time.NewTicker(directory.LookEvery)
	defer look.Stop()
	return f.run(ctx, look.C, again)
}

func (f *Fetcher) run(ctx context.Context, look <-chan time.Time, again func()) error {
	eyes := open(f.log)
	defer eyes.close()
	var tries sync.WaitGroup
	defer tries.Wait()
	came := make(chan bool, maxTries)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		news := false
		select {
		case <-ctx.Done():
			return nil
		case e := <-eyes.events:
			ours := f.isOurs(e.Name)
			news = eyes.follow(f.followed()) || ours
		case err := <-eyes.errors:
			f.log.Error(err, "watch files")
		case <-look:
			news = eyes.follow(f.followed())
		case <-f.changed:
			timer.Reset(0)
			news = eyes.follow(f.followed())
		case <-timer.C:
			due, next := f.due()
			timer.Reset(next)
			for id, o := range due {
				tries.Go(func() { came <- f.try(ctx, id, o) })
			}
		case news = <-came:
			f.tried()
			timer.Reset(0)
		}
		if news {
			again()
		}
	}
}

// followed are the files of the last reading.
func (f *Fetcher) followed() map[string]bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.files
}

// isOurs reports whether a change at a path may be one of a source. Mounted
// ConfigMaps change by a link beside them.
func (f *Fetcher) isOurs(path string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.files[filepath.Clean(path)] || filepath.Base(path) == "..data"
}

// due are the orders to try now, those that are late most first, and when to ask
// again. One that cannot be reached holds up no others.
func (f *Fetcher) due() (due map[string]*order, next time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	due, next = map[string]*order{}, time.Hour
	for _, id := range slices.SortedFunc(maps.Keys(f.wanted), func(a, b string) int { return f.wanted[a].next.Compare(f.wanted[b].next) }) {
		o := f.wanted[id]
		if o.code != nil || o.trying {
			continue
		}
		if wait := time.Until(o.next); wait > 0 {
			return due, wait
		}
		if f.trying == maxTries {
			return due, next // whoever ends makes room
		}
		f.trying++
		o.trying, due[id] = true, o
	}
	return due, next
}

// tried makes room for another attempt.
func (f *Fetcher) tried() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.trying--
}

// try fetches one source and reports whether that changed what is known of it.
func (f *Fetcher) try(ctx context.Context, id string, o *order) bool {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	code, err := f.sources.read(ctx, &o.source)
	if err == nil {
		f.remember(id, code)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	o.trying = false
	if err == nil {
		o.code, o.err = code, nil
		return true
	}
	before := o.err.Error()
	o.err = fmt.Errorf("fetch: %w", err)
	o.next, o.pause = time.Now().Add(o.pause), min(2*o.pause, lastRetry)
	return o.err.Error() != before
}

// remembered is what a process before this one fetched. A file begins with the
// digest of the code that follows: disks lose power, and what is pinned by the
// digest of an artifact has no other to be checked by.
func (f *Fetcher) remembered(id string, s *Source) ([]byte, error) {
	if f.dir == "" {
		return nil, errors.New("nothing is kept")
	}
	kept, err := os.ReadFile(filepath.Join(f.dir, id))
	if err != nil {
		return nil, err
	}
	if len(kept) < digestLength {
		return nil, errDigest
	}
	code := kept[digestLength:]
	return code, errors.Join(check(code, string(kept[:digestLength])), check(code, s.SHA256))
}

// remember keeps code for processes after this one. It is only a cache.
func (f *Fetcher) remember(id string, code []byte) {
	if f.dir == "" {
		return
	}
	if err := f.store(id, code); err != nil {
		f.log.Info("what was fetched is not kept on disk", "reason", err.Error())
	}
}

func (f *Fetcher) store(id string, code []byte) error {
	if err := os.MkdirAll(f.dir, 0o700); err != nil {
		return err
	}
	part, err := os.CreateTemp(f.dir, ".part-")
	if err != nil {
		return err
	}
	defer os.Remove(part.Name())
	_, err = part.Write(append([]byte(DigestOf(code)), code...))
	if err = errors.Join(err, part.Sync(), part.Close()); err != nil {
		return err
	}
	return os.Rename(part.Name(), filepath.Join(f.dir, id))
}
