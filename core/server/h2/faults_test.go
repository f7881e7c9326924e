package h2

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/net/http2"
)

// TestMalformedRequestsAreReset has requests that no client should send.
func TestMalformedRequestsAreReset(t *testing.T) {
	without := func(name string) []string {
		fields := get("/")
		for i := 0; i < len(fields); i += 2 {
			if fields[i] == name {
				return append(fields[:i], fields[i+2:]...)
			}
		}
		return fields
	}
	with := func(more ...string) []string { return get("/", more...) }
	for name, fields := range map[string][]string{
		"no-method":              without(":method"),
		"no-scheme":              without(":scheme"),
		"no-path":                without(":path"),
		"empty-path":             get(""),
		"path-with-space":        get("/\x7f"),
		"other-scheme":           {":method", "GET", ":scheme", "ftp", ":authority", "a", ":path", "/"},
		"connect-with-a-path":    {":method", "CONNECT", ":scheme", "https", ":authority", "a:1", ":path", "/"},
		"connect-to-nowhere":     {":method", "CONNECT"},
		"extended-connect":       {":method", "CONNECT", ":protocol", "websocket", ":scheme", "https", ":authority", "a", ":path", "/"},
		"unknown-pseudo":         append([]string{":other", "x"}, get("/")...),
		"pseudo-of-an-answer":    append([]string{":status", "200"}, get("/")...),
		"pseudo-twice":           append([]string{":path", "/other"}, get("/")...),
		"pseudo-late":            append([]string{"x", "y"}, get("/")...),
		"upper-case":             with("X-Upper", "y"),
		"empty-name":             with("", "y"),
		"name-with-space":        with("a b", "y"),
		"line-feed":              with("x", "a\nb"),
		"nul":                    with("x", "a\x00b"),
		"user-in-authority":      {":method", "GET", ":scheme", "https", ":authority", "me@a", ":path", "/"},
		"user-in-host":           {":method", "GET", ":scheme", "https", ":path", "/", "host", "me@a"},
		"length-of-nothing":      with("content-length", "5"),
		"length-unreadable":      with("content-length", "x"),
		"length-signed":          with("content-length", "+0"),
		"length-in-two-ways":     with("content-length", "0", "content-length", "1"),
		"length-longer-than-any": with("content-length", "99999999999999999999"),
	} {
		t.Run(name, func(t *testing.T) {
			srv := serving(t, Options{Quick: always}, func(_ http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/alive" {
					t.Errorf("%s %s was served", r.Method, r.URL)
				}
			})
			p := dial(t, srv)
			p.ask(1, true, fields...)
			p.awaitReset(1, http2.ErrCodeProtocol)
			p.alive(3)
		})
	}
}

func TestHeadersOfHTTP1AreRefused(t *testing.T) {
	srv := serving(t, Options{}, say("served"))
	p := dial(t, srv)
	id := uint32(1)
	for _, field := range []string{"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "te"} {
		p.ask(id, true, get("/", field, "chunked")...)
		p.awaitStatus(id, "400")
		id += 2
	}
	p.ask(id, true, get("/", "te", "trailers")...)
	p.awaitStatus(id, "200")
}

// TestBodiesAreAsLongAsTheySay is what keeps a request from being taken for two
// further on.
func TestBodiesAreAsLongAsTheySay(t *testing.T) {
	read := make(chan error, 1)
	srv := serving(t, Options{}, func(_ http.ResponseWriter, r *http.Request) {
		_, err := io.ReadAll(r.Body)
		read <- err
	})
	for name, size := range map[string]int{"shorter": 4, "longer": 6} {
		t.Run(name, func(t *testing.T) {
			p := dial(t, srv)
			p.ask(1, false, post("/", "content-length", "5")...)
			p.must(p.WriteData(1, true, make([]byte, size)))
			p.awaitReset(1, http2.ErrCodeProtocol)
			if err := <-read; err == nil {
				t.Error("the body looks whole")
			}
			p.ask(3, false, post("/", "content-length", "5")...)
			p.must(p.WriteData(3, true, make([]byte, 5)))
			p.awaitStatus(3, "200")
			if err := <-read; err != nil {
				t.Error(err)
			}
		})
	}
}

func TestTrailers(t *testing.T) {
	srv := serving(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
		_, err := io.Copy(io.Discard, r.Body)
		w.Header().Set("Got", fmt.Sprint(r.Trailer, err))
	})
	trailer := func(p *peer, end bool, fields ...string) {
		p.ask(1, false, post("/", "trailer", "sum")...)
		p.must(p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.encode(fields), EndStream: end, EndHeaders: true}))
	}
	p := dial(t, srv)
	trailer(p, true, "sum", "5", "undeclared", "6")
	if got := p.awaitStatus(1, "200"); !strings.Contains(fmt.Sprint(got.Fields), "map[Sum:[5]] <nil>") {
		t.Errorf("got %v", got.Fields)
	}
	for name, fields := range map[string][]string{"pseudo": {":path", "/"}, "forbidden": {"content-length", "5"}} {
		t.Run(name, func(t *testing.T) {
			p := dial(t, srv)
			trailer(p, true, fields...)
			p.awaitReset(1, http2.ErrCodeProtocol)
		})
	}
	p = dial(t, srv)
	trailer(p, false, "sum", "5")
	p.awaitReset(1, http2.ErrCodeProtocol)
}

// TestFaultsOfTheConnectionEndIt has what nobody can go on after.
func TestFaultsOfTheConnectionEndIt(t *testing.T) {
	raw := func(kind http2.FrameType, flags http2.Flags, id uint32, payload ...byte) func(*peer) {
		return func(p *peer) { p.must(p.WriteRawFrame(kind, flags, id, payload)) }
	}
	header := func(id uint32) func(*peer) { return func(p *peer) { p.ask(id, true, get("/")...) } }
	settings := func(s ...http2.Setting) func(*peer) { return func(p *peer) { p.must(p.WriteSettings(s...)) } }
	for name, tt := range map[string]struct {
		send []func(*peer)
		code http2.ErrCode
	}{
		"even-stream":         {[]func(*peer){header(2)}, http2.ErrCodeProtocol},
		"stream-zero":         {[]func(*peer){raw(http2.FrameHeaders, http2.FlagHeadersEndHeaders, 0)}, http2.ErrCodeProtocol},
		"older-stream":        {[]func(*peer){header(5), header(3)}, http2.ErrCodeStreamClosed},
		"data-before-header":  {[]func(*peer){raw(http2.FrameData, 0, 1, 'x')}, http2.ErrCodeProtocol},
		"reset-before-header": {[]func(*peer){raw(http2.FrameRSTStream, 0, 1, 0, 0, 0, 0)}, http2.ErrCodeProtocol},
		"window-before":       {[]func(*peer){raw(http2.FrameWindowUpdate, 0, 1, 0, 0, 0, 1)}, http2.ErrCodeProtocol},
		"window-zero":         {[]func(*peer){raw(http2.FrameWindowUpdate, 0, 0, 0, 0, 0, 0)}, http2.ErrCodeProtocol},
		"window-overflow":     {[]func(*peer){func(p *peer) { p.must(p.WriteWindowUpdate(0, 1<<31-1)) }}, http2.ErrCodeFlowControl},
		"settings-of-stream":  {[]func(*peer){raw(http2.FrameSettings, 0, 1)}, http2.ErrCodeProtocol},
		"settings-odd-size":   {[]func(*peer){raw(http2.FrameSettings, 0, 0, 1)}, http2.ErrCodeFrameSize},
		"settings-twice":      {[]func(*peer){settings(http2.Setting{ID: 1, Val: 1}, http2.Setting{ID: 1, Val: 1})}, http2.ErrCodeProtocol},
		"settings-window":     {[]func(*peer){settings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 31})}, http2.ErrCodeFlowControl},
		"settings-frame":      {[]func(*peer){settings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1})}, http2.ErrCodeProtocol},
		"ping-odd-size":       {[]func(*peer){raw(http2.FramePing, 0, 0, 1)}, http2.ErrCodeFrameSize},
		"push":                {[]func(*peer){raw(http2.FramePushPromise, http2.FlagPushPromiseEndHeaders, 1, 0, 0, 0, 2)}, http2.ErrCodeProtocol},
		"continuation-alone":  {[]func(*peer){raw(http2.FrameContinuation, 0, 1, 1)}, http2.ErrCodeProtocol},
		"header-interrupted":  {[]func(*peer){raw(http2.FrameHeaders, 0, 1, 0x82), raw(http2.FramePing, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)}, http2.ErrCodeProtocol},
		"header-unreadable":   {[]func(*peer){raw(http2.FrameHeaders, http2.FlagHeadersEndHeaders, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)}, http2.ErrCodeCompression},
		"frame-too-large":     {[]func(*peer){raw(http2.FrameData, 0, 1, make([]byte, 2<<20)...)}, http2.ErrCodeFrameSize},
		"padding-too-long":    {[]func(*peer){raw(http2.FrameData, http2.FlagDataPadded, 1, 9, 'x')}, http2.ErrCodeProtocol},
	} {
		t.Run(name, func(t *testing.T) {
			both(t, func(t *testing.T, o Options) {
				p := dial(t, serving(t, o, say("ok")))
				for _, send := range tt.send {
					send(p)
				}
				p.awaitQuit(tt.code)
			})
		})
	}
}

func TestBeginnings(t *testing.T) {
	srv := serving(t, Options{}, say("ok"))
	p := dialRaw(t, srv.Listener.Addr())
	_, _ = io.WriteString(p.conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	for { // it is closed
		if _, err := p.ReadFrame(); err != nil {
			break
		}
	}
	p = dialRaw(t, srv.Listener.Addr())
	_, _ = io.WriteString(p.conn, http2.ClientPreface)
	p.ask(1, true, get("/")...)
	p.awaitQuit(http2.ErrCodeProtocol)
}

func TestStreamsAreBounded(t *testing.T) {
	release := make(chan struct{})
	srv := serving(t, Options{}, func(_ http.ResponseWriter, _ *http.Request) { <-release },
		func(srv *http.Server) { srv.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: 2} })
	p := dial(t, srv)
	for _, id := range []uint32{1, 3, 5} {
		p.ask(id, true, get("/")...)
	}
	p.awaitReset(5, http2.ErrCodeRefusedStream)
	close(release)
	p.awaitEnd(1)
}

// TestRapidReset is CVE-2023-44487: streams that are given up at once, so that
// the bound on streams bounds no work.
func TestRapidReset(t *testing.T) {
	release := make(chan struct{})
	var running atomic.Int64
	srv := serving(t, Options{}, func(_ http.ResponseWriter, _ *http.Request) {
		if running.Add(1) > 4 {
			t.Error("more handlers run than there may be streams")
		}
		<-release
		running.Add(-1)
	}, func(srv *http.Server) { srv.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: 4} })
	p := dial(t, srv)
	go func() { // what is not read would stop who writes
		for id := uint32(1); id < 200; id += 2 {
			if p.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: p.encode(get("/")), EndStream: true, EndHeaders: true}) != nil ||
				p.WriteRSTStream(id, http2.ErrCodeCancel) != nil {
				return
			}
		}
	}()
	p.awaitQuit(http2.ErrCodeEnhanceYourCalm)
	close(release)
}

// TestRequestsWaitForHandlers has requests that are given up leave room for others.
func TestRequestsWaitForHandlers(t *testing.T) {
	release := make(chan struct{})
	srv := serving(t, Options{}, func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			<-release
		}
	}, func(srv *http.Server) { srv.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: 2} })
	p := dial(t, srv)
	for id := uint32(1); id <= 9; id += 2 {
		p.ask(id, id%4 == 1, get("/wait")...)
		p.must(p.WriteRSTStream(id, http2.ErrCodeCancel))
	}
	p.ask(11, true, get("/")...)
	close(release)
	p.awaitStatus(11, "200")
}

// TestContinuationFlood is CVE-2023-45288: headers without end.
func TestContinuationFlood(t *testing.T) {
	srv := serving(t, Options{}, say("ok"))
	p := dial(t, srv)
	p.must(p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.encode(get("/")), EndStream: true}))
	go func() {
		for n := 0; ; n++ {
			if p.WriteContinuation(1, false, p.encode([]string{fmt.Sprint("field-", n), long(10000)})) != nil {
				return
			}
		}
	}()
	p.awaitQuit(http2.ErrCodeProtocol)
}

// TestHeaderBombs are small and would become large.
func TestHeaderBombs(t *testing.T) {
	limit := func(srv *http.Server) { srv.MaxHeaderBytes = 20000 }
	srv := serving(t, Options{Quick: always}, func(_ http.ResponseWriter, r *http.Request) {
		if len(r.Header) > 1000 {
			t.Error("served")
		}
	}, limit)
	p := dial(t, srv)
	// One field in the table, named ten thousand times.
	bomb := p.encode(get("/", "bomb", long(3000)))
	bomb = append(bomb, bytes.Repeat([]byte{0x80 | 62}, 10000)...)
	p.must(p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: bomb, EndStream: true, EndHeaders: true}))
	p.awaitStatus(1, "431")
	p.alive(3)
	p = dial(t, srv)
	var fields []string
	for n := range 1000 {
		fields = append(fields, fmt.Sprint("n", n), "v")
	}
	p.ask(1, true, get("/", fields...)...)
	p.awaitStatus(1, "431")
	p = dial(t, srv)
	p.encoder.SetMaxDynamicTableSizeLimit(1 << 30)
	p.encoder.SetMaxDynamicTableSize(1 << 30)
	p.ask(1, true, get("/")...)
	p.awaitQuit(http2.ErrCodeCompression)
}

// TestFloodsOfWhatMustBeAnswered ask and do not read.
func TestFloodsOfWhatMustBeAnswered(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		for name, write := range map[string]func(*http2.Framer) error{
			"ping":     func(f *http2.Framer) error { return f.WritePing(false, [8]byte{}) },
			"settings": func(f *http2.Framer) error { return f.WriteSettings() },
			"bad":      func(f *http2.Framer) error { return f.WriteRawFrame(http2.FrameWindowUpdate, 0, 1, []byte{0, 0, 0, 0}) },
		} {
			t.Run(name, func(t *testing.T) {
				p := dialPipe(t, serving(t, o, say("ok")))
				p.ask(1, true, get("/")...)
				p.awaitEnd(1)
				var many bytes.Buffer
				for range 1000 {
					p.must(write(http2.NewFramer(&many, nil)))
				}
				for {
					if _, err := p.conn.Write(many.Bytes()); err != nil {
						return // closed
					}
				}
			})
		}
	})
}

func TestEmptyFrames(t *testing.T) {
	srv := serving(t, Options{}, func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
	p := dial(t, srv)
	p.ask(1, false, post("/")...)
	go func() {
		for p.WriteData(1, false, nil) == nil {
		}
	}()
	p.awaitQuit(http2.ErrCodeEnhanceYourCalm)
}

// TestMalformedWithoutEnd loses a stream with each request, for ever.
func TestMalformedWithoutEnd(t *testing.T) {
	srv := serving(t, Options{}, say("ok"))
	p := dial(t, srv)
	block := p.encode([]string{":method", "GET"})
	go func() {
		for id := uint32(1); p.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block, EndStream: true, EndHeaders: true}) == nil; id += 2 {
		}
	}()
	p.awaitQuit(http2.ErrCodeEnhanceYourCalm)
}

func TestPriorityIsIgnored(t *testing.T) {
	srv := serving(t, Options{}, echo)
	p := dial(t, srv)
	for id := uint32(1); id < 20000; id += 2 {
		p.must(p.WritePriority(id, http2.PriorityParam{StreamDep: id + 2, Weight: 3}))
	}
	p.must(p.WriteRawFrame(0xbe, 0, 0, []byte("unknown")))
	p.alive(20001)
	p.ask(20003, false, post("/")...)
	p.must(p.WritePriority(20003, http2.PriorityParam{StreamDep: 20003}))
	p.awaitReset(20003, http2.ErrCodeProtocol)
}

func TestBodiesStayWithinTheWindow(t *testing.T) {
	hold := make(chan struct{})
	srv := serving(t, Options{}, func(_ http.ResponseWriter, r *http.Request) {
		<-hold
		_, _ = io.Copy(io.Discard, r.Body)
	}, func(srv *http.Server) {
		srv.HTTP2 = &http.HTTP2Config{MaxReceiveBufferPerStream: leastWindow, MaxReceiveBufferPerConnection: 2 * leastWindow}
	})
	defer close(hold)
	p := dial(t, srv)
	p.ask(1, false, post("/")...)
	for range 4 {
		p.must(p.WriteData(1, false, make([]byte, 16384)))
	}
	p.awaitReset(1, http2.ErrCodeFlowControl)
	// What came of it has gone back to the connection.
	p.ask(3, false, post("/")...)
	for range 3 {
		p.must(p.WriteData(3, false, make([]byte, 16384)))
	}
	p.ask(5, false, post("/")...)
	for range 2 {
		p.must(p.WriteData(5, false, make([]byte, 16384)))
	}
	p.must(p.WritePing(false, [8]byte{1}))
	p.await("PING", func(f http2.Frame) bool { return f.Header().Type == http2.FramePing })
}

// TestWindowsComeBack sends more than the windows on streams that end badly.
func TestWindowsComeBack(t *testing.T) {
	srv := serving(t, Options{}, func(_ http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/read":
			_, _ = io.Copy(io.Discard, r.Body)
		case "/some":
			_, _ = io.ReadFull(r.Body, make([]byte, 5))
		case "/close":
			_ = r.Body.Close()
		}
	}, func(srv *http.Server) { srv.HTTP2 = &http.HTTP2Config{MaxReceiveBufferPerConnection: leastWindow} })
	p := dial(t, srv)
	window := leastWindow
	id := uint32(1)
	for range 20 {
		for _, path := range []string{"/read", "/some", "/close", "/leave"} {
			p.ask(id, false, post(path)...)
			for window < 16384 {
				f := p.await("WINDOW_UPDATE", func(f http2.Frame) bool {
					return f.Header().Type == http2.FrameWindowUpdate && f.Header().StreamID == 0
				})
				window += int(f.(*http2.WindowUpdateFrame).Increment)
			}
			p.must(p.WriteDataPadded(id, true, make([]byte, 16384-256), make([]byte, 255)))
			window -= 16384
			id += 2
		}
	}
}

func TestHeadersThatNeedSeveralFrames(t *testing.T) {
	srv := serving(t, Options{}, func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Echo", r.Header.Get("Long")) })
	p := dial(t, srv)
	text := strings.Repeat("~", 40000) // which hpack cannot make shorter
	block := p.encode(get("/", "long", text))
	p.must(p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block[:10000], EndStream: true}))
	p.must(p.WriteContinuation(1, false, block[10000:20000]))
	p.must(p.WriteContinuation(1, true, block[20000:]))
	f := p.awaitStatus(1, "200")
	if i := len(f.Fields); i < 2 || !strings.Contains(fmt.Sprint(f.Fields), text) {
		t.Errorf("%d fields", i)
	}
}
