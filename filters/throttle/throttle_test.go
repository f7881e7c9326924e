package throttle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/portico-proxy/portico/core/limit"
	"github.com/portico-proxy/portico/core/pipeline"
)

// steady is a Limiter without chance.
func steady(o Options) *Limiter {
	l := NewLimiter(o)
	l.jitter = func(int) int { return 0 }
	return l
}

func tokens(rate, burst float64) limit.Limit {
	return limit.Limit{
		Policy: "p", ID: "l", Key: []string{"k"}, Tokens: &limit.Tokens{Rate: rate, Burst: burst},
		Cost: limit.Cost{Fixed: 1}, OnExceed: limit.Reject, Applies: limit.Client, MaxDelay: time.Second,
	}
}

func inFlight(most int) limit.Limit {
	l := tokens(0, 0)
	l.Tokens, l.InFlight = nil, &limit.InFlight{Max: most}
	return l
}

// with changes a limit.
func with(l limit.Limit, change func(*limit.Limit)) limit.Limit {
	change(&l)
	return l
}

func delaying(d time.Duration) func(*limit.Limit) {
	return func(l *limit.Limit) { l.OnExceed, l.MaxDelay = limit.Delay, d }
}

// tries says of n requests that come at once, and are done at once, how many
// were let in.
func tries(t *testing.T, l *Limiter, n int, limits ...limit.Limit) int {
	t.Helper()
	in := 0
	for range n {
		p, err := l.enter(t.Context(), limits, "jane")
		if err == nil {
			in++
			p.leave(usage{})
		}
	}
	return in
}

// secondsOf is what a refused client is told.
func secondsOf(t *testing.T, err error) int {
	t.Helper()
	seconds, ok := apierrors.SuggestsClientDelay(err)
	if !apierrors.IsTooManyRequests(err) || !ok {
		t.Fatalf("got %v, want a 429 that says when to come back", err)
	}
	return seconds
}

func TestTokensComeAtTheirRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := steady(Options{})
		for _, step := range []struct {
			after time.Duration
			want  int
		}{{0, 3}, {0, 0}, {time.Second, 0}, {9 * time.Second, 1}, {time.Hour, 3}} {
			<-time.After(step.after)
			if got := tries(t, l, 10, tokens(0.1, 3)); got != step.want {
				t.Errorf("after %v %d were let in, want %d", step.after, got, step.want)
			}
		}
	})
}

func TestCostsAboveTheBurstAreClampedToIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := steady(Options{})
		dear := with(tokens(1, 3), func(l *limit.Limit) { l.Cost.Fixed = 128 })
		if tries(t, l, 2, dear) != 1 {
			t.Error("a request that costs more than the burst is not let in once")
		}
		<-time.After(3 * time.Second)
		if tries(t, l, 2, dear) != 1 {
			t.Error("a request that costs more than the burst is not let in again")
		}
	})
}

// TestSharesAreOfOneLimit has proxies come and go under a limit that they share.
func TestSharesAreOfOneLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		proxies := 0
		l := steady(Options{Proxies: func() int { return proxies }})
		shared := func(l *limit.Limit) { l.Scope = limit.ClusterShare }
		once, often, dear := with(tokens(0, 12), shared), with(tokens(10, 10), shared), with(tokens(10, 20), shared)
		once.ID, often.ID, dear.ID = "once", "often", "dear"
		dear.Cost.Fixed = 100
		if got := tries(t, l, 2, once); got != 2 {
			t.Errorf("%d of 2 were let in", got)
		}
		proxies = 4
		if got := tries(t, l, 9, once); got != 3 {
			t.Errorf("%d were let in of what is left of a share, want 3", got)
		}
		proxies = 1
		if got := tries(t, l, 9, once); got != 0 {
			t.Errorf("%d were let in of what had been taken", got)
		}
		// A share that is smaller than a request is kept to in the long run, by those
		// that cost much as well.
		proxies = 100
		for _, one := range []limit.Limit{often, dear} {
			let := 0
			for range 200 {
				let += tries(t, l, 3, one)
				<-time.After(time.Second)
			}
			want := 20 // a hundredth of ten a second, for 200 seconds
			if one.ID == "dear" {
				want = 1 // each costs twenty
			}
			if let != want {
				t.Errorf("%s: %d were let in, want %d", one.ID, let, want)
			}
		}
		for most, want := range map[int]int{0: 0, 1: 1, 10: 1, 250: 2} {
			if got := with(inFlight(most), shared).Of(proxies).InFlight.Max; got != want {
				t.Errorf("a hundredth of %d in flight is %d, want %d", most, got, want)
			}
		}
		if got := tokens(10, 10).Of(proxies); got.Tokens.Rate != 10 {
			t.Errorf("what is not shared became %v", got.Tokens)
		}
	})
}

func TestNoRateAndNoBurstIsABan(t *testing.T) {
	l := steady(Options{})
	for _, banned := range []limit.Limit{tokens(0, 0), inFlight(0), with(tokens(0, 0), delaying(time.Second))} {
		banned.ID += string(banned.OnExceed)
		if _, err := l.enter(t.Context(), []limit.Limit{banned}, "jane"); secondsOf(t, err) < 32 {
			t.Errorf("%+v: is told to come back soon", banned)
		}
	}
}

func TestRefusedRequestsTakeFromNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := steady(Options{})
		wide := tokens(1, 10)
		narrow := with(tokens(1, 2), func(l *limit.Limit) { l.ID = "narrow" })
		if got := tries(t, l, 10, wide, narrow); got != 2 {
			t.Errorf("%d were let in, want 2", got)
		}
		if got := tries(t, l, 10, wide); got != 8 {
			t.Errorf("%d are left, want 8: the refused ones took some", got)
		}
	})
}

func TestOneKeyNamedTwiceCountsOnce(t *testing.T) {
	l := steady(Options{})
	if got := tries(t, l, 1, tokens(0, 1), tokens(0, 1)); got != 1 {
		t.Error("a request took twice from one bucket")
	}
}

func TestRetryAfterIsWholeSecondsAndGrows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := steady(Options{})
		tries(t, l, 1, tokens(0.25, 1))
		var got []int
		for range 16 {
			_, err := l.enter(t.Context(), []limit.Limit{tokens(0.25, 1)}, "jane")
			got = append(got, secondsOf(t, err))
		}
		want := []int{4, 4, 4, 4, 4, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		<-time.After(4 * time.Second)
		tries(t, l, 1, tokens(0.25, 1))
		if _, err := l.enter(t.Context(), []limit.Limit{tokens(0.25, 1)}, "jane"); secondsOf(t, err) != 4 {
			t.Error("who was let in is not forgiven")
		}
	})
}

func TestRetryAfterIsAtLeastOneAndJittered(t *testing.T) {
	l := NewLimiter(Options{})
	l.jitter = func(n int) int { return n - 1 }
	tries(t, l, 1, tokens(1000, 1))
	b := l.buckets[keyOf(new(tokens(1000, 1)))]
	if got := secondsOf(t, l.refuse(&claim{limit: b.limit, bucket: b, wait: time.Millisecond})); got != 1 {
		t.Errorf("got %d seconds, want 1", got)
	}
	if got := secondsOf(t, l.refuse(&claim{limit: b.limit, bucket: b, wait: 10 * time.Second})); got != 15 {
		t.Errorf("got %d seconds, want 15", got)
	}
}

func TestInFlightLimitsHoldUntilTheyAreLeft(t *testing.T) {
	l := steady(Options{})
	first, err := l.enter(t.Context(), []limit.Limit{inFlight(1)}, "jane")
	if err != nil {
		t.Fatal(err)
	}
	if tries(t, l, 3, inFlight(1)) != 0 {
		t.Error("a second one was let in")
	}
	first.leave(usage{})
	if tries(t, l, 3, inFlight(1)) != 3 {
		t.Error("who left is still counted")
	}
}

func TestMeasuredCostsAreChargedAfterwards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := steady(Options{})
		bytes := with(tokens(2, 10), func(l *limit.Limit) { l.Cost = limit.Cost{From: limit.ResponseBytes, Per: 1000} })
		p, err := l.enter(t.Context(), []limit.Limit{bytes}, "jane")
		if err != nil {
			t.Fatal(err)
		}
		p.leave(usage{bytes: 20_000}) // 20 tokens, of which 10 were there
		if _, err := l.enter(t.Context(), []limit.Limit{bytes}, "jane"); secondsOf(t, err) != 5 {
			t.Errorf("got %v, want to be told to come back in 5 seconds", err)
		}
		<-time.After(5*time.Second + time.Millisecond)
		if tries(t, l, 1, bytes) != 1 {
			t.Error("who owes nothing is not let in")
		}
	})
}

func TestNobodyOwesMoreThanAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := steady(Options{})
		bytes := with(tokens(2, 10), func(l *limit.Limit) { l.Cost = limit.Cost{From: limit.ResponseBytes, Per: 1} })
		p, err := l.enter(t.Context(), []limit.Limit{bytes}, "jane")
		if err != nil {
			t.Fatal(err)
		}
		p.leave(usage{bytes: 1 << 40})
		<-time.After(61 * time.Second)
		if tries(t, l, 1, bytes) != 1 {
			t.Error("one large answer locks its reader out for more than a minute")
		}
	})
}

// queued starts n requests of each flow, in that order, that wait. It returns in
// which order they were let in once they all have been.
func queued(t *testing.T, l *Limiter, n int, lim limit.Limit, flows ...string) func() []string {
	var mu sync.Mutex
	var order []string
	var wg sync.WaitGroup
	for _, flow := range flows {
		for range n {
			wg.Go(func() {
				p, err := l.enter(t.Context(), []limit.Limit{lim}, flow)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				order = append(order, flow)
				mu.Unlock()
				p.leave(usage{})
			})
			synctest.Wait()
		}
	}
	return func() []string { wg.Wait(); return order }
}

func TestDelayedRequestsWaitTurnByTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := steady(Options{})
		slow := with(tokens(1, 1), delaying(time.Minute))
		tries(t, l, 1, slow)
		start := time.Now()
		got := queued(t, l, 3, slow, "busy", "calm", "meek")()
		want := []string{"busy", "calm", "meek", "busy", "calm", "meek", "busy", "calm", "meek"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("one caller's queue holds up the others: %s", diff)
		}
		if took := time.Since(start).Round(time.Second); took != 9*time.Second {
			t.Errorf("9 tokens took %v", took)
		}
		if l.waiting != 0 {
			t.Errorf("%d still count as waiting", l.waiting)
		}
	})
}

func TestNewcomersDoNotOvertake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := steady(Options{})
		slow := with(tokens(1, 1), delaying(time.Minute))
		tries(t, l, 1, slow)
		done := queued(t, l, 1, slow, "first", "second")
		<-time.After(999 * time.Millisecond)
		cheap := with(slow, func(l *limit.Limit) { l.Cost.Fixed = 0.1 })
		later := queued(t, l, 1, cheap, "third")
		if got := append(done(), later()...); !slices.Equal(got, []string{"first", "second", "third"}) {
			t.Errorf("they were let in as %v", got)
		}
	})
}

func TestWhoLeavesLetsTheNextIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := steady(Options{})
		one := with(inFlight(1), delaying(time.Minute))
		p, err := l.enter(t.Context(), []limit.Limit{one}, "jane")
		if err != nil {
			t.Fatal(err)
		}
		done := queued(t, l, 1, one, "joe", "ann")
		p.leave(usage{})
		if got := done(); !slices.Equal(got, []string{"joe", "ann"}) {
			t.Errorf("they were let in as %v", got)
		}
	})
}

func TestWaitingEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := steady(Options{})
		slow := with(inFlight(1), delaying(2*time.Second))
		if _, err := l.enter(t.Context(), []limit.Limit{slow}, "jane"); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if _, err := l.enter(t.Context(), []limit.Limit{slow}, "joe"); secondsOf(t, err) < 1 || time.Since(start) != 2*time.Second {
			t.Errorf("waited %v and got %v", time.Since(start), err)
		}
		gone, leave := context.WithTimeout(t.Context(), time.Second)
		defer leave()
		if _, err := l.enter(gone, []limit.Limit{slow}, "joe"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("who is gone got %v", err)
		}
		if l.waiting != 0 {
			t.Errorf("%d still count as waiting", l.waiting)
		}
	})
}

func TestNobodyWaitsInVain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := steady(Options{})
		slow := with(tokens(0.1, 1), delaying(time.Second))
		tries(t, l, 1, slow)
		start := time.Now()
		if _, err := l.enter(t.Context(), []limit.Limit{slow}, "jane"); secondsOf(t, err) != 10 || time.Since(start) != 0 {
			t.Errorf("waited %v and got %v", time.Since(start), err)
		}
	})
}

func TestQueuesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, leave := context.WithCancel(t.Context())
		l := steady(Options{Waiting: 100})
		slow := with(inFlight(1), delaying(10*time.Second))
		if _, err := l.enter(ctx, []limit.Limit{slow}, "jane"); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		defer wg.Wait()
		defer leave()
		for i := range 3 * maxFlow {
			wg.Go(func() { _, _ = l.enter(ctx, []limit.Limit{slow}, fmt.Sprint("flow", i%2)) })
		}
		synctest.Wait()
		if l.waiting != 100 {
			t.Errorf("%d wait, want 100", l.waiting)
		}
		for flow, waiting := range l.buckets[keyOf(&slow)].queue.flows {
			if len(waiting) > maxFlow {
				t.Errorf("%d of %s wait, want at most %d", len(waiting), flow, maxFlow)
			}
		}
	})
}

func TestWaitersMoveToTheLimitThatKeepsThemOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := steady(Options{})
		a := with(tokens(1, 1), delaying(time.Minute))
		b := with(tokens(0.5, 1), delaying(time.Minute))
		b.ID = "b"
		tries(t, l, 1, a)
		done := make(chan error)
		go func() {
			_, err := l.enter(t.Context(), []limit.Limit{a, b}, "jane")
			done <- err
		}()
		synctest.Wait()
		tries(t, l, 1, b) // while it waits for a
		start := time.Now()
		if err := <-done; err != nil || time.Since(start).Round(time.Second) != 2*time.Second {
			t.Errorf("after %v got %v", time.Since(start), err)
		}
		if l.waiting != 0 {
			t.Errorf("%d still count as waiting", l.waiting)
		}
	})
}

func TestBucketsAreForgottenByLastUse(t *testing.T) {
	l := steady(Options{Buckets: 3})
	key := func(k string) limit.Limit { return with(tokens(0, 1), func(l *limit.Limit) { l.Key = []string{k} }) }
	held, err := l.enter(t.Context(), []limit.Limit{key("held")}, "jane")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 1000 {
		tries(t, l, 1, key(fmt.Sprint(i)))
		tries(t, l, 1, key("kept"))
	}
	if l.Len() != 3 {
		t.Errorf("%d buckets, want 3", l.Len())
	}
	if tries(t, l, 1, key("kept")) != 0 {
		t.Error("a bucket in use was forgotten")
	}
	if tries(t, l, 1, key("held")) != 0 {
		t.Error("a bucket with a request in it was forgotten")
	}
	held.leave(usage{})
	long := key(strings.Repeat("long", 1<<16))
	if tries(t, l, 1, long) != 1 || len(keyOf(&long)) > maxKey {
		t.Error("long keys are kept whole")
	}
}

func TestChangedLimitsForgiveNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := steady(Options{})
		tries(t, l, 10, tokens(0, 10))
		if got := tries(t, l, 1, tokens(0, 20)); got != 0 {
			t.Error("a larger burst came filled")
		}
		<-time.After(time.Second)
		if got := tries(t, l, 10, tokens(2, 20)); got != 0 {
			t.Errorf("%d were let in before the new rate had time", got)
		}
		<-time.After(time.Second)
		if got := tries(t, l, 10, tokens(2, 20)); got != 2 {
			t.Errorf("%d were let in by the new rate, want 2", got)
		}
	})
}

// exchange is a request as it meets the filter.
func exchange(t testing.TB, path string, limits ...limit.Limit) (*httptest.ResponseRecorder, *http.Request) {
	t.Helper()
	infos := request.RequestInfoFactory{APIPrefixes: sets.NewString("api", "apis"), GrouplessAPIPrefixes: sets.NewString("api")}
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
	info, err := infos.NewRequestInfo(r)
	if err != nil {
		t.Fatal(err)
	}
	ctx := request.WithUser(request.WithRequestInfo(r.Context(), info), &user.DefaultInfo{Name: "jane"})
	return httptest.NewRecorder(), r.WithContext(limit.With(ctx, limits))
}

func ok(w http.ResponseWriter, _ *http.Request) error {
	_, err := io.WriteString(w, "ok")
	return err
}

func TestWarningsReachTheClient(t *testing.T) {
	for name, tt := range map[string]struct {
		change  func(*limit.Limit)
		code    int
		warning string
	}{
		"warn":   {func(l *limit.Limit) { l.OnExceed = limit.Warn }, 0, `299 - "do not\" loop (limit l)"`},
		"audit":  {func(l *limit.Limit) { l.Audit = true }, 0, ""},
		"reject": {func(*limit.Limit) {}, 429, `299 - "do not\" loop (limit l)"`},
	} {
		t.Run(name, func(t *testing.T) {
			f := &Filter{Limiter: steady(Options{})}
			l := with(with(tokens(0, 1), tt.change), func(l *limit.Limit) { l.Message = "do\nnot\" loop" })
			tries(t, f.Limiter, 1, l)
			w, r := exchange(t, "/api/v1/pods", l)
			err := f.ServeHTTP(w, r, pipeline.HandlerFunc(ok))
			if code := codeOf(err); code != tt.code || strings.Join(w.Header()["Warning"], "") != tt.warning {
				t.Errorf("got %d and %q, want %d and %q", code, w.Header()["Warning"], tt.code, tt.warning)
			}
		})
	}
}

// TestWhoWasRefusedIsToldWithTheNextAnswer is for clients that try again by
// themselves.
func TestWhoWasRefusedIsToldWithTheNextAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &Filter{Limiter: steady(Options{})}
		var warned []bool
		for _, after := range []time.Duration{0, 0, time.Second, time.Second} {
			<-time.After(after)
			w, r := exchange(t, "/api/v1/pods", tokens(1, 1))
			if err := f.ServeHTTP(w, r, pipeline.HandlerFunc(ok)); err == nil {
				warned = append(warned, w.Header().Get("Warning") != "")
			}
		}
		if diff := cmp.Diff([]bool{false, true, false}, warned); diff != "" {
			t.Error(diff)
		}
	})
}

func codeOf(err error) int {
	if err == nil {
		return 0
	}
	return int(pipeline.StatusOf(err).Code)
}

func TestUpstreamLimitsConcernOnlyWhatGoesThere(t *testing.T) {
	f := &Filter{Limiter: steady(Options{})}
	l := with(tokens(0, 1), func(l *limit.Limit) { l.Applies = limit.Upstream })
	door := f.Upstream(pipeline.HandlerFunc(ok))
	for i, next := range []pipeline.Handler{pipeline.HandlerFunc(ok), pipeline.HandlerFunc(ok), door, door} {
		w, r := exchange(t, "/api/v1/pods", l)
		if err := f.ServeHTTP(w, r, next); (err != nil) != (i == 3) {
			t.Errorf("request %d: got %v", i, err)
		}
	}
}

func TestServeCachedAsksMemoryAndNobodyElse(t *testing.T) {
	l := with(tokens(0, 0), func(l *limit.Limit) { l.OnExceed = limit.ServeCached })
	for name, tt := range map[string]struct {
		path, want string
		memory     bool
		code       int
	}{
		"memory-has-it":   {"/api/v1/pods?limit=5", "limit=5&resourceVersion=0", true, 0},
		"any-will-do":     {"/api/v1/pods?resourceVersion=7", "resourceVersion=7", true, 0},
		"no-memory":       {"/api/v1/pods", "resourceVersion=0", false, 429},
		"memory-does-not": {"/apis/apps/v1/deployments", "resourceVersion=0", false, 429},
	} {
		t.Run(name, func(t *testing.T) {
			f := &Filter{Limiter: steady(Options{}), Ask: func(r *http.Request) (*http.Request, bool) { return r, tt.memory }}
			var asked string
			next := pipeline.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
				asked = r.URL.RawQuery
				return ok(w, r)
			})
			w, r := exchange(t, tt.path, l)
			err := f.ServeHTTP(w, r, next)
			if codeOf(err) != tt.code || err == nil && asked != tt.want {
				t.Errorf("got %v, asked for %q", err, asked)
			}
			if err == nil && !strings.Contains(w.Header().Get("Warning"), "older") {
				t.Errorf("the client is not told: %q", w.Header())
			}
			if r.URL.RawQuery != strings.TrimPrefix(tt.path[strings.IndexByte(tt.path+"?", '?'):], "?") {
				t.Errorf("the request itself was changed: %q", r.URL.RawQuery)
			}
			w, r = exchange(t, tt.path, l)
			if err := f.ServeHTTP(w, r, f.Upstream(next)); codeOf(err) != 429 {
				t.Errorf("what memory had no answer to went upstream: %v", err)
			}
		})
	}
}

func TestWatchesAreChargedWhileTheyLast(t *testing.T) {
	f := &Filter{Limiter: steady(Options{})}
	l := with(tokens(0, 10), func(l *limit.Limit) { l.Cost = limit.Cost{From: limit.ResponseBytes, Per: 100_000} })
	w, r := exchange(t, "/api/v1/pods?watch=1", l)
	err := f.ServeHTTP(w, r, pipeline.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) error {
		for range 20 {
			if _, err := w.Write(make([]byte, 64<<10)); err != nil {
				return err
			}
		}
		if got := tries(t, f.Limiter, 1, l); got != 0 {
			t.Error("a watch that has sent 1.3 MB has cost nothing yet")
		}
		return nil
	}))
	if err != nil {
		t.Error(err)
	}
}

// TestClientGoKeepsToRetryAfter has client-go's own client wait for as long as it
// is told, and then get what it asked for.
func TestClientGoKeepsToRetryAfter(t *testing.T) {
	f := &Filter{Limiter: steady(Options{})}
	refusals := 0
	srv := httptest.NewServer(&pipeline.Server{Log: logr.Discard(), Handler: pipeline.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		r = r.WithContext(limit.With(r.Context(), []limit.Limit{tokens(1, 1)}))
		err := f.ServeHTTP(w, r, pipeline.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) error {
			w.Header().Set("Content-Type", "application/json")
			_, err := io.WriteString(w, `{"kind":"PodList","apiVersion":"v1","items":[]}`)
			return err
		}))
		if err != nil {
			refusals++
		}
		return err
	})})
	defer srv.Close()
	client, err := kubernetes.NewForConfigAndClient(&rest.Config{Host: srv.URL, QPS: -1}, srv.Client())
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	for range 2 {
		if _, err := client.CoreV1().Pods("").List(t.Context(), metav1.ListOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if refusals == 0 || time.Since(start) < time.Second {
		t.Errorf("%d refusals, and two lists after %v", refusals, time.Since(start))
	}
}

func TestHammerOfManyCallers(t *testing.T) {
	l := steady(Options{Buckets: 50})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := range 300 {
				limits := []limit.Limit{
					with(with(tokens(1e6, 2), delaying(10*time.Millisecond)), func(l *limit.Limit) { l.Key = []string{fmt.Sprint(n % 7)} }),
					with(with(inFlight(2), delaying(10*time.Millisecond)), func(l *limit.Limit) { l.ID, l.Key = "f", []string{fmt.Sprint(n % 90)} }),
				}
				p, err := l.enter(t.Context(), limits, fmt.Sprint(i))
				if err == nil {
					p.leave(usage{bytes: 10})
				}
			}
		})
	}
	wg.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.waiting != 0 || len(l.buckets) > 50 {
		t.Errorf("%d wait, %d buckets", l.waiting, len(l.buckets))
	}
	for _, b := range l.buckets {
		if !b.idle() || len(b.queue.turns) > 0 {
			t.Errorf("bucket %q is not idle: %d running, %d queued", b.key, b.running, b.queue.length)
		}
	}
}

func BenchmarkEnter(b *testing.B) {
	l := NewLimiter(Options{})
	limits := []limit.Limit{tokens(1e9, 1e9), with(inFlight(100), func(l *limit.Limit) { l.ID = "f" })}
	b.ReportAllocs()
	for b.Loop() {
		p, err := l.enter(b.Context(), limits, "jane")
		if err != nil {
			b.Fatal(err)
		}
		p.leave(usage{})
	}
}

// BenchmarkWithoutLimits is what requests pay that no limit concerns.
func BenchmarkWithoutLimits(b *testing.B) {
	f := &Filter{Limiter: NewLimiter(Options{})}
	r := httptest.NewRequestWithContext(b.Context(), http.MethodGet, "/api/v1/pods", nil)
	next := pipeline.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return nil })
	b.ReportAllocs()
	for b.Loop() {
		_ = f.ServeHTTP(nil, r, next)
	}
}
