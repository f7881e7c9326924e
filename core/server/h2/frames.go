package h2

import (
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2"
)

func streamFault(id uint32, code http2.ErrCode, why string) error {
	return http2.StreamError{StreamID: id, Code: code, Cause: errors.New(why)}
}

const (
	errProtocol = http2.ConnectionError(http2.ErrCodeProtocol)
	errFlow     = http2.ConnectionError(http2.ErrCodeFlowControl)
	errCalm     = http2.ConnectionError(http2.ErrCodeEnhanceYourCalm)
)

// enoughSettings is how many may come in one frame.
const enoughSettings = 100

// process does what a frame asks for. It returns the stream to answer before the
// next frame is read, if there is one.
func (c *conn) process(f http2.Frame) (*stream, error) {
	if c.early {
		if s, ok := f.(*http2.SettingsFrame); !ok || s.IsAck() {
			return nil, errProtocol // RFC 9113, 3.4
		}
		c.early = false
		_ = c.tls.SetReadDeadline(noDeadline)
	}
	if h, ok := f.(*http2.MetaHeadersFrame); ok {
		return c.processHeaders(h)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over != nil {
		return nil, c.over
	}
	if c.out.len() > enoughControl {
		return nil, errCalm // it asks and does not read
	}
	switch f := f.(type) {
	case *http2.DataFrame:
		return nil, c.processData(f)
	case *http2.WindowUpdateFrame:
		return nil, c.processWindow(f)
	case *http2.SettingsFrame:
		return nil, c.processSettings(f)
	case *http2.PingFrame:
		if !f.IsAck() {
			_ = c.frames.WritePing(true, f.Data)
		}
	case *http2.RSTStreamFrame:
		return nil, c.processReset(f)
	case *http2.PriorityFrame:
		if f.StreamDep == f.StreamID {
			return nil, streamFault(f.StreamID, http2.ErrCodeProtocol, "a stream depends on itself")
		}
	case *http2.GoAwayFrame:
		c.goAway(http2.ErrCodeNo)
		c.resting()
	case *http2.PushPromiseFrame, *http2.ContinuationFrame:
		return nil, errProtocol
	}
	return nil, nil
}

// processHeaders begins a stream, or ends the request of one.
func (c *conn) processHeaders(f *http2.MetaHeadersFrame) (*stream, error) {
	if f.HasPriority() && f.Priority.StreamDep == f.StreamID {
		return nil, streamFault(f.StreamID, http2.ErrCodeProtocol, "a stream depends on itself")
	}
	if f.StreamID%2 == 0 {
		return nil, errProtocol
	}
	c.mu.Lock()
	s, last, closed, leaving := c.streams[f.StreamID], c.last, c.isClosedHere(f.StreamID), c.leaving
	c.mu.Unlock()
	switch {
	case s != nil:
		c.mu.Lock()
		defer c.mu.Unlock()
		return nil, c.processTrailer(s, f)
	case closed, leaving:
		return nil, nil
	case f.StreamID <= last:
		return nil, http2.ConnectionError(http2.ErrCodeStreamClosed)
	}
	return c.open(f)
}

// open begins a stream.
func (c *conn) open(f *http2.MetaHeadersFrame) (*stream, error) {
	s, err := c.newStream(f)
	quick := err == nil && s.body == nil && c.isQuick(s)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.leaving {
		// GOAWAY has said meanwhile that this one is not served.
		if err == nil {
			s.cancel()
		}
		return nil, nil
	}
	c.last = f.StreamID
	if err == nil {
		err = c.admit(s)
	}
	if err != nil {
		return nil, err
	}
	s.window, s.in.avail = int64(c.initial), c.streamWindow
	c.streams[s.id] = s
	return c.begin(s, quick)
}

// admit is why there cannot be one stream more. The caller holds mu.
func (c *conn) admit(s *stream) (err error) {
	switch {
	case c.over != nil:
		err = c.over
	case c.out.len() > enoughControl:
		err = errCalm
	case len(c.streams) >= int(c.server.streams):
		err = streamFault(s.id, http2.ErrCodeRefusedStream, "too many streams")
	default:
		return nil
	}
	s.cancel()
	return err
}

// isQuick asks whether s needs not wait. Whatever goes wrong is the handler's
// to find.
func (c *conn) isQuick(s *stream) (quick bool) {
	if c.Quick == nil {
		return false
	}
	defer func() {
		if recover() != nil {
			quick = false
		}
	}()
	s.request, quick = c.Quick(s.request)
	return quick
}

// processTrailer ends a request. The caller holds mu.
func (c *conn) processTrailer(s *stream, f *http2.MetaHeadersFrame) error {
	switch {
	case s.gotEnd:
		return streamFault(s.id, http2.ErrCodeStreamClosed, "a request goes on after its end")
	case !f.StreamEnded(), len(f.PseudoFields()) > 0, f.Truncated:
		return streamFault(s.id, http2.ErrCodeProtocol, "bad trailer")
	}
	trailer := http.Header{}
	for _, field := range f.RegularFields() {
		name := http.CanonicalHeaderKey(field.Name)
		if !httpguts.ValidTrailerHeader(name) {
			return streamFault(s.id, http2.ErrCodeProtocol, "bad trailer")
		}
		trailer[name] = append(trailer[name], field.Value)
	}
	return c.endRequest(s, trailer)
}

// endRequest is called when all of a request has come. The caller holds mu.
func (c *conn) endRequest(s *stream, trailer http.Header) error {
	if s.size >= 0 && s.got != s.size {
		return streamFault(s.id, http2.ErrCodeProtocol, fmt.Sprintf("a body of %d bytes was said to have %d", s.got, s.size))
	}
	s.gotEnd = true
	if s.body != nil {
		s.body.finish(trailer)
	}
	return nil
}

// finish has those who read learn that the body is whole, and with what trailer.
func (b *body) finish(trailer http.Header) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.end == nil {
		b.end, b.trailer = io.EOF, trailer
		b.more.Broadcast()
	}
}

// enoughEmpty is how many frames of a body may have nothing in them.
const enoughEmpty = 1000

// processData takes a part of a body. The caller holds mu.
func (c *conn) processData(f *http2.DataFrame) error {
	id, size := f.StreamID, int(f.Length) // padding counts
	if !c.in.take(size) {
		return errFlow
	}
	s := c.streams[id]
	if s == nil || s.gotEnd {
		c.refund(nil, size)
		switch {
		case s == nil && (c.isClosedHere(id) || c.leaving && id > c.served):
			return nil
		case s == nil && id > c.last:
			return errProtocol
		}
		return streamFault(id, http2.ErrCodeStreamClosed, "a request goes on after its end")
	}
	data := f.Data()
	s.got += int64(len(data))
	switch {
	case !s.in.take(size):
		c.refund(nil, size)
		return streamFault(id, http2.ErrCodeFlowControl, "more than was asked for")
	case s.size >= 0 && s.got > s.size:
		c.refund(nil, size)
		return streamFault(id, http2.ErrCodeProtocol, fmt.Sprintf("a body of more than the %d bytes that it was said to have", s.size))
	}
	if len(data) == 0 && !f.StreamEnded() {
		if s.empty++; s.empty > enoughEmpty {
			return errCalm
		}
	}
	if len(data) > 0 && !s.body.put(data) {
		c.refund(s, len(data))
	}
	c.refund(s, size-len(data))
	if f.StreamEnded() {
		return c.endRequest(s, nil)
	}
	return nil
}

// processWindow lets more be sent. The caller holds mu.
func (c *conn) processWindow(f *http2.WindowUpdateFrame) error {
	if f.StreamID == 0 {
		if c.window += int64(f.Increment); c.window > math.MaxInt32 {
			return errFlow
		}
		if c.window > 0 {
			c.ready = append(c.ready, c.parked...)
			clear(c.parked)
			c.parked = c.parked[:0]
			c.passOn()
		}
		return nil
	}
	s := c.streams[f.StreamID]
	if s == nil {
		if f.StreamID > c.last && !c.leaving {
			return errProtocol
		}
		return nil
	}
	return c.widen(s, int64(f.Increment))
}

// widen lets n bytes more be sent on s. The caller holds mu.
func (c *conn) widen(s *stream, n int64) error {
	if s.window += n; s.window > math.MaxInt32 {
		return streamFault(s.id, http2.ErrCodeFlowControl, "a window that is too large")
	}
	c.enlist(s)
	c.passOn()
	return nil
}

// processReset gives up a request. The caller holds mu.
func (c *conn) processReset(f *http2.RSTStreamFrame) error {
	s := c.streams[f.StreamID]
	if s == nil {
		if f.StreamID > c.last && !c.leaving {
			return errProtocol
		}
		return nil
	}
	c.drop(s, errReset)
	return nil
}

// processSettings does as the client wishes. The caller holds mu.
func (c *conn) processSettings(f *http2.SettingsFrame) error {
	if f.IsAck() {
		return nil
	}
	if f.NumSettings() > enoughSettings || f.HasDuplicates() {
		return errProtocol
	}
	if err := f.ForeachSetting(c.set); err != nil {
		return err
	}
	return c.frames.WriteSettingsAck()
}

func (c *conn) set(s http2.Setting) error {
	if err := s.Valid(); err != nil {
		return err
	}
	switch s.ID {
	case http2.SettingHeaderTableSize:
		c.encoder.SetMaxDynamicTableSize(min(s.Val, tableSize))
	case http2.SettingMaxFrameSize:
		c.mostFrame = int(min(s.Val, batch))
	case http2.SettingInitialWindowSize:
		more := int64(s.Val) - int64(c.initial)
		c.initial = int32(s.Val)
		for _, s := range c.streams {
			if c.widen(s, more) != nil {
				return errFlow // RFC 9113, 6.9.2
			}
		}
	}
	return nil
}
