package upstream

import (
	"context"
	"encoding/binary"
	"io"
	"mime"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/portico-proxy/portico/core/cache/wire"
	"github.com/portico-proxy/portico/core/view"
	"github.com/portico-proxy/portico/core/view/lens"
)

// refuseEncodings has a watch come as it is. kube-apiserver compresses those that
// begin with a list, and where one frame ends could then not be told: nobody could
// end it after one, or say why.
func refuseEncodings(h http.Header) {
	if _, ok := h["Accept-Encoding"]; ok {
		h.Set("Accept-Encoding", "identity")
	}
}

// watchCleanly lets an answer that is a watch be ended between two frames. Where a
// lens is applied to it, that ends it itself if its caller is shown something else.
func (u *Upstream) watchCleanly(res *http.Response) {
	b := &watchBody{ReadCloser: res.Body, frames: framesOf(res.Header), drain: u.drain, over: never}
	if ctx := res.Request.Context(); lens.From(ctx) == nil && view.Ending(ctx) != nil {
		b.over, b.last = view.Ending(ctx), lastEvent(res.Header)
	}
	stops := []func() bool{context.AfterFunc(u.drain, b.end), context.AfterFunc(b.over, b.end)}
	b.stop = func() {
		for _, stop := range stops {
			stop()
		}
	}
	res.Body = b
}

// never does not end.
var never = context.Background() //nolint:forbidigo // nobody waits under it

// lastEvent is the frame that tells a watcher to list again; nil in a format of which
// the frames are not known.
func lastEvent(h http.Header) []byte {
	for media, f := range map[string]wire.Format{wire.JSON.MediaType(): wire.JSON, wire.Protobuf.MediaType(): wire.Protobuf} {
		if mediaTypeOf(h) != media || h.Get("Content-Encoding") != "" {
			continue
		}
		if event, err := wire.StatusEvent(f, view.Expired()); err == nil {
			return event
		}
	}
	return nil
}

// watchBody reads as ended, once a frame is complete, if draining has begun or its
// caller is to list again, which the last frame then says.
type watchBody struct {
	io.ReadCloser
	drain, over context.Context
	last        []byte // what is left of the last frame, of which nobody knows but who reads
	stop        func()

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
		return b.finish(p)
	}
	n, err := b.ReadCloser.Read(p)
	b.mu.Lock()
	b.frames.observe(p[:n])
	b.mu.Unlock()
	if err != nil && b.ending() {
		if n > 0 {
			return n, nil
		}
		return b.finish(p)
	}
	return n, err
}

// finish reads the last frame, if there is one to be told.
func (b *watchBody) finish(p []byte) (int, error) {
	if b.over.Err() == nil || len(b.last) == 0 {
		return 0, io.EOF
	}
	n := copy(p, b.last)
	b.last = b.last[n:]
	return n, nil
}

func (b *watchBody) ending() bool {
	return (b.drain.Err() != nil || b.over.Err() != nil) && b.complete()
}

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
	if h.Get("Content-Encoding") != "" {
		return unknownFrames{}
	}
	switch mediaTypeOf(h) {
	case wire.JSON.MediaType():
		return &lines{ended: true}
	case wire.Protobuf.MediaType():
		return &lengthPrefixed{}
	}
	return unknownFrames{}
}

func mediaTypeOf(h http.Header) string {
	mediaType, _, _ := mime.ParseMediaType(h.Get("Content-Type"))
	return mediaType
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
