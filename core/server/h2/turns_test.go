package h2

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// TestHandlersThatWaitHoldNobodyUp is the rule that lets handlers run where the
// connection is read: whatever one of them waits for, the others go on.
func TestHandlersThatWaitHoldNobodyUp(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		release := make(chan struct{})
		srv := serving(t, o, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/wait" {
				<-release
			}
			fmt.Fprint(w, "ok")
		})
		p := dial(t, srv)
		for id := uint32(1); id < 20; id += 2 {
			p.ask(id, true, get("/wait")...)
		}
		p.alive(21)
		p.must(p.WritePing(false, [8]byte{1}))
		p.await("PING", func(f http2.Frame) bool { g, ok := f.(*http2.PingFrame); return ok && g.IsAck() })
		close(release)
		for range 10 {
			p.await("answers", func(f http2.Frame) bool { return f.Header().Flags.Has(http2.FlagDataEndStream) })
		}
	})
}

func TestClosedWindowsHoldNobodyUp(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		o.Patience = time.Hour // it is known at once that they wait
		srv := serving(t, o, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/large" {
				fmt.Fprint(w, long(100000))
				return
			}
			fmt.Fprint(w, "ok")
		})
		p := dial(t, srv)
		// The connection's window is 65535 bytes, and the first answer takes it.
		p.ask(1, true, get("/large")...)
		p.await("data", func(http2.Frame) bool { return p.body[1] == leastWindow })
		p.ask(3, true, get("/large")...)
		p.awaitStatus(3, "200")
		p.must(p.WriteRSTStream(3, http2.ErrCodeCancel))
		p.ask(5, true, append(get("/"), "x", "y")...)
		p.awaitStatus(5, "200")
		p.must(p.WriteWindowUpdate(0, 1<<20))
		p.must(p.WriteWindowUpdate(1, 1<<20))
		p.await("both", func(http2.Frame) bool { return p.body[1] == 100000 && p.body[5] == 2 })
	})
}

func TestSmallWindowsAreKept(t *testing.T) {
	srv := serving(t, Options{Quick: always}, say("0123456789"))
	p := dial(t, srv)
	p.must(p.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 3}))
	p.ask(1, true, get("/")...)
	p.await("3 bytes", func(http2.Frame) bool { return p.body[1] == 3 })
	// A window may fall below nothing, and comes back.
	p.must(p.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1}))
	p.must(p.WriteWindowUpdate(1, 2))
	p.ask(3, true, get("/")...)
	p.await("1 byte", func(http2.Frame) bool { return p.body[3] == 1 })
	if p.body[1] != 3 {
		t.Errorf("%d bytes were sent where 3 were asked for", p.body[1])
	}
	p.must(p.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 100}))
	p.await("both", func(http2.Frame) bool { return p.body[1] == 10 && p.body[3] == 10 })
}

func TestLargeFramesAreForThoseWhoTakeThem(t *testing.T) {
	srv := serving(t, Options{}, say(long(60000)))
	p := dial(t, srv)
	p.SetMaxReadFrameSize(1 << 20)
	p.must(p.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1 << 20}))
	p.ask(1, true, get("/")...)
	d := p.await("data", func(f http2.Frame) bool { return f.Header().Type == http2.FrameData }).(*http2.DataFrame)
	if d.Length != 60000 {
		t.Errorf("a frame of %d bytes", d.Length)
	}
}

func TestContextsEndWithTheirRequests(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		ended := make(chan error, 3)
		srv := serving(t, o, func(w http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
			_, err := w.Write([]byte(long(50000)))
			ended <- err
		})
		p := dial(t, srv)
		for _, id := range []uint32{1, 3} {
			p.ask(id, true, get("/")...)
			p.awaitStatus(id, "200")
		}
		p.must(p.WriteRSTStream(1, http2.ErrCodeCancel))
		if err := <-ended; !errors.Is(err, errReset) {
			t.Errorf("a handler whose request was given up is told %v", err)
		}
		p.conn.Close()
		if err := <-ended; err == nil {
			t.Error("a handler whose client is gone wrote")
		}
	})
}

func TestWriteDeadlines(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		got := make(chan error, 1)
		srv := serving(t, o, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/alive" {
				return
			}
			rc := http.NewResponseController(w)
			deadline := time.Now().Add(-time.Second)
			if r.URL.Path == "/later" {
				_ = rc.SetWriteDeadline(time.Now().Add(time.Hour))
				deadline = time.Now().Add(time.Millisecond)
			}
			if r.URL.Path == "/none" {
				_ = rc.SetWriteDeadline(time.Now().Add(time.Hour))
				deadline = time.Time{}
			}
			_ = rc.SetWriteDeadline(deadline)
			_, err := io.WriteString(w, long(100000)) // more than the window
			got <- err
		})
		p := dial(t, srv)
		for i, path := range []string{"/now", "/later"} {
			id := uint32(1 + 2*i)
			p.ask(id, true, get(path)...)
			p.awaitReset(id, http2.ErrCodeInternal)
			if err := <-got; !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%s: %v", path, err)
			}
		}
		p.must(p.WriteWindowUpdate(0, 1<<20))
		p.ask(5, true, get("/none")...)
		p.await("data", func(http2.Frame) bool { return p.body[5] == leastWindow })
		p.must(p.WriteWindowUpdate(5, 1<<20))
		p.awaitEnd(5)
		if err := <-got; err != nil {
			t.Error(err)
		}
		p.alive(7)
	})
}

func TestReadDeadlines(t *testing.T) {
	srv := serving(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(time.Hour))
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(time.Millisecond))
		_, err := io.ReadAll(r.Body)
		fmt.Fprint(w, errors.Is(err, os.ErrDeadlineExceeded))
	})
	p := dial(t, srv)
	p.ask(1, false, post("/")...)
	f := p.await("data", func(f http2.Frame) bool { return f.Header().Type == http2.FrameData }).(*http2.DataFrame)
	if string(f.Data()) != "true" {
		t.Errorf("read in time: %s", f.Data())
	}
	p.awaitReset(1, http2.ErrCodeNo) // the rest of the body is not wanted
}

func TestPanicsCutTheAnswerAndNothingElse(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		o.Patience = time.Hour // the reader itself is to be hit
		var told logged
		srv := serving(t, o, func(_ http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/panic":
				panic("boom")
			case "/abort":
				panic(http.ErrAbortHandler)
			case "/exit":
				runtime.Goexit()
			}
		}, func(srv *http.Server) { srv.ErrorLog.SetOutput(&told) })
		p := dial(t, srv)
		for i, path := range []string{"/panic", "/abort"} {
			id := uint32(1 + 2*i)
			p.ask(id, true, get(path)...)
			p.awaitReset(id, http2.ErrCodeInternal)
		}
		p.alive(7)
		if n := strings.Count(told.String(), "panic serving"); n != 1 || !strings.Contains(told.String(), "boom") {
			t.Errorf("logged %q", told.String())
		}
		p.ask(9, true, get("/exit")...)
		if o.Quick == nil {
			p.awaitReset(9, http2.ErrCodeInternal)
			return
		}
		for { // its goroutine is gone, and so is who reads
			if _, err := p.ReadFrame(); err != nil {
				break
			}
		}
	})
}

func TestPanicOfWhoSaysWhatIsQuickIsNobodysEnd(t *testing.T) {
	srv := serving(t, Options{Quick: func(*http.Request) (*http.Request, bool) { panic("boom") }}, say("ok"))
	dial(t, srv).alive(1)
}

// TestManyAtOnce mixes answers and bodies of all sizes, requests that are given up
// and handlers that wait, on few connections.
func TestManyAtOnce(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		o.Patience = 50 * time.Microsecond // readers are to change often
		srv := serving(t, o, echo)
		c := client(t)
		var all sync.WaitGroup
		var whole atomic.Int64
		for worker := range 8 {
			all.Go(func() {
				r := rand.New(rand.NewPCG(uint64(worker), 1))
				for range 20 {
					if askEcho(t, c, srv.URL, r) {
						whole.Add(1)
					}
				}
			})
		}
		all.Wait()
		if whole.Load() == 0 {
			t.Error("none was answered")
		}
	})
}

// echo answers with what it is sent, or with as much as the path says.
func echo(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost {
		_, _ = io.Copy(w, r.Body)
		return
	}
	var size, step int
	_, _ = fmt.Sscanf(r.URL.Path, "/%d/%d", &size, &step)
	text := []byte(long(size))
	for len(text) > 0 {
		n := min(step, len(text))
		if _, err := w.Write(text[:n]); err != nil {
			return
		}
		if text = text[n:]; n%3 == 0 {
			_ = http.NewResponseController(w).Flush()
		}
	}
}

// askEcho reports whether it read a whole answer.
func askEcho(t *testing.T, c *http.Client, url string, r *rand.Rand) bool {
	size := r.IntN(30000) * 10
	q := request("GET", fmt.Sprintf("%s/%d/%d", url, size, 1+size/(1+r.IntN(20))), nil)
	if r.IntN(2) == 0 {
		q = request("POST", url, strings.NewReader(long(size)))
	}
	res, err := c.Do(q.WithContext(t.Context()))
	if err != nil {
		t.Error(err)
		return false
	}
	defer res.Body.Close()
	if r.IntN(5) == 0 {
		return false // given up
	}
	got, err := io.ReadAll(res.Body)
	if err != nil || !bytes.Equal(got, []byte(long(size))) {
		t.Errorf("%s: %d bytes, %v; want %d", q.Method, len(got), err, size)
	}
	return err == nil
}

// TestStalledClientsAreRead shows that what a client does not read keeps nobody
// from reading what it sends.
func TestStalledClientsAreRead(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		got := make(chan int, 1)
		srv := serving(t, o, func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost {
				n, _ := io.Copy(io.Discard, r.Body)
				got <- int(n)
				return
			}
			for r.Context().Err() == nil {
				if _, err := io.WriteString(w, long(100000)); err != nil {
					return
				}
			}
		})
		p := dial(t, srv)
		p.must(p.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1<<31 - 1}))
		p.must(p.WriteWindowUpdate(0, 1<<30))
		p.ask(1, true, get("/")...) // and never reads
		p.ask(3, false, post("/")...)
		const frames = 4 * 60 // of 1000 bytes: within the window, and more than once
		for n := range frames / 4 {
			p.must(p.WriteData(3, n == frames/4-1, []byte(long(1000))))
		}
		if n := <-got; n != frames/4*1000 {
			t.Errorf("%d bytes came", n)
		}
		p.conn.NetConn().Close()
	})
}
