package h2

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2/hpack"
)

const (
	// heldSize is how much of an answer is held back for more to come with it.
	heldSize = 16 << 10
	// countedSize is the longest answer whose length is told by net/http, if the
	// handler does not tell it.
	countedSize = 4 << 10
)

// response is the [http.ResponseWriter] of a stream. As everywhere, one goroutine
// may write it at a time.
type response struct {
	s      *stream
	header http.Header
	isHead bool

	status   int                 // 0 until it is decided
	fields   []hpack.HeaderField // as they were then
	length   int64               // of the body, as the handler says; -1 if it does not
	hasType  bool
	hasDate  bool
	isCoded  bool
	closes   bool // the connection is to end
	trailers []string
	begun    atomic.Bool // the header is on its way
	held     *[]byte     // of the body; nil while nothing is
	wrote    int64
	done     bool
}

var heldFirst, heldLater = sync.Pool{New: func() any { return room(heldSize) }}, sync.Pool{New: func() any { return room(countedSize) }}

func room(size int) *[]byte {
	b := make([]byte, 0, size)
	return &b
}

func hold(size int) *[]byte {
	if size == heldSize {
		return heldFirst.Get().(*[]byte)
	}
	return heldLater.Get().(*[]byte)
}

// Header is what WriteHeader sends.
func (w *response) Header() http.Header { return w.header }

// WriteHeader decides the status and the header.
func (w *response) WriteHeader(code int) {
	switch {
	case w.status != 0 || w.done:
		return
	case code < 100 || code > 999:
		panic(fmt.Sprintf("invalid WriteHeader code %v", code)) // as net/http has it
	case code < 200:
		w.inform(code)
		return
	}
	w.status = code
	w.fields = make([]hpack.HeaderField, 1, len(w.header)+4)
	w.fields[0] = hpack.HeaderField{Name: ":status", Value: statusText(code)}
	for name, values := range w.header {
		w.take(name, values)
	}
}

func statusText(code int) string {
	if code == http.StatusOK {
		return "200"
	}
	return strconv.Itoa(code)
}

// take notes a field of the header.
func (w *response) take(name string, values []string) {
	switch name {
	case "Connection":
		w.closes = w.closes || len(values) > 0 && values[0] == "close"
		return
	case "Keep-Alive", "Proxy-Connection", "Transfer-Encoding", "Upgrade":
		return // RFC 9113, 8.2.2
	case "Content-Length":
		n, err := strconv.ParseUint(strings.Join(values, ","), 10, 63)
		if err != nil {
			return
		}
		w.length = int64(n)
	case "Content-Type":
		w.hasType = true
	case "Content-Encoding":
		w.isCoded = len(values) > 0 && values[0] != ""
	case "Date":
		w.hasDate = true
	case "Trailer":
		for _, list := range values {
			for name := range strings.SplitSeq(list, ",") {
				w.declare(http.CanonicalHeaderKey(strings.TrimSpace(name)))
			}
		}
	}
	w.fields = appendField(w.fields, name, values)
}

func (w *response) declare(name string) {
	if httpguts.ValidTrailerHeader(name) {
		w.trailers = append(w.trailers, name)
	}
}

func appendField(fields []hpack.HeaderField, name string, values []string) []hpack.HeaderField {
	if !httpguts.ValidHeaderFieldName(name) {
		return fields // [http.TrailerPrefix] among them
	}
	for _, v := range values {
		if httpguts.ValidHeaderFieldValue(v) {
			fields = append(fields, hpack.HeaderField{Name: lower(name), Value: v, Sensitive: isUnique(name)})
		}
	}
	return fields
}

// isUnique reports fields whose values are not sent again on a connection. To
// remember them would cost both sides, and what is remembered for them.
func isUnique(name string) bool { return name == "Audit-Id" || name == "Content-Length" }

// lower is name as HTTP/2 has it.
func lower(name string) string {
	switch name {
	case "Content-Type":
		return "content-type"
	case "Content-Length":
		return "content-length"
	case "Cache-Control":
		return "cache-control"
	case "Audit-Id":
		return "audit-id"
	}
	return strings.ToLower(name)
}

// inform sends a status that is not the last.
func (w *response) inform(code int) {
	fields := []hpack.HeaderField{{Name: ":status", Value: strconv.Itoa(code)}}
	if code != http.StatusContinue {
		for name, values := range w.header {
			if name != "Content-Length" && name != "Transfer-Encoding" && name != "Connection" {
				fields = appendField(fields, name, values)
			}
		}
	}
	_ = w.s.c.send(w.s, &offer{head: fields})
}

// proceed tells the client to send the body. Somebody may be writing meanwhile.
func (w *response) proceed() {
	c := w.s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if w.begun.Load() || w.s.over != nil {
		return
	}
	c.writeHeaders(w.s.id, []hpack.HeaderField{{Name: ":status", Value: "100"}}, false)
	c.flush()
}

func mayHaveBody(status int) bool {
	return status != http.StatusNoContent && status != http.StatusNotModified
}

// Write sends p, or holds it for more to come with it.
func (w *response) Write(p []byte) (int, error) {
	if err := w.admit(len(p)); err != nil {
		return 0, err
	}
	room := heldSize
	if w.begun.Load() {
		room = countedSize // many a stream lasts long, and waits
	}
	if w.held != nil && len(*w.held)+len(p) > room {
		if err := w.emit(*w.held, false); err != nil {
			return 0, err
		}
		w.unhold()
		room = countedSize
	}
	if len(p) > room {
		if err := w.emit(p, false); err != nil {
			return 0, err
		}
		return len(p), nil
	}
	if w.held == nil {
		w.held = hold(room)
	}
	*w.held = append(*w.held, p...)
	return len(p), nil
}

// WriteString is Write.
func (w *response) WriteString(p string) (int, error) { return w.Write([]byte(p)) }

// admit counts n bytes that are to be written.
func (w *response) admit(n int) error {
	if w.done {
		return errReturned
	}
	w.WriteHeader(http.StatusOK)
	if !mayHaveBody(w.status) {
		return http.ErrBodyNotAllowed
	}
	if w.wrote += int64(n); w.length >= 0 && w.wrote > w.length {
		return http.ErrContentLength
	}
	return nil
}

// Flush sends what is held.
func (w *response) Flush() { _ = w.FlushError() }

// FlushError sends what is held, and at least the header.
func (w *response) FlushError() error {
	if w.done {
		return errReturned
	}
	w.WriteHeader(http.StatusOK)
	var p []byte
	if w.held != nil {
		p = *w.held
	}
	err := w.emit(p, false)
	w.unhold()
	return err
}

func (w *response) unhold() {
	b := w.held
	if b == nil {
		return
	}
	w.held = nil
	if *b = (*b)[:0]; cap(*b) == heldSize {
		heldFirst.Put(b)
	} else {
		heldLater.Put(b)
	}
}

// emit sends p, and what is to be sent before and, at the end, after it.
func (w *response) emit(p []byte, end bool) error {
	o := &offer{data: p, end: end}
	if !w.begun.Load() {
		o.head = w.head(p, end)
		w.begun.Store(true)
		o.end = o.end || w.isHead
	} else if w.isHead {
		return nil
	}
	if w.isHead {
		o.data = nil
	} else if end {
		o.trailer = w.trailer()
	}
	if o.head == nil && len(o.data) == 0 && !o.end {
		return w.lost()
	}
	return w.s.c.send(w.s, o)
}

// lost is why nothing can be sent any more.
func (w *response) lost() error {
	w.s.c.mu.Lock()
	defer w.s.c.mu.Unlock()
	return w.s.over
}

// head is the header of an answer of which p is first, and all if it ends.
func (w *response) head(p []byte, end bool) []hpack.HeaderField {
	h := w.fields
	if mayHaveBody(w.status) {
		if !w.hasType && !w.isCoded && len(p) > 0 {
			h = append(h, hpack.HeaderField{Name: "content-type", Value: http.DetectContentType(p)})
		}
		if w.length < 0 && end && len(p) <= countedSize && (len(p) > 0 || !w.isHead) {
			h = append(h, hpack.HeaderField{Name: "content-length", Value: strconv.Itoa(len(p))})
		}
	}
	if !w.hasDate {
		h = append(h, hpack.HeaderField{Name: "date", Value: w.s.c.date()})
	}
	if w.closes {
		w.s.c.end()
	}
	return h
}

// trailer is what comes after the body, or nil.
func (w *response) trailer() []hpack.HeaderField {
	var fields []hpack.HeaderField
	for name, values := range w.header {
		if after, ok := strings.CutPrefix(name, http.TrailerPrefix); ok && httpguts.ValidTrailerHeader(http.CanonicalHeaderKey(after)) {
			fields = appendField(fields, after, values)
		}
	}
	for _, name := range w.trailers {
		fields = appendField(fields, name, w.header[name])
	}
	return fields
}

// finish sends the rest.
func (w *response) finish() {
	w.WriteHeader(http.StatusOK)
	var p []byte
	if w.held != nil {
		p = *w.held
	}
	_ = w.emit(p, true) // nobody is there to be told
}

// close is called once nothing will be written.
func (w *response) close() {
	w.done = true
	w.unhold()
}

// second is a date as headers have it.
type second struct {
	unix int64
	text string
}

// date is now. It is written once a second.
func (s *server) date() string {
	now := time.Now()
	if last := s.second.Load(); last != nil && last.unix == now.Unix() {
		return last.text
	}
	next := &second{now.Unix(), now.UTC().Format(http.TimeFormat)}
	s.second.Store(next)
	return next.text
}
