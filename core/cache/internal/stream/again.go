package stream

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/portico-proxy/portico/core/cache/wire"
)

// Upstream that comes back meets everybody who has lost it. So a stream that is
// refused, or finds nobody, tries again later each time, and when is left to chance;
// it goes on from where it is, for what broke says nothing about that; and where
// upstream says when to come again, nothing is sent for this stream before.
//
// The reflector would list anew after all but two kinds of failure. It does not hear
// of those that pass.

const (
	// firstDelay and lastDelay are client-go's; each is up to twice as long by chance.
	firstDelay = 800 * time.Millisecond
	lastDelay  = 30 * time.Second
	// wantedDelay is for how long at most nothing is tried while somebody waits for the
	// first state. It is up to twice as long by chance, and still less than they wait.
	wantedDelay = time.Second
	// longestPause bounds what upstream may ask for.
	longestPause = time.Minute
	// doubt is for how long a collection that could be read goes on though upstream says
	// that we have no right to it. An API server that starts says so of everybody, until
	// it knows what they may.
	doubt = 15 * time.Second
	// shortWatch is in how much time a watch that says nothing has failed: the
	// reflector's own bound.
	shortWatch = time.Second
)

// isPassing reports failures that say nothing about the collection. A 500 may be about
// the question, and a 501 is: whoever cannot answer it can perhaps answer another.
func isPassing(err error) bool {
	var said apierrors.APIStatus
	switch {
	case errors.Is(err, wire.ErrMalformed), apierrors.HasStatusCause(err, metav1.CauseTypeResourceVersionTooLarge):
		return false
	case errors.As(err, &said):
		switch said.Status().Code {
		case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
			return true
		}
		return false
	}
	return true
}

// isRefusal reports whether err says that we have no right to what we ask for.
func isRefusal(err error) bool {
	return apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err)
}

// delays grow from one failure to the next.
type delays struct {
	mu   sync.Mutex // guards following
	next time.Duration
}

func (d *delays) reset() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.next = 0
}

func (d *delays) longer() time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := max(d.next, firstDelay)
	d.next = min(2*now, lastDelay)
	return wait.Jitter(now, 1)
}

// A PausedError says that upstream was not asked, because of what it had said before.
// That is not to be unwrapped: whether upstream fails, or is gone, is not known.
type PausedError struct{ said error }

func (e *PausedError) Error() string {
	return "not asked, since upstream said before: " + e.said.Error()
}

// refusal is upstream's word that it is not to be asked before some time.
type refusal struct {
	err   error
	until time.Time
}

// heed notes what upstream says of when to ask again. It returns err.
func (s *Stream) heed(err error) error {
	seconds, _ := apierrors.SuggestsClientDelay(err)
	if seconds <= 0 && apierrors.IsTooManyRequests(err) {
		seconds = 1
	}
	if seconds > 0 {
		pause := min(time.Duration(seconds)*time.Second, longestPause)
		s.refusal.Store(&refusal{err: err, until: s.now().Add(wait.Jitter(pause, 0.5))})
	}
	return err
}

// pause returns for how long upstream is not to be asked, and what it said.
func (s *Stream) pause() (left time.Duration, said error) {
	r := s.refusal.Load()
	if r == nil {
		return 0, nil
	}
	if left := r.until.Sub(s.now()); left > 0 {
		return left, r.err
	}
	return 0, nil
}

// paused returns a [*PausedError] if upstream is not to be asked.
func (s *Stream) paused() error {
	if _, said := s.pause(); said != nil {
		return &PausedError{said}
	}
	return nil
}

// insist has send sent until upstream answers, or refuses in a way that trying again
// does not mend.
func (s *Stream) insist(ctx context.Context, isPassing func(error) bool, send func() error) error {
	var d delays
	var refused time.Time // since when nothing else was said
	for {
		if left, _ := s.pause(); left > 0 && !rest(ctx, left) {
			return ctx.Err()
		}
		err := send()
		s.arrives.Store(err == nil)
		switch {
		case err == nil, ctx.Err() != nil:
			return err
		case !isRefusal(err):
			refused = time.Time{}
			if !isPassing(err) {
				return err
			}
		case refused.IsZero() && s.State() != nil:
			refused = s.now()
			d.reset()
		case refused.IsZero() || s.now().Sub(refused) >= doubt:
			return err
		}
		s.log.V(1).Info("upstream is asked again later", "resource", s.Schema.Resource.Resource, "reason", err.Error())
		if !s.await(ctx, d.longer()) {
			return ctx.Err()
		}
	}
}

// await waits for d, or less if somebody waits for the first state. It reports false
// if ctx is over.
func (s *Stream) await(ctx context.Context, d time.Duration) bool {
	select {
	case <-s.wanted: // before
	default:
	}
	soon := min(d, wait.Jitter(wantedDelay, 1))
	if !rest(ctx, soon) {
		return false
	}
	if s.waiting.Load() > 0 {
		return true
	}
	later := time.NewTimer(d - soon)
	defer later.Stop()
	select {
	case <-s.wanted:
	case <-later.C:
	case <-ctx.Done():
		return false
	}
	return true
}

// rest waits for d. It reports false if ctx is over.
func rest(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// IsArriving reports whether upstream has begun to answer what it was asked for last.
func (s *Stream) IsArriving() bool { return s.arrives.Load() }

// Awaited is Loaded for a reader, whom upstream is asked for sooner.
func (s *Stream) Awaited(ctx context.Context) *State {
	s.waiting.Add(1)
	defer s.waiting.Add(-1)
	select {
	case s.wanted <- struct{}{}:
	default:
	}
	return s.Loaded(ctx)
}

// resuming is a watch as the reflector is to hear it. Where the line breaks it ends, so
// that the reflector goes on from where it is; and if it has come to nothing, only after
// a while.
type resuming struct {
	*events
	begun time.Time
	heard bool
}

// Decode returns the next event, and io.EOF also where the line breaks.
func (r *resuming) Decode() (watch.EventType, runtime.Object, error) {
	loading := r.packer != nil
	kind, o, err := r.events.Decode()
	s := r.stream
	switch {
	case err == nil && loading:
		r.begun = s.now() // as the reflector counts
		return kind, o, nil
	case err == nil:
		r.heard = true
		return kind, o, nil
	case r.ctx.Err() != nil:
		return "", nil, io.EOF
	case errors.Is(err, wire.ErrMalformed), errors.Is(err, wire.ErrTooLarge):
		return kind, o, err // so it is not known what there is
	}
	if !loading && (r.heard || s.now().Sub(r.begun) >= shortWatch) {
		s.early.reset()
		return "", nil, io.EOF
	}
	s.arrives.Store(false)
	rest(r.ctx, max(s.early.longer(), shortWatch-s.now().Sub(r.begun)))
	return "", nil, io.EOF
}
