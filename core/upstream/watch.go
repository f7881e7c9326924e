package upstream

import (
	"context"
	"encoding/binary"
	"io"
	"mime"
	"net/http"
	"sync"
	"sync/atomic"
)

// watchCleanly lets an answer that is a watch be ended between two frames.
func (u *Upstream) watchCleanly(res *http.Response) {
	b := &watchBody{ReadCloser: res.Body, frames: framesOf(res.Header), drain: u.drain}
	b.stop = context.AfterFunc(u.drain, b.end)
	res.Body = b
}

// watchBody reads as ended once draining has begun and a frame is complete.
type watchBody struct {
	io.ReadCloser
	drain context.Context
	stop  func() bool

	mu     sync.Mutex // guards following
	frames frames
	// closed is set by whoever closes the body first.
	closed atomic.Bool
}

// end unblocks a Read that waits for the next frame. In the middle of a frame
// it leaves the rest to Read.
func (b *watchBody) end() {
	if b.complete() {
		_ = b.closeOnce() // Read says how the stream ended
	}
}

func (b *watchBody) complete() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.frames.complete()
}

func (b *watchBody) Read(p []byte) (int, error) {
	if b.ending() {
		return 0, io.EOF
	}
	n, err := b.ReadCloser.Read(p)
	b.mu.Lock()
	b.frames.observe(p[:n])
	b.mu.Unlock()
	if err != nil && b.ending() {
		err = io.EOF
	}
	return n, err
}

func (b *watchBody) ending() bool { return b.drain.Err() != nil && b.complete() }

func (b *watchBody) Close() error {
	b.stop()
	return b.closeOnce()
}

func (b *watchBody) closeOnce() error {
	if b.closed.Swap(true) {
		return nil
	}
	return b.ReadCloser.Close()
}

// frames follows a stream of watch events and knows where one ends.
type frames interface {
	observe(p []byte)
	complete() bool
}

// framesOf chooses by what the API server's watch encoders write
// (k8s.io/apimachinery/pkg/runtime/serializer: json and protobuf framers).
func framesOf(h http.Header) frames {
	mediaType, _, _ := mime.ParseMediaType(h.Get("Content-Type"))
	switch {
	case h.Get("Content-Encoding") != "":
		return unknownFrames{}
	case mediaType == "application/json":
		return &lines{ended: true}
	case mediaType == "application/vnd.kubernetes.protobuf":
		return &lengthPrefixed{}
	}
	return unknownFrames{}
}

// lines are JSON events; a newline cannot occur inside one.
type lines struct{ ended bool }

func (f *lines) observe(p []byte) {
	if len(p) > 0 {
		f.ended = p[len(p)-1] == '\n'
	}
}

func (f *lines) complete() bool { return f.ended }

// lengthPrefixed are events behind four bytes of big-endian length.
type lengthPrefixed struct {
	prefix [4]byte
	have   int    // bytes of prefix seen
	left   uint32 // bytes of the event still to come
}

func (f *lengthPrefixed) observe(p []byte) {
	for len(p) > 0 {
		if f.left > 0 {
			n := min(int(f.left), len(p))
			f.left -= uint32(n)
			p = p[n:]
			continue
		}
		n := copy(f.prefix[f.have:], p)
		f.have += n
		p = p[n:]
		if f.have == len(f.prefix) {
			f.have, f.left = 0, binary.BigEndian.Uint32(f.prefix[:])
		}
	}
}

func (f *lengthPrefixed) complete() bool { return f.have == 0 && f.left == 0 }

// unknownFrames are compressed or of a media type we do not know: any pause is
// as good as another, and clients take a cut there for what it is.
type unknownFrames struct{}

func (unknownFrames) observe([]byte) {}
func (unknownFrames) complete() bool { return true }
