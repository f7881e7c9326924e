package fetch

import (
	"context"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
)

// A network has what does not answer, and all else at once.
type network struct{ asked, asking atomic.Int32 }

func (s *network) url(ctx context.Context, url string) ([]byte, error) {
	s.asked.Add(1)
	s.asking.Add(1)
	defer s.asking.Add(-1)
	if url == "dead" {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return []byte(url), nil
}

func dead(n int) (all []Source) {
	for i := range n {
		all = append(all, Source{URL: "dead", SHA256: "dead" + strconv.Itoa(i)})
	}
	return all
}

func TestWhatDoesNotAnswerHoldsUpNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &network{}
		sources := append(dead(maxTries-1), Source{URL: "a", SHA256: DigestOf([]byte("a"))}, Source{URL: "b", SHA256: DigestOf([]byte("b"))})
		f := fetcherOf(t, Sources{URL: s.url}, logr.Discard(), sources...)
		ctx, cancel := context.WithCancel(t.Context())
		again, ended := make(chan struct{}, 100), make(chan error, 1)
		start := time.Now()
		withoutWatcher(t, func() {
			go func() { ended <- f.Run(ctx, func() { again <- struct{}{} }) }()
			synctest.Wait()
		})
		for there := 0; there < 2; there += len(readAgain(f, sources...)) {
			<-again
		}
		if waited := time.Since(start); waited != 0 {
			t.Errorf("what answers at once was there after %v", waited)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestTriesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &network{}
		f := fetcherOf(t, Sources{URL: s.url}, logr.Discard(), dead(3*maxTries)...)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		withoutWatcher(t, func() {
			go func() { ended <- f.Run(ctx, func() {}) }()
			synctest.Wait()
		})
		if got := s.asking.Load(); got != maxTries {
			t.Errorf("%d tries at once, want %d", got, maxTries)
		}
		<-time.After(3 * fetchTimeout)
		synctest.Wait()
		if asked, asking := s.asked.Load(), s.asking.Load(); asked < 3*maxTries || asking != maxTries {
			t.Errorf("asked %d times, and now %d at once", asked, asking)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if got := s.asking.Load(); got != 0 {
			t.Errorf("%d tries outlive it", got)
		}
	})
}
