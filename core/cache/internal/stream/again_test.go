package stream

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/portico-proxy/portico/core/cache/wire"
	"github.com/portico-proxy/portico/core/upstream"
)

// line is an upstream with nothing between, so that all waiting is for the bubble's
// own clock.
type line struct {
	mu    sync.Mutex // guards following
	asked []asked
	says  []reply // one after another; the last one for ever

	// silent watches are asked about, which is answered and not counted.
	silent bool
}

type asked struct {
	at    time.Time
	query url.Values
}

type reply func(*http.Request) (*http.Response, error)

func (l *line) RoundTrip(r *http.Request) (*http.Response, error) {
	if l.silent && r.URL.Query().Get("limit") != "" {
		return sends(listAt12, io.EOF)(r)
	}
	l.mu.Lock()
	says := l.says[0]
	l.asked = append(l.asked, asked{time.Now(), r.URL.Query()})
	if len(l.says) > 1 {
		l.says = l.says[1:]
	}
	l.mu.Unlock()
	return says(r)
}

// from has it say something else from now on.
func (l *line) from(says ...reply) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.says = says
}

// requests are those since the last call.
func (l *line) requests() []asked {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := l.asked
	l.asked = nil
	return all
}

func fails(err error) reply {
	return func(*http.Request) (*http.Response, error) { return nil, err }
}

func refuses(code int, retryAfter string) reply {
	return func(*http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: code, Header: http.Header{"Retry-After": {retryAfter}}, Body: io.NopCloser(strings.NewReader("not now"))}, nil
	}
}

// sends answers with text, and then err; nil goes on until the request ends.
func sends(text string, err error) reply {
	return func(r *http.Request) (*http.Response, error) {
		end := iotest.ErrReader(err)
		if err == nil {
			end = silent{r.Context()}
		}
		body := io.NopCloser(io.MultiReader(strings.NewReader(text), end))
		return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}}, Body: body}, nil
	}
}

type silent struct{ ctx context.Context }

func (s silent) Read([]byte) (int, error) {
	<-s.ctx.Done()
	return 0, s.ctx.Err()
}

const (
	initial    = `{"type":"ADDED","object":{"kind":"Pod","apiVersion":"v1","metadata":{"name":"1","namespace":"a","resourceVersion":"3"}}}` + "\n" + initialEnd
	initialEnd = `{"type":"BOOKMARK","object":{"kind":"Pod","apiVersion":"v1","metadata":{"resourceVersion":"10","annotations":{"k8s.io/initial-events-end":"true"}}}}` + "\n"
	bookmark   = `{"type":"BOOKMARK","object":{"kind":"Pod","apiVersion":"v1","metadata":{"resourceVersion":"RV"}}}` + "\n"
	listAt12   = `{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"12"},"items":[]}`
)

var (
	errRefused = &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	errLost    = errors.New("http2: client connection lost")
)

// along runs a stream on l in a bubble of its own.
func along(t *testing.T, l *line, do func(t *testing.T, s *Stream)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s := New(ctx, Options{
			Schema: pods, Format: wire.JSON, Source: &Source{Transport: l, Base: &url.URL{Scheme: "https", Host: "upstream"}}, Budget: &Budget{}, Log: logr.Discard(),
		})
		stopped := make(chan struct{})
		go func() { s.Run(); close(stopped) }()
		do(t, s)
		cancel()
		<-stopped
	})
}

// TestReconnectsAreBackedOffAndLeftToChance has nobody be there for a while.
func TestReconnectsAreBackedOffAndLeftToChance(t *testing.T) {
	var gaps [2][]time.Duration
	for i := range gaps {
		l := &line{says: []reply{fails(errRefused)}}
		along(t, l, func(t *testing.T, _ *Stream) {
			<-time.After(10 * time.Minute)
			all := l.requests()
			for n, low := 1, firstDelay; n < len(all); n, low = n+1, min(2*low, lastDelay) {
				gap := all[n].at.Sub(all[n-1].at)
				if gap < low || gap > 2*low {
					t.Errorf("asked after %v, want %v to %v", gap, low, 2*low)
				}
				gaps[i] = append(gaps[i], gap)
			}
			if len(all) > 30 {
				t.Errorf("asked %d times in ten minutes", len(all))
			}
		})
	}
	if gaps[0][0] == gaps[1][0] && gaps[0][1] == gaps[1][1] {
		t.Errorf("both streams waited %v", gaps[0])
	}
}

// TestStreamsGoOnWhereTheyWere breaks what a stream is fed by, in all ways that say
// nothing about the collection.
func TestStreamsGoOnWhereTheyWere(t *testing.T) {
	for name, c := range map[string]struct {
		end  error
		says []reply
	}{
		"ended":          {end: io.EOF},
		"cut":            {end: io.ErrUnexpectedEOF},
		"lost":           {end: errLost},
		"refused":        {io.EOF, []reply{fails(errRefused), fails(errRefused)}},
		"reset":          {io.EOF, []reply{fails(&net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET})}},
		"lost-at-once":   {errLost, []reply{fails(errLost)}},
		"no-handshake":   {io.EOF, []reply{fails(context.DeadlineExceeded)}},
		"busy":           {io.EOF, []reply{refuses(http.StatusTooManyRequests, "1")}},
		"unavailable":    {io.EOF, []reply{refuses(http.StatusServiceUnavailable, ""), refuses(http.StatusBadGateway, "")}},
		"failing":        {io.EOF, []reply{refuses(http.StatusInternalServerError, ""), refuses(http.StatusGatewayTimeout, "")}},
		"opens-and-ends": {io.EOF, []reply{sends("", io.EOF), sends("", io.ErrUnexpectedEOF), sends("", errLost)}},
		"starting":       {io.EOF, []reply{refuses(http.StatusForbidden, ""), refuses(http.StatusUnauthorized, ""), refuses(http.StatusForbidden, "")}},
		"starting-twice": {io.EOF, []reply{refuses(http.StatusForbidden, ""), refuses(http.StatusServiceUnavailable, "20"), refuses(http.StatusForbidden, "")}},
		"half-an-event":  {io.EOF, []reply{sends(`{"type":"MODIFIED","obj`, errLost)}},
	} {
		t.Run(name, func(t *testing.T) {
			l := &line{says: append(append([]reply{sends(initial, c.end)}, c.says...), sends("", nil)), silent: true}
			along(t, l, func(t *testing.T, s *Stream) {
				<-time.After(time.Minute)
				all := l.requests()
				if len(all) != len(c.says)+2 {
					t.Errorf("%d requests, want %d", len(all), len(c.says)+2)
				}
				for _, again := range all[1:] {
					if again.query.Get("resourceVersion") != "10" || again.query.Get("sendInitialEvents") != "" || again.query.Get("watch") == "" {
						t.Errorf("asked for %v", again.query)
					}
				}
				if n := s.counts.Resets.Load(); n != 1 {
					t.Errorf("began %d times", n)
				}
			})
		})
	}
}

// TestRefusalsThatLastAreBelieved has the proxy lose its rights to a collection.
func TestRefusalsThatLastAreBelieved(t *testing.T) {
	l := &line{says: []reply{sends(initial, io.EOF), refuses(http.StatusForbidden, "")}, silent: true}
	along(t, l, func(t *testing.T, s *Stream) {
		begun := time.Now()
		<-s.Done()
		if took := time.Since(begun); took < doubt || took > 3*doubt {
			t.Errorf("believed after %v, want %v", took, doubt)
		}
		if !apierrors.IsForbidden(s.Err()) {
			t.Errorf("ended by %v", s.Err())
		}
	})
}

// TestCollectionsAreListedWhereTheyCannotBeStreamed has upstream not know how to send
// objects by a watch.
func TestCollectionsAreListedWhereTheyCannotBeStreamed(t *testing.T) {
	for _, code := range []int{http.StatusNotImplemented, http.StatusHTTPVersionNotSupported} {
		l := &line{says: []reply{func(r *http.Request) (*http.Response, error) {
			switch q := r.URL.Query(); {
			case q.Get("sendInitialEvents") != "":
				return refuses(code, "")(r)
			case q.Get("watch") != "":
				return sends("", nil)(r)
			}
			return sends(listAt12, io.EOF)(r)
		}}}
		along(t, l, func(t *testing.T, s *Stream) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if st := s.Loaded(ctx); st == nil || st.Applied != 12 {
				t.Errorf("after a %d: nothing but %v", code, l.requests())
			}
		})
	}
}

// TestBrokenLoadsAreBackedOff has the line break whenever a collection has been half
// loaded.
func TestBrokenLoadsAreBackedOff(t *testing.T) {
	half, _, _ := strings.Cut(initial, "\n")
	l := &line{says: []reply{sends(half+"\n", errLost)}}
	along(t, l, func(t *testing.T, s *Stream) {
		<-time.After(time.Minute)
		if n := len(l.requests()); n < 3 || n > 8 {
			t.Errorf("asked %d times in a minute", n)
		}
		l.from(sends(initial, nil))
		if st := s.Loaded(t.Context()); st.Len() != 1 || st.Applied != 10 {
			t.Errorf("%d objects at %d", st.Len(), st.Applied)
		}
	})
}

// TestRetryAfterIsRespected has upstream say when to come again.
func TestRetryAfterIsRespected(t *testing.T) {
	for _, code := range []int{http.StatusTooManyRequests, http.StatusServiceUnavailable} {
		l := &line{says: []reply{refuses(code, "17"), sends(initial, io.EOF), refuses(code, "17"), sends("", nil)}, silent: true}
		along(t, l, func(t *testing.T, s *Stream) {
			s.Loaded(t.Context())
			<-time.After(5 * time.Second) // the watch has been refused
			before := l.requests()
			s.CatchUp(20)
			_, asked := s.Current(t.Context())
			_, fetched := s.Fetch("/api/v1/pods", nil, "application/json")
			_, past := s.Past(t.Context(), "/api/v1/pods", url.Values{}, 5)
			for _, err := range []error{asked, fetched, past} {
				var paused *PausedError
				var said apierrors.APIStatus
				if !errors.As(err, &paused) || !errors.As(paused.said, &said) || said.Status().Code != int32(code) || upstream.IsGone(err) {
					t.Errorf("got %v, want what upstream said, but not that it is gone", err)
				}
			}
			if early := l.requests(); len(early) > 0 {
				t.Errorf("asked for %v meanwhile", early)
			}
			<-time.After(time.Minute)
			all := append(before, l.requests()...)
			if len(all) != 4 {
				t.Fatalf("%d requests", len(all))
			}
			for _, n := range []int{1, 3} {
				if gap := all[n].at.Sub(all[n-1].at); gap < 17*time.Second {
					t.Errorf("asked again after %v", gap)
				}
			}
		})
	}
}

// TestRefusedQuestionsAreAskedAgainForAll has upstream have no time for a question that
// a hundred wait for.
func TestRefusedQuestionsAreAskedAgainForAll(t *testing.T) {
	l := &line{says: []reply{sends(initial, nil)}}
	along(t, l, func(t *testing.T, s *Stream) {
		s.Loaded(t.Context())
		synctest.Wait()
		l.from(refuses(http.StatusTooManyRequests, "1"), sends(listAt12, io.EOF))
		l.requests()
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() {
				if rv, err := s.Current(t.Context()); rv != 12 || err != nil {
					t.Errorf("%d, %v", rv, err)
				}
			})
		}
		all.Wait()
		asked := l.requests()
		if len(asked) != 3 { // of whom one set out before the others came
			t.Errorf("asked %d times", len(asked))
		}
		if gap := asked[1].at.Sub(asked[0].at); gap < time.Second {
			t.Errorf("asked again after %v", gap)
		}
	})
}

// TestReadersAreNotKeptWaitingForABackOff has upstream come back long after it was
// lost, and then somebody ask.
func TestReadersAreNotKeptWaitingForABackOff(t *testing.T) {
	l := &line{says: []reply{fails(errRefused)}}
	along(t, l, func(t *testing.T, s *Stream) {
		<-time.After(10 * time.Minute)
		l.from(sends(initial, nil))
		l.requests()
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() {
				if st := s.Awaited(ctx); st == nil {
					t.Error("waited in vain")
				}
			})
		}
		all.Wait()
		if n := len(l.requests()); n != 1 {
			t.Errorf("%d requests", n)
		}
	})
}

// TestWatchesWithoutBookmarksAreRemembered has a catch-up watch end as if its time were
// over, and a later one prove something.
func TestWatchesWithoutBookmarksAreRemembered(t *testing.T) {
	l := &line{says: []reply{sends(initial, nil)}}
	along(t, l, func(t *testing.T, s *Stream) {
		s.Loaded(t.Context())
		for _, c := range []struct {
			says   string
			barren bool
		}{{"", true}, {strings.Replace(bookmark, "RV", "12", 1), false}, {"", true}} {
			synctest.Wait()
			l.from(sends(c.says, io.EOF))
			s.CatchUp(s.State().Applied + 2)
			synctest.Wait()
			if s.IsBarren() != c.barren {
				t.Errorf("after %q: barren %t", c.says, s.IsBarren())
			}
		}
	})
}

// TestCatchUpsForLatecomersAreTried has somebody want more while the last watch is under
// way that was to be tried for another.
func TestCatchUpsForLatecomersAreTried(t *testing.T) {
	l := &line{says: []reply{sends(initial, nil)}}
	along(t, l, func(t *testing.T, s *Stream) {
		s.Loaded(t.Context())
		synctest.Wait()
		late := func(r *http.Request) (*http.Response, error) {
			s.CatchUp(13)
			return sends("", io.EOF)(r)
		}
		l.from(sends("", io.EOF), late, sends(strings.Replace(bookmark, "RV", "13", 1), io.EOF))
		s.CatchUp(12)
		synctest.Wait()
		if st := s.State(); st.Applied != 13 {
			t.Errorf("caught up to %d", st.Applied)
		}
	})
}
