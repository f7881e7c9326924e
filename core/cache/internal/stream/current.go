package stream

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/portico-proxy/portico/core/cache/wire"
)

// nobody is the name of a namespace and of objects that do not exist; as both
// it is as good as any other that nobody would choose.
const nobody = "portico-probe-none"

// probeTimeout exceeds the 3 s for which kube-apiserver itself waits for its
// own cache.
const probeTimeout = 10 * time.Second

// Current returns a resourceVersion that upstream had reached after Current was
// called: the smallest consistent LIST there is, or what upstream proves on demand.
// All callers share one question at a time. Where upstream is not to be asked yet it
// fails with a [*PausedError].
//
// It asks for this resource, because resources may live in different etcds
// (--etcd-servers-overrides), whose revisions have nothing to do with each other.
func (s *Stream) Current(ctx context.Context) (uint64, error) {
	return s.probes.Do(ctx, s.current)
}

// Asking is how many callers wait for [Stream.Current].
func (s *Stream) Asking() int { return s.probes.Waiting() }

func (s *Stream) probe() (uint64, error) {
	ctx, cancel := context.WithTimeout(s.ctx, probeTimeout)
	defer cancel()
	var reached uint64
	if st := s.State(); st != nil {
		reached = st.Reached()
	}
	namespace, q := s.Scope.smallest(s.Schema.Namespaced)
	s.counts.Probes.Add(1)
	res, err := s.get(ctx, namespace, q)
	if err != nil {
		return 0, fmt.Errorf("probe revision: %w", err)
	}
	defer func() { _ = res.Body.Close() }()
	meta, err := s.Schema.ReadList(s.Format, res.Body, func(*wire.Object) error { return nil })
	if err != nil {
		return 0, fmt.Errorf("probe revision: %w", err)
	}
	rv, err := wire.ParseResourceVersion(meta.ResourceVersion)
	if err != nil {
		return 0, fmt.Errorf("probe revision: %w", err)
	}
	if rv < reached {
		s.Fail(ErrRestored)
		return 0, ErrRestored
	}
	return rv, nil
}

// catchUpSeconds is the shortest watch that ends with a bookmark: kube-apiserver
// sends one 2 s before a watch's deadline, in buckets of a second.
const catchUpSeconds = 3

// maxCatchUps bounds how often in a row upstream is asked, for a client may ask
// for a resourceVersion that will never come.
const maxCatchUps = 2

// chase is who wants a stream to catch up, and how far.
type chase struct {
	wg      sync.WaitGroup
	mu      sync.Mutex // guards following
	wanted  uint64
	running bool
	ended   bool
}

// end lets nobody begin and waits for who has.
func (c *chase) end() {
	c.mu.Lock()
	c.ended = true
	c.mu.Unlock()
	c.wg.Wait()
}

// CatchUp makes upstream prove how far this collection has come: a second watch
// from where we are, which delivers what we lack, in order, and then a bookmark.
// There is one at a time. The proof needs no assumption about which API server
// answers. CatchUp returns at once; wait for the result by [Stream.Reach].
func (s *Stream) CatchUp(rv uint64) {
	s.chase.mu.Lock()
	defer s.chase.mu.Unlock()
	s.chase.wanted = max(s.chase.wanted, rv)
	if s.chase.running || s.chase.ended {
		return
	}
	s.chase.running = true
	s.chase.wg.Go(s.runCatchUp)
}

func (s *Stream) runCatchUp() {
	for left, more := maxCatchUps, true; more; {
		wanted := s.chase.aim()
		left--
		if err := s.catchUpOnce(); err != nil {
			s.log.V(1).Info("catch-up watch ended early", "resource", s.Schema.Resource.Resource, "reason", err.Error())
			left = 0
		}
		left, more = s.chase.settle(wanted, s.State().Applied, left)
	}
}

func (c *chase) aim() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.wanted
}

// settle decides whether there is to be another watch after one that was to reach wanted
// and has reached applied. left is how many more may be tried for the same: whoever
// came meanwhile and wants more has had none.
func (c *chase) settle(wanted, applied uint64, left int) (int, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.wanted > wanted {
		left = maxCatchUps
	}
	if c.running = applied < c.wanted && left > 0 && !c.ended; !c.running {
		c.wanted = 0
	}
	return left, c.running
}

// IsBarren reports whether a proof was waited for in vain when one was wanted last: an
// API server that does nearly nothing sends its bookmarks when it likes. Whoever can do
// without need not wait for the next.
func (s *Stream) IsBarren() bool { return s.barren.Load() }

func (s *Stream) isBehind() bool {
	s.chase.mu.Lock()
	defer s.chase.mu.Unlock()
	return s.State().Applied < s.chase.wanted
}

func (s *Stream) catchUpOnce() error {
	if err := s.paused(); err != nil {
		return fmt.Errorf("catch up: %w", err)
	}
	ctx, cancel := context.WithTimeout(s.ctx, 2*catchUpSeconds*time.Second)
	defer cancel()
	s.counts.CatchUps.Add(1)
	events, err := s.openShort(ctx, nil)
	if err != nil {
		return fmt.Errorf("catch up: %w", err)
	}
	defer events.Close()
	rv, err := s.replay(events)
	switch {
	case err == io.EOF:
		s.barren.Store(s.isBehind())
		return nil
	case err != nil:
		return fmt.Errorf("catch up: %w", err)
	}
	s.progress(rv)
	return nil
}

// Past watches path, a part of this collection that q selects, from since on, just
// long enough for a bookmark. The caller closes what it reads events from.
func (s *Stream) Past(ctx context.Context, path string, q url.Values, since uint64) (io.ReadCloser, error) {
	if err := s.paused(); err != nil {
		return nil, fmt.Errorf("read the past: %w", err)
	}
	s.counts.Watches.Add(1)
	q.Set("watch", "true")
	q.Set("resourceVersion", strconv.FormatUint(since, 10))
	q.Set("allowWatchBookmarks", "true")
	q.Set("timeoutSeconds", strconv.Itoa(catchUpSeconds))
	header := http.Header{}
	if s.IsAsked() {
		header.Set(ProgressHeader, ProgressNow) // so that the bookmark comes at once
	}
	res, err := s.send(ctx, path, q, header)
	if err != nil {
		return nil, fmt.Errorf("read the past: %w", err)
	}
	return res.Body, nil
}

// Fetch sends a request of the caller's making under the proxy's own identity.
// The caller closes the body.
func (s *Stream) Fetch(path string, q url.Values, accept string) (*http.Response, error) {
	if err := s.paused(); err != nil {
		return nil, err
	}
	s.counts.Fetches.Add(1)
	res, err := s.source.Get(s.ctx, path, q, accept)
	if err != nil {
		return nil, s.heed(err)
	}
	return res, nil
}
