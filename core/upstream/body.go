package upstream

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
)

// replayLimit bounds how much of a request's body is kept, in bytes. Leases,
// events and status updates fit; what is larger streams and is sent once.
const replayLimit = 64 << 10

var (
	errBodyTooLong  = errors.New("request body too long to be sent again")
	errOtherAttempt = errors.New("request body is being sent again")
)

// makeReplayable lets the transport send r again where the API server said that
// it has not looked at it: GOAWAY, REFUSED_STREAM, an idle connection it closed
// as we wrote.
func makeReplayable(r *http.Request) {
	if r.Body == nil || r.Body == http.NoBody {
		return
	}
	b := &replay{source: r.Body, request: r.Context()}
	r.Body, _ = b.open()
	r.GetBody = b.open
}

// replay remembers the first bytes of a body. The source is the server's and
// is closed by it.
type replay struct {
	request context.Context

	mu      sync.Mutex // guards following; held while reading source
	source  io.Reader
	kept    []byte
	dropped bool // more was read than is kept
	ended   error
	last    *replayView

	// over is set when nobody will read source any more.
	over atomic.Bool
}

// open returns the body from its beginning and ends the view opened before.
func (b *replay) open() (io.ReadCloser, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.dropped {
		return nil, errBodyTooLong
	}
	b.last = &replayView{body: b}
	return b.last, nil
}

// replayView is one attempt's reading of the body.
type replayView struct {
	body *replay
	off  int
}

// Read waits for the end of the request where the body was taken away: net/http
// reads what is left of an HTTP/1.1 body itself when the answer begins. Whoever
// were told would give up the answer.
func (v *replayView) Read(p []byte) (int, error) {
	n, err := v.read(p)
	if errors.Is(err, http.ErrBodyReadAfterClose) {
		<-v.body.request.Done()
	}
	return n, err
}

func (v *replayView) read(p []byte) (int, error) {
	b := v.body
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.last != v {
		return 0, errOtherAttempt
	}
	if v.off < len(b.kept) {
		n := copy(p, b.kept[v.off:])
		v.off += n
		return n, nil
	}
	if b.ended != nil {
		return 0, b.ended
	}
	n, err := b.source.Read(p)
	b.ended = err
	b.over.Store(err != nil && !errors.Is(err, http.ErrBodyReadAfterClose))
	b.keep(p[:n])
	v.off += n
	return n, err
}

func (b *replay) keep(p []byte) {
	if b.dropped || len(b.kept)+len(p) > replayLimit {
		b.dropped, b.kept = true, nil
		return
	}
	b.kept = append(b.kept, p...)
}

// Close ends this attempt only.
func (v *replayView) Close() error { return nil }

// mayEndEarly lets the answer to r be closed while its body is still being read.
func mayEndEarly(res *http.Response, r *http.Request) {
	sent, ok := r.Body.(*replayView)
	if ok && res.StatusCode != http.StatusSwitchingProtocols {
		res.Body = &earlyAnswer{ReadCloser: res.Body, request: sent.body}
	}
}

// earlyAnswer is the body of an answer that may end before the request does.
// Closing an answer waits until nobody reads the request's body. A caller that
// is refused while it sends stops, and waits for the end of the answer: each
// would wait for the other.
type earlyAnswer struct {
	io.ReadCloser
	request *replay
}

func (a *earlyAnswer) Close() error {
	if a.request.over.Load() {
		return a.ReadCloser.Close()
	}
	// The server closes the request's body once the handler has returned.
	go a.ReadCloser.Close()
	return nil
}
