package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/portico-proxy/portico/core/cache/wire"
)

// Upstream may be a proxy of our kind, which proves progress to whoever asks. It
// says so in the head of each watch that it answers from memory. A watch that asks
// [ProgressNow] is told what happened since its resourceVersion, then two bookmarks,
// and then ends:
//
//   - The first is a bookmark as any other: up to there, everything has been told.
//   - The second, at the same place or later, says that the objects are still the
//     same there, though it is not known whether something came and went. A watch
//     that ends before it was cut off, and proves nothing.
//
// The second lies no earlier than what upstream's own upstream had reached after the
// question came. So one request is question and proof at once, and good at whichever
// replica it arrives.
//
// The API server knows nothing of this. It answers such a watch as any other, and
// does not say in its head that its bookmark would prove anything: a bookmark says
// how far a watch has come, not that nobody is further.
const (
	ProgressHeader = "Portico-Progress"
	// ProgressOnDemand is what upstream says.
	ProgressOnDemand = "on-demand"
	// ProgressNow is what it is asked.
	ProgressNow = "now"
)

var (
	errNotOnDemand = errors.New("upstream does not prove progress on demand")
	errCutOff      = errors.New("upstream was cut off before it had said all")
	errOvertaken   = errors.New("something happened since upstream looked")
	errExpired     = errors.New("upstream no longer knows our resourceVersion")
)

// IsAsked reports whether upstream proves progress on demand, as far as is known.
func (s *Stream) IsAsked() bool { return s.onDemand.Load() }

// refusedPatience is how long a question waits that upstream had no time for: those
// who wait for it would all ask for themselves.
const refusedPatience = 3 * time.Second

// current asks upstream how far it has come. Where it proves progress, the
// collection has come as far when current returns. What upstream has no time for is
// asked once more when it says.
func (s *Stream) current() (rv uint64, err error) {
	for range 2 {
		left, said := s.pause()
		switch {
		case said == nil:
		case !apierrors.IsTooManyRequests(said) || left > refusedPatience:
			return 0, &PausedError{said}
		case !rest(s.ctx, left):
			return 0, s.Err()
		}
		if rv, err = s.question(); !apierrors.IsTooManyRequests(err) {
			break
		}
	}
	return rv, err
}

func (s *Stream) question() (uint64, error) {
	if s.IsAsked() && s.State() != nil {
		rv, err := s.ask()
		if err == nil || apierrors.IsTooManyRequests(err) {
			return rv, err
		}
		s.log.V(1).Info("progress is not proven on demand", "resource", s.Schema.Resource.Resource, "reason", err.Error())
	}
	return s.probe()
}

// ask has upstream prove how far this collection has come.
func (s *Stream) ask() (uint64, error) {
	ctx, cancel := context.WithTimeout(s.ctx, probeTimeout)
	defer cancel()
	s.counts.Asks.Add(1)
	events, err := s.openShort(ctx, http.Header{ProgressHeader: {ProgressNow}})
	if err != nil {
		return 0, fmt.Errorf("ask for progress: %w", err)
	}
	defer events.Close()
	if !events.onDemand {
		return 0, errNotOnDemand
	}
	rv, err := s.replay(events)
	switch {
	case err == io.EOF:
		s.barren.Store(true)
		return 0, errCutOff
	case err != nil:
		return 0, fmt.Errorf("ask for progress: %w", err)
	}
	s.progress(rv)
	st := s.State()
	same, err := s.replay(events)
	switch {
	case err == io.EOF:
		return 0, errCutOff
	case err != nil:
		return 0, fmt.Errorf("ask for progress: %w", err)
	case same == rv:
		return rv, nil
	case st.Applied != rv || !s.Confirm(st, same, s.now()):
		return 0, errOvertaken
	}
	return same, nil
}

// openShort begins a watch from where the collection is, just long enough for a
// bookmark.
func (s *Stream) openShort(ctx context.Context, header http.Header) (*events, error) {
	seconds := int64(catchUpSeconds)
	return s.openWatch(ctx, header, metav1.ListOptions{
		ResourceVersion: strconv.FormatUint(s.State().since(), 10), AllowWatchBookmarks: true, TimeoutSeconds: &seconds,
	})
}

// replay applies what a second watch delivers up to its next bookmark, and returns
// where that lies. Without one it fails with io.EOF.
func (s *Stream) replay(events *events) (uint64, error) {
	for {
		kind, o, err := events.Decode()
		switch {
		case err == io.EOF:
			return 0, io.EOF
		case err != nil:
			return 0, fmt.Errorf("read events: %w", err)
		case kind == watch.Error:
			return 0, errExpired
		case kind == watch.Bookmark:
			return wire.ParseResourceVersion(o.(*item).ResourceVersion)
		}
		s.apply(o.(*item).object, kind == watch.Deleted)
	}
}
