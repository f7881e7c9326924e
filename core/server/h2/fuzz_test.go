package h2

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// FuzzFrames sends whatever it likes after a preface. Nothing must fall over, and
// the connection must end once the client has.
func FuzzFrames(f *testing.F) {
	for _, seed := range seeds() {
		f.Add(seed)
	}
	srv := serving(f, Options{Quick: func(r *http.Request) (*http.Request, bool) { return r, r.URL.Path == "/" }}, echoOrSay)
	f.Fuzz(func(t *testing.T, sent []byte) {
		c, err := tls.Dial("tcp", srv.Listener.Addr().String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		read := make(chan struct{})
		go func() {
			defer close(read)
			_, _ = io.Copy(io.Discard, c)
		}()
		_, _ = c.Write(append([]byte(http2.ClientPreface), sent...))
		_ = c.CloseWrite()
		within(t, "the end of the connection", read)
	})
}

func echoOrSay(w http.ResponseWriter, r *http.Request) {
	if r.Body != http.NoBody {
		_, _ = io.Copy(w, r.Body)
		return
	}
	fmt.Fprint(w, long(100000))
}

// seeds are conversations that are as they should be.
func seeds() (all [][]byte) {
	var block bytes.Buffer
	e := hpack.NewEncoder(&block)
	header := func(fields []string) []byte {
		block.Reset()
		for i := 0; i < len(fields); i += 2 {
			_ = e.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
		}
		return block.Bytes()
	}
	for _, write := range []func(*http2.Framer){
		func(*http2.Framer) {},
		func(f *http2.Framer) {
			_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: header(get("/")), EndStream: true, EndHeaders: true})
			_ = f.WriteWindowUpdate(0, 1<<20)
			_ = f.WriteWindowUpdate(1, 1<<20)
		},
		func(f *http2.Framer) {
			_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: header(post("/a", "content-length", "4", "trailer", "x"))[:5]})
			_ = f.WriteContinuation(1, true, block.Bytes()[5:])
			_ = f.WriteDataPadded(1, false, []byte("data"), []byte{0, 0})
			_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: header([]string{"x", "y"}), EndStream: true, EndHeaders: true})
			_ = f.WriteRSTStream(1, http2.ErrCodeCancel)
		},
		func(f *http2.Framer) {
			_ = f.WritePing(false, [8]byte{})
			_ = f.WritePriority(3, http2.PriorityParam{StreamDep: 1, Weight: 2})
			_ = f.WriteGoAway(0, http2.ErrCodeNo, nil)
		},
	} {
		var sent bytes.Buffer
		f := http2.NewFramer(&sent, nil)
		_ = f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 10})
		write(f)
		block.Reset()
		all = append(all, bytes.Clone(sent.Bytes()))
	}
	return all
}
