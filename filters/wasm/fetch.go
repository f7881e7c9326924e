package wasm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/go-logr/logr"

	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
)

const (
	// fetchTimeout bounds one attempt to fetch a module.
	fetchTimeout = time.Minute
	// firstRetry and lastRetry bound the time between two attempts.
	firstRetry = time.Second
	lastRetry  = time.Minute
	// missingRetry is how often a directory is looked for that is not there.
	missingRetry = 5 * time.Second
)

// A fetcher has the code of modules. What is far away it fetches by itself, so
// that nothing waits for it, and of what is near it notices changes.
type fetcher struct {
	sources Sources
	dir     string // "" keeps nothing
	log     logr.Logger
	changed chan struct{} // has room for one: something is wanted

	mu     sync.Mutex // guards following
	wanted map[string]*order
	files  map[string]bool
	used   map[string]bool // since begin
}

// An order is a module to be fetched.
type order struct {
	source v1alpha1.WasmSource
	code   []byte // nil until it is there
	err    error
	next   time.Time // of the next attempt
	pause  time.Duration
}

func newFetcher(s Sources, cacheDir string, log logr.Logger) *fetcher {
	f := &fetcher{sources: s, log: log, changed: make(chan struct{}, 1), wanted: map[string]*order{}, files: map[string]bool{}}
	if cacheDir != "" {
		f.dir = filepath.Join(cacheDir, "modules")
	}
	return f
}

// begin and end enclose one reading of all sources. What is not asked for in
// between is forgotten.
func (f *fetcher) begin() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.used, f.files = map[string]bool{}, map[string]bool{}
}

func (f *fetcher) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for id := range f.wanted {
		if !f.used[id] {
			delete(f.wanted, id)
		}
	}
	f.wake()
}

func (f *fetcher) wake() {
	select {
	case f.changed <- struct{}{}:
	default: // it has been said
	}
}

// content is a source's, or why it is not there.
func (f *fetcher) content(s *v1alpha1.WasmSource) (moduleCode, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if isLocal(s) {
		if s.File != "" {
			f.files[filepath.Clean(s.File)] = true
		}
		return local(s)
	}
	id := pinOf(s)
	f.used[id] = true
	// Whoever has compiled it already never asks for the code.
	return moduleCode{identity: id, code: func() ([]byte, error) { return f.fetched(id, s) }}, nil
}

// fetched returns code that has been fetched, or orders it.
func (f *fetcher) fetched(id string, s *v1alpha1.WasmSource) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	o := f.wanted[id]
	if o == nil {
		if code, err := f.remembered(id, s); err == nil {
			return code, nil
		}
		o = &order{source: *s, err: errFetching, pause: firstRetry}
		f.wanted[id] = o
		f.wake()
	}
	if o.code == nil {
		return nil, o.err
	}
	delete(f.wanted, id) // it is asked for once, and is large
	return o.code, nil
}

// run fetches what is wanted and watches files until ctx ends, and calls again
// when either comes to something.
func (f *fetcher) run(ctx context.Context, again func()) error {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch modules: %w", err)
	}
	defer watcher.Close()
	timer, look := time.NewTimer(time.Hour), time.NewTimer(time.Hour)
	defer timer.Stop()
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-watcher.Events:
			if f.isModule(e.Name) {
				again()
			}
		case err := <-watcher.Errors:
			f.log.Error(err, "watch modules")
		case <-look.C:
			f.wake()
		case <-f.changed:
			timer.Reset(0)
			added, missing := f.watch(watcher)
			if missing {
				look.Reset(missingRetry)
			}
			if added {
				again() // it may have changed before it was watched
			}
		case <-timer.C:
			came, next := f.fetch(ctx)
			timer.Reset(next)
			if came {
				again()
			}
		}
	}
}

// isModule reports whether a change at a path may be one of a module. Mounted
// ConfigMaps change by a link beside them.
func (f *fetcher) isModule(path string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.files[filepath.Clean(path)] || filepath.Base(path) == "..data"
}

// watch follows the directories of all files: files are replaced, and may not be
// there yet. It reports whether there is a new one, and whether one is not there.
func (f *fetcher) watch(w *fsnotify.Watcher) (added, missing bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	dirs := map[string]bool{}
	for file := range f.files {
		dirs[filepath.Dir(file)] = true
	}
	for _, dir := range w.WatchList() {
		if !dirs[dir] {
			_ = w.Remove(dir) // it may be gone
		}
		delete(dirs, dir)
	}
	for dir := range dirs {
		if err := w.Add(dir); err != nil {
			f.log.V(1).Info("modules are not watched for now", "dir", dir, "reason", err.Error())
			missing = true
			continue
		}
		added = true
	}
	return added, missing
}

// fetch tries all orders that are due, and returns whether there is something
// new to say, and when the next is due.
func (f *fetcher) fetch(ctx context.Context) (came bool, next time.Duration) {
	f.mu.Lock()
	due, now := map[string]*order{}, time.Now()
	for id, o := range f.wanted {
		if o.code == nil && !o.next.After(now) {
			due[id] = o
		}
	}
	f.mu.Unlock()
	for id, o := range due {
		came = f.try(ctx, id, o) || came
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	next = time.Hour
	for _, o := range f.wanted {
		if o.code == nil {
			next = min(next, max(time.Until(o.next), 0))
		}
	}
	return came, next
}

// try fetches one module and reports whether that changed what is known of it.
func (f *fetcher) try(ctx context.Context, id string, o *order) bool {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	code, err := f.sources.read(ctx, &o.source)
	if err == nil {
		f.remember(id, code)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil {
		o.code, o.err = code, nil
		return true
	}
	before := o.err.Error()
	o.err = fmt.Errorf("fetch the module: %w", err)
	o.next, o.pause = time.Now().Add(o.pause), min(2*o.pause, lastRetry)
	return o.err.Error() != before
}

// remembered is what a process before this one fetched. A file begins with the
// digest of the code that follows: disks lose power, and what is pinned by the
// digest of an artifact has no other to be checked by.
func (f *fetcher) remembered(id string, s *v1alpha1.WasmSource) ([]byte, error) {
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
func (f *fetcher) remember(id string, code []byte) {
	if f.dir == "" {
		return
	}
	if err := f.store(id, code); err != nil {
		f.log.Info("a module is not kept on disk", "reason", err.Error())
	}
}

func (f *fetcher) store(id string, code []byte) error {
	if err := os.MkdirAll(f.dir, 0o700); err != nil {
		return err
	}
	part, err := os.CreateTemp(f.dir, ".part-")
	if err != nil {
		return err
	}
	defer os.Remove(part.Name())
	_, err = part.Write(append([]byte(digestOf(code)), code...))
	if err = errors.Join(err, part.Sync(), part.Close()); err != nil {
		return err
	}
	return os.Rename(part.Name(), filepath.Join(f.dir, id))
}
