package wasm

import (
	"bytes"
	"cmp"
	"maps"
	"net/http"

	"github.com/portico-proxy/portico/core/body"
)

// A heldAnswer waits for a guest to look at it. One that there is no room for is
// lost, or goes its way if the guest may be left out.
type heldAnswer struct {
	http.ResponseWriter
	header  http.Header
	take    func(bytes int64) error // makes room
	lenient bool

	code   int
	body   bytes.Buffer
	err    error // why it is not held
	passed bool  // it goes its way
}

// Unwrap lets http.ResponseController set deadlines.
func (h *heldAnswer) Unwrap() http.ResponseWriter { return h.ResponseWriter }

func (h *heldAnswer) Header() http.Header { return h.header }

func (h *heldAnswer) WriteHeader(code int) {
	if code >= http.StatusOK && h.code == 0 { // others come before the answer
		h.code = code
	}
}

func (h *heldAnswer) Write(p []byte) (int, error) {
	h.WriteHeader(http.StatusOK)
	if h.err == nil {
		h.err = h.grow(len(p))
	}
	switch {
	case h.err == nil:
		return h.body.Write(p)
	case !h.lenient:
		return len(p), nil // whoever writes has more to do than this
	}
	if err := h.pass(); err != nil {
		return 0, err
	}
	return h.ResponseWriter.Write(p)
}

// grow makes room for n more bytes, as a buffer takes it.
func (h *heldAnswer) grow(n int) error {
	const step = 64 << 10
	if h.body.Len()+n > body.Max {
		return errLargeAnswer
	}
	steps := (2*(h.body.Len()+n) + step - 1) / step
	return h.take(int64(steps * step))
}

// unless sends what is held, unless something is wrong.
func (h *heldAnswer) unless(err error) error {
	if err != nil {
		return err
	}
	return h.send(cmp.Or(h.code, http.StatusOK), h.header, h.body.Bytes())
}

// pass sends what is held.
func (h *heldAnswer) pass() error {
	if h.passed {
		return nil
	}
	h.passed = true
	return h.send(h.code, h.header, h.body.Bytes())
}

// send sends an answer in place of what is held.
func (h *heldAnswer) send(code int, header http.Header, content []byte) error {
	clear(h.ResponseWriter.Header())
	maps.Copy(h.ResponseWriter.Header(), header)
	h.ResponseWriter.WriteHeader(code)
	if len(content) == 0 {
		return nil
	}
	_, err := h.ResponseWriter.Write(content)
	return err
}

// Flush sends only what goes its way.
func (h *heldAnswer) Flush() {
	if h.passed {
		_ = http.NewResponseController(h.ResponseWriter).Flush() // what cannot be flushed need not be
	}
}
