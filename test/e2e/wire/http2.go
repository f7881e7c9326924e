package wire

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// HTTP2 sends r as the only stream of a connection of its own and reads the
// answer. Names of header fields are sent in lower case, as HTTP/2 wants them,
// unless they begin with "=", which is taken off.
func (s Server) HTTP2(ctx context.Context, r Request) (Response, error) {
	r = r.withDefaults()
	conn, err := s.dial(ctx, "h2")
	if err != nil {
		return Response{}, err
	}
	defer conn.Close()
	defer bound(ctx, conn)()
	x := &stream{framer: http2.NewFramer(conn, conn), body: r.Body, window: 65535, total: 65535, initial: 65535}
	x.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	x.framer.MaxHeaderListSize = 8 << 20
	if err := x.open(conn, r); err != nil {
		return Response{End: NoAnswer}, nil
	}
	x.run()
	return x.out, nil
}

const streamID = 1

// stream is one exchange. Everything happens on one goroutine: it writes while
// flow control lets it and reads otherwise.
type stream struct {
	framer  *http2.Framer
	body    []byte // still to be sent
	trailer []byte // encoded, after the body
	sent    bool   // all of the request
	window  int    // of the stream, in bytes
	total   int    // of the connection
	initial int    // of a new stream
	out     Response
}

// openWindow is as much as a server may send unasked.
const openWindow = 1<<31 - 1

func (x *stream) open(conn io.Writer, r Request) error {
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		return err
	}
	if err := x.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: openWindow}); err != nil {
		return err
	}
	if err := x.framer.WriteWindowUpdate(0, openWindow-65535); err != nil {
		return err
	}
	if len(r.Trailer) > 0 {
		x.trailer = encode(r.Trailer)
	}
	x.sent = r.Body == nil && x.trailer == nil
	return x.writeHeader(encode(append(pseudo(r), r.Header...)), x.sent)
}

// pseudo are the fields HTTP/2 has in place of the request line, and the length.
func pseudo(r Request) []Field {
	fields := []Field{{":method", r.Method}}
	if r.Host != "-" {
		fields = append(fields, Field{":authority", r.Host})
	}
	if r.Method != http.MethodConnect {
		fields = append(fields, Field{":scheme", "https"}, Field{":path", r.Target})
	}
	switch {
	case r.Length != nil:
		fields = append(fields, Field{"content-length", strconv.Itoa(*r.Length)})
	case r.Body != nil && !r.Chunked:
		fields = append(fields, Field{"content-length", strconv.Itoa(len(r.Body))})
	}
	return fields
}

func encode(fields []Field) []byte {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	for _, f := range fields {
		name, verbatim := strings.CutPrefix(f.Name, "=")
		if !verbatim {
			name = strings.ToLower(name)
		}
		_ = e.WriteField(hpack.HeaderField{Name: name, Value: f.Value})
	}
	return b.Bytes()
}

const maxFrame = 16 << 10

func (x *stream) writeHeader(block []byte, last bool) error {
	n := min(len(block), maxFrame)
	err := x.framer.WriteHeaders(http2.HeadersFrameParam{
		StreamID: streamID, BlockFragment: block[:n], EndStream: last, EndHeaders: n == len(block),
	})
	for block = block[n:]; err == nil && len(block) > 0; block = block[n:] {
		n = min(len(block), maxFrame)
		err = x.framer.WriteContinuation(streamID, n == len(block), block[:n])
	}
	return err
}

// run sends the body and reads until the answer has ended.
func (x *stream) run() {
	for x.out.End == "" {
		if !x.sent && (x.window > 0 && x.total > 0 || len(x.body) == 0) {
			if x.send() == nil {
				continue
			}
			x.sent = true // the server does not want more; it may have answered
		}
		frame, err := x.framer.ReadFrame()
		if err != nil {
			x.broken(err)
			return
		}
		x.handle(frame)
	}
}

func (x *stream) send() error {
	if len(x.body) == 0 && x.trailer != nil {
		x.sent = true
		return x.writeHeader(x.trailer, true)
	}
	n := min(len(x.body), x.window, x.total, maxFrame)
	data := x.body[:n]
	x.body, x.window, x.total = x.body[n:], x.window-n, x.total-n
	last := len(x.body) == 0 && x.trailer == nil
	x.sent = last
	return x.framer.WriteData(streamID, last, data)
}

func (x *stream) broken(err error) {
	x.out.End = NoAnswer
	if x.out.Code != 0 {
		x.out.End = Cut
	}
	if se := (http2.StreamError{}); errors.As(err, &se) {
		x.out.End = "malformed: " + se.Error()
	}
}

func (x *stream) handle(frame http2.Frame) {
	switch f := frame.(type) {
	case *http2.SettingsFrame:
		x.settings(f)
	case *http2.PingFrame:
		if !f.IsAck() {
			_ = x.framer.WritePing(true, f.Data)
		}
	case *http2.WindowUpdateFrame:
		if f.StreamID == 0 {
			x.total += int(f.Increment)
		} else {
			x.window += int(f.Increment)
		}
	case *http2.MetaHeadersFrame:
		x.header(f)
	case *http2.DataFrame:
		x.out.Body = append(x.out.Body, f.Data()...)
		x.ended(f.StreamEnded())
	case *http2.RSTStreamFrame:
		x.out.End = fmt.Sprintf("reset %s", f.ErrCode)
	}
}

func (x *stream) settings(f *http2.SettingsFrame) {
	if f.IsAck() {
		return
	}
	if size, ok := f.Value(http2.SettingInitialWindowSize); ok {
		x.window += int(size) - x.initial
		x.initial = int(size)
	}
	_ = x.framer.WriteSettingsAck()
}

func (x *stream) header(f *http2.MetaHeadersFrame) {
	h := http.Header{}
	for _, field := range f.RegularFields() {
		name := textproto.CanonicalMIMEHeaderKey(field.Name)
		h[name] = append(h[name], field.Value)
	}
	code, _ := strconv.Atoi(f.PseudoValue("status"))
	switch {
	case x.out.Code != 0:
		x.out.Trailer = h
	case code < 200:
		x.out.Interim = append(x.out.Interim, Interim{code, h})
		return
	default:
		x.out.Code, x.out.Header = code, h
	}
	x.ended(f.StreamEnded())
}

func (x *stream) ended(last bool) {
	if last {
		x.out.End = Complete
	}
}
