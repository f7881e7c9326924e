package throttle

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr/funcr"
	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/portico-proxy/portico/core/limit"
	"github.com/portico-proxy/portico/core/pipeline"
)

// from is a request for path from an address, with a credential.
func from(t testing.TB, address, credential, path string) (*httptest.ResponseRecorder, *http.Request) {
	t.Helper()
	w, r := exchange(t, path)
	r.RemoteAddr = address + ":1234"
	r.Header.Set("Authorization", credential)
	local := &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1)}
	return w, r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, local))
}

// posted is a request that creates something.
func posted(t testing.TB, address, path string) *http.Request {
	t.Helper()
	_, r := from(t, address, "", path)
	info, err := (&request.RequestInfoFactory{APIPrefixes: sets.NewString("api", "apis"), GrouplessAPIPrefixes: sets.NewString("api")}).
		NewRequestInfo(&http.Request{Method: http.MethodPost, URL: r.URL})
	if err != nil {
		t.Fatal(err)
	}
	r.Method = http.MethodPost
	return r.WithContext(request.WithRequestInfo(r.Context(), info))
}

const (
	onePod  = "/api/v1/namespaces/shop/pods/web"
	allPods = "/api/v1/pods"
	oneRule = "/api/v1/pods?watch=true"
	aLease  = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1"
	version = "/version"
)

func TestKindsOfRequests(t *testing.T) {
	for path, want := range map[string]kind{
		onePod: ordinary, allPods: lists, oneRule: streams, aLease: vital, version: discover, "/apis/apps/v1": discover, "/metrics": ordinary,
		onePod + "/log?follow=true": streams, onePod + "/exec": streams, "/api/v1/namespaces/shop/services/web/proxy/": streams,
	} {
		if _, r := from(t, "10.0.0.9", "", path); kindOf(r) != want {
			t.Errorf("%s counts as %s, want %s", path, kindOf(r), want)
		}
	}
	_, beat := from(t, "10.0.0.9", "", "/api/v1/nodes/n1/status")
	if beat.Method = http.MethodPatch; kindOf(beat) != vital {
		t.Errorf("a heartbeat counts as %s", kindOf(beat))
	}
	for path, want := range map[string]kind{
		"/apis/authentication.k8s.io/v1/tokenreviews": vital, "/apis/authorization.k8s.io/v1/subjectaccessreviews": vital,
		"/api/v1/namespaces/shop/serviceaccounts/web/token": vital, "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews": discover,
		"/apis/authentication.k8s.io/v1/selfsubjectreviews": discover, "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews": discover,
	} {
		if got := kindOf(posted(t, "10.0.0.9", path)); got != want {
			t.Errorf("a POST of %s counts as %s, want %s", path, got, want)
		}
	}
}

// held is a handler whose requests stay until release.
type held struct {
	release chan struct{}
	mu      sync.Mutex
	served  []string
}

func (h *held) ServeHTTP(_ http.ResponseWriter, r *http.Request) error {
	h.mu.Lock()
	h.served = append(h.served, strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
	h.mu.Unlock()
	<-h.release
	return nil
}

func share(s Shares) *Share { return NewShare(steady(Options{}), s, nil) }

// send has f answer r by h, and returns what becomes of it.
func send(f *Share, h pipeline.Handler, w http.ResponseWriter, r *http.Request) chan error {
	done := make(chan error, 1)
	go func() { done <- f.ServeHTTP(w, r, h) }()
	return done
}

func TestCallersTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, h := share(Shares{Requests: 4}), &held{release: make(chan struct{})}
		var all []chan error
		ask := func(n int, credential string) {
			for range n {
				w, r := from(t, "127.0.0.1", "Bearer "+credential, onePod)
				all = append(all, send(f, h, w, r))
				synctest.Wait()
			}
		}
		ask(8, "greedy")
		if diff := cmp.Diff([]string{"greedy", "greedy", "greedy"}, h.served); diff != "" {
			t.Errorf("one caller has more than three quarters: %s", diff)
		}
		ask(3, "modest")
		for range all {
			h.release <- struct{}{}
			synctest.Wait()
		}
		for _, done := range all {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		want := strings.Fields("greedy greedy greedy modest modest modest greedy greedy greedy greedy greedy")
		if diff := cmp.Diff(want, h.served); diff != "" {
			t.Errorf("who came later, and asks for less, has no turn before: %s", diff)
		}
	})
}

func TestManyCredentialsFromElsewhereAreOneCaller(t *testing.T) {
	f := share(Shares{})
	flow := func(address, credential string) string {
		_, r := from(t, address, credential, onePod)
		return f.flowOf(r)
	}
	if flow("10.0.0.9", "Bearer a") != flow("10.0.0.9", "Bearer b") {
		t.Error("another token from the same pod makes another caller")
	}
	if flow("10.0.0.9", "") == flow("10.0.0.8", "") {
		t.Error("two addresses are one caller")
	}
	if flow("[2001:db8::1]", "") != flow("[2001:db8::2]", "") || flow("[2001:db8::1]", "") == flow("[2001:db8:0:1::1]", "") {
		t.Error("a host of IPv6 is as many callers as it likes, or all are one")
	}
	for _, address := range []string{"127.0.0.1", "10.0.0.1"} { // what runs on the node itself
		if flow(address, "Bearer a") == flow(address, "Bearer b") {
			t.Errorf("everybody on %s is one caller", address)
		}
		if flow(address, "Bearer a") != flow(address, " bearer a b") || flow(address, "") != flow(address, "Basic b") {
			t.Errorf("who writes the same credential in other ways is another caller on %s", address)
		}
	}
	certified := func(raw string) string {
		_, r := from(t, "127.0.0.1", "", onePod)
		r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{{Raw: []byte(raw)}}}
		return f.flowOf(r)
	}
	if certified("kubelet") == certified("agent") || strings.Contains(flow("127.0.0.1", "Bearer secret"), "secret") {
		t.Error("certificates do not tell callers apart, or credentials are kept")
	}
}

func TestVitalRequestsWaitForNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, h := share(Shares{Requests: 1, Lists: 1, Streams: 1, Discovery: 8, Vital: 8}), &held{release: make(chan struct{})}
		var all []chan error
		for _, path := range []string{onePod, allPods, oneRule} {
			w, r := from(t, "10.0.0.9", "", path)
			all = append(all, send(f, h, w, r))
		}
		for i := range 9 { // one of them waits
			w, r := from(t, fmt.Sprint("10.0.1.", i), "", version)
			all = append(all, send(f, h, w, r))
		}
		synctest.Wait()
		w, r := from(t, "10.0.0.9", "", aLease)
		all = append(all, send(f, h, w, r))
		synctest.Wait()
		if want := 3 + 8 + 1; len(h.served) != want {
			t.Errorf("%d of %d are being answered", len(h.served), want)
		}
		close(h.release)
		for _, done := range all {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	})
}

func TestWhatHasNoRoomIsRefused(t *testing.T) {
	for name, of := range map[string]struct {
		path   string
		header string
		most   int
		wait   time.Duration
	}{
		"watches":       {oneRule, "", 30, 0},
		"bulky":         {onePod, strings.Repeat("x", limit.LargeHead), 1, 0},
		"bulky-watches": {oneRule, strings.Repeat("x", limit.LargeHead), bulkyShare * shareOf / 8, 0},
		"lists":         {allPods, "", 3, shareDelay},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, h := share(Shares{Streams: 40, Lists: 4}), &held{release: make(chan struct{})}
				var all []chan error
				for range of.most {
					w, r := from(t, "10.0.0.9", "", of.path)
					r.Header.Set("X-Long", of.header)
					all = append(all, send(f, h, w, r))
				}
				synctest.Wait()
				start := time.Now()
				w, r := from(t, "10.0.0.9", "", of.path)
				r.Header.Set("X-Long", of.header)
				if err := f.ServeHTTP(w, r, h); codeOf(err) != http.StatusTooManyRequests || time.Since(start) != of.wait || secondsOf(t, err) < 1 {
					t.Errorf("one more got %v after %v", err, time.Since(start))
				}
				close(h.release)
				for _, done := range all {
					if err := <-done; err != nil {
						t.Error(err)
					}
				}
			})
		})
	}
}

func TestNothingIsBegunWhereMemoryIsShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		live := uint64(0)
		said := 0
		log := funcr.New(func(string, string) { said++ }, funcr.Options{})
		p := &Pressure{limit: 1000, read: func() uint64 { return live }, collect: func() {}, now: time.Now, log: log}
		counted := 0
		f := NewShare(steady(Options{Count: func(_, limit, _ string) {
			if limit == "memory" {
				counted++
			}
		}}), Shares{}, p)
		code := func(path string) int {
			w, r := from(t, "10.0.0.9", "", path)
			if err := f.ServeHTTP(w, r, pipeline.HandlerFunc(ok)); err != nil {
				return codeOf(err)
			}
			return w.Code
		}
		for _, step := range []struct {
			live       uint64
			pods, beat int
		}{{799, 200, 200}, {900, 429, 200}, {100, 200, 200}} {
			live = step.live
			<-time.After(lookEvery)
			if got := []int{code(onePod), code(aLease)}; got[0] != step.pods || got[1] != step.beat {
				t.Errorf("with %d of 1000 in use got %v", live, got)
			}
		}
		if counted != 1 {
			t.Errorf("%d refusals were counted, want 1", counted)
		}
		for _, step := range []struct {
			live uint64
			wait time.Duration
			said int
		}{{900, lookEvery, 1}, {100, lookEvery, 1}, {900, lookEvery, 1}, {100, 2 * calm, 1}, {900, lookEvery, 2}, {900, 30 * time.Second, 2}} {
			live = step.live
			<-time.After(step.wait)
			if p.IsHigh(); said != step.said {
				t.Errorf("with %d of 1000 in use it was logged %d times, want %d", live, said, step.said)
			}
		}
		if (*Pressure)(nil).IsHigh() {
			t.Error("without a limit there is pressure")
		}
	})
}

// TestPressureEndsByItself has what is known of the heap change with collections
// alone, as it does, and nothing bring those about.
func TestPressureEndsByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		heap, live, collections := uint64(900), uint64(900), 0
		p := &Pressure{limit: 1000, read: func() uint64 { return live }, collect: func() { live = heap; collections++ }, now: time.Now}
		if !p.IsHigh() {
			t.Error("no pressure at 900 of 1000")
		}
		heap = 100
		for range 2 * collectEvery / lookEvery {
			<-time.After(lookEvery)
			p.IsHigh()
		}
		if p.IsHigh() || collections != 2 {
			t.Errorf("pressure: %v after %d collections", p.IsHigh(), collections)
		}
	})
}

func TestLiveHeapIsKnown(t *testing.T) {
	block := bytes.Repeat([]byte("x"), 8<<20)
	if got := liveHeap(); got == 0 {
		t.Errorf("the heap has %d bytes with a block of %d", got, len(block))
	}
}

// FuzzFlow has callers show what they like.
func FuzzFlow(f *testing.F) {
	f.Add("10.0.0.9:1", "Bearer x")
	f.Add("[::1]:1", "")
	f.Add("", "\x00")
	f.Fuzz(func(t *testing.T, address, credential string) {
		s := share(Shares{})
		_, r := from(t, "", credential, onePod)
		r.RemoteAddr = address
		if len(s.flowOf(r)) > len(address)+14 {
			t.Errorf("a flow of %d bytes", len(s.flowOf(r)))
		}
		_ = limit.HeadSize(r)
	})
}

func BenchmarkShare(b *testing.B) {
	f := share(Shares{})
	_, r := from(b, "10.0.0.9", "Bearer x", onePod)
	next := pipeline.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return nil })
	b.ReportAllocs()
	for b.Loop() {
		if err := f.ServeHTTP(nil, r, next); err != nil {
			b.Fatal(fmt.Errorf("share: %w", err))
		}
	}
}

// stuck is a connection that only a deadline ends.
type stuck struct {
	http.ResponseWriter
	read, wrote chan time.Time
}

func (s stuck) SetReadDeadline(at time.Time) error  { s.read <- at; return nil }
func (s stuck) SetWriteDeadline(at time.Time) error { s.wrote <- at; return nil }

func TestWhoNeitherSendsNorReadsLosesItsPlace(t *testing.T) {
	for path, want := range map[string]time.Duration{onePod: answerTime, allPods: answerTime, aLease: vitalTime} {
		synctest.Test(t, func(t *testing.T) {
			f := share(Shares{})
			w, r := from(t, "10.0.0.9", "", path)
			c := stuck{ResponseWriter: w, read: make(chan time.Time), wrote: make(chan time.Time)}
			start := time.Now()
			_ = f.ServeHTTP(c, r, pipeline.HandlerFunc(func(http.ResponseWriter, *http.Request) error {
				<-c.read
				<-c.wrote
				return nil
			}))
			if took := time.Since(start); took != want {
				t.Errorf("%s was cut after %v, want %v", path, took, want)
			}
		})
	}
}

func TestRequestsThatEndAreNotCutLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := share(Shares{})
		w, r := from(t, "10.0.0.9", "", onePod)
		c := stuck{ResponseWriter: w, read: make(chan time.Time, 1), wrote: make(chan time.Time, 1)}
		if err := f.ServeHTTP(c, r, pipeline.HandlerFunc(ok)); err != nil {
			t.Fatal(err)
		}
		<-time.After(2 * answerTime)
		if len(c.read)+len(c.wrote) > 0 {
			t.Error("the next request on the connection was cut")
		}
	})
}
