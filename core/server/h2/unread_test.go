package h2

import (
	"math"
	"net/http"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// deaf is a client that takes no bodies of answers, and asks for n.
func deaf(t *testing.T, dialed *peer, n int) *peer {
	t.Helper()
	dialed.must(dialed.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}))
	for i := range n {
		dialed.ask(uint32(2*i+1), true, get("/")...)
		dialed.awaitStatus(uint32(2*i+1), "200")
	}
	return dialed
}

// TestAnswersThatNobodyReadsEnd has handlers return long before.
func TestAnswersThatNobodyReadsEnd(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		var s *server
		srv := serving(t, o, say("answer"), func(srv *http.Server) { s = configure(srv, o); s.unreadTime = 50 * time.Millisecond })
		const n = 50
		p := deaf(t, dial(t, srv), n)
		reset := map[uint32]bool{}
		for len(reset) < n {
			f := p.await("RST_STREAM", func(f http2.Frame) bool { return f.Header().Type == http2.FrameRSTStream }).(*http2.RSTStreamFrame)
			if reset[f.StreamID] = true; f.ErrCode != http2.ErrCodeEnhanceYourCalm {
				t.Errorf("stream %d: reset with %v", f.StreamID, f.ErrCode)
			}
		}
		p.must(p.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: leastWindow}))
		p.ask(2*n+1, true, get("/")...)
		p.awaitEnd(2*n + 1)
		srv.Close() // waits for all of it
		if got := s.ends.waiting.Load(); got != 0 {
			t.Errorf("%d are said to wait", got)
		}
	})
}

// TestWhoNeverReadsLosesTheConnection has the end of an answer wait for a connection
// that takes nothing, with nobody else on it.
func TestWhoNeverReadsLosesTheConnection(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		ended := make(chan struct{})
		p := dialPipe(t, serving(t, o, func(w http.ResponseWriter, r *http.Request) {
			say("answer")(w, r)
			go func() { // returned is called when the end is sent, or given up
				<-r.Context().Done()
				close(ended)
			}()
		}, func(srv *http.Server) {
			s := configure(srv, o)
			s.unreadTime, s.stall = 10*time.Millisecond, 10*time.Millisecond
		}))
		p.ask(1, true, get("/")...)
		within(t, "the end", ended)
	})
}

// TestUnreadAnswersAreBounded has one connection lose some to another.
func TestUnreadAnswersAreBounded(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		var s *server
		srv := serving(t, o, say("answer"), func(srv *http.Server) { s = configure(srv, o); s.mostUnread = 8 })
		greedy, modest := deaf(t, dial(t, srv), 7), dial(t, srv)
		deaf(t, modest, 1)
		greedy.ask(101, true, get("/")...)
		// A quarter of eight.
		greedy.awaitReset(1, http2.ErrCodeEnhanceYourCalm)
		greedy.awaitReset(3, http2.ErrCodeEnhanceYourCalm)
		for _, p := range []*peer{greedy, modest} {
			p.must(p.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: math.MaxInt32}))
		}
		modest.awaitEnd(1)
		greedy.awaitEnd(5)
	})
}

// TestHeadersMustGoOn has a client begin the headers of a request and say no more.
func TestHeadersMustGoOn(t *testing.T) {
	begun, ended := make(chan struct{}), make(chan struct{})
	srv := serving(t, Options{}, func(_ http.ResponseWriter, r *http.Request) {
		close(begun)
		<-r.Context().Done()
		close(ended)
	}, func(srv *http.Server) { configure(srv, Options{}).headTime = time.Second })
	p := dial(t, srv)
	block := p.encode(get("/", "long", long(60000)))
	p.must(p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block, EndStream: true, EndHeaders: true}))
	within(t, "a request with long headers", begun)
	p.must(p.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: p.encode(get("/")), EndStream: true}))
	within(t, "the end", ended)
}
