package bench

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"k8s.io/client-go/transport"
)

const (
	// rawWindow is what a stream may send unasked, as to net/http's client, and
	// rawConnection what a connection may, which is more than any of ours lives to see.
	rawWindow     = 4 << 20
	rawConnection = 1 << 30
)

// A raw reader asks over one connection, one request after another, on the
// goroutine that reads the answer. It takes a fraction of what net/http's client
// does, whose goroutines otherwise wait for the same processors as the server.
type raw struct {
	road
	conn   net.Conn
	framer *http2.Framer
	stream uint32 // of the last request
	head   bytes.Buffer
	packs  *hpack.Encoder
	opens  *hpack.Decoder
	status string
}

func (r road) raw(b *testing.B) *raw {
	b.Helper()
	cfg, err := transport.TLSConfigFor(r.tls)
	if err != nil {
		b.Fatal(err)
	}
	at, err := url.Parse(r.url)
	if err != nil {
		b.Fatal(err)
	}
	cfg = cfg.Clone()
	cfg.NextProtos = []string{http2.NextProtoTLS}
	conn, err := tls.Dial("tcp", at.Host, cfg)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = conn.Close() })
	c := &raw{road: r, conn: conn, framer: http2.NewFramer(conn, conn)}
	c.framer.SetReuseFrames()
	c.packs = hpack.NewEncoder(&c.head)
	c.opens = hpack.NewDecoder(4<<10, func(f hpack.HeaderField) {
		if f.Name == ":status" {
			c.status = f.Value
		}
	})
	if err := c.greet(); err != nil {
		b.Fatal(err)
	}
	return c
}

func (c *raw) greet() error {
	_, err := c.conn.Write([]byte(http2.ClientPreface))
	return errors.Join(err,
		c.framer.WriteSettings(http2.Setting{ID: http2.SettingEnablePush}, http2.Setting{ID: http2.SettingInitialWindowSize, Val: rawWindow}),
		c.framer.WriteWindowUpdate(0, rawConnection))
}

// read asks and reads the whole answer. It returns its size in bytes.
func (c *raw) read(_ context.Context, q question) (int64, error) {
	if err := c.ask(q); err != nil {
		return 0, fmt.Errorf("ask: %w", err)
	}
	c.status = ""
	for size := int64(0); ; {
		f, err := c.framer.ReadFrame()
		if err != nil {
			return 0, fmt.Errorf("read answer: %w", err)
		}
		n, ended, err := c.take(f)
		if size += n; err != nil {
			return 0, err
		}
		if ended && c.status != "200" {
			return 0, fmt.Errorf("GET %s %s: %s", c.name, q.path, c.status)
		}
		if ended {
			return size, nil
		}
	}
}

func (c *raw) ask(q question) error {
	at, err := url.Parse(c.url)
	if err != nil {
		return err
	}
	c.head.Reset()
	for _, f := range []hpack.HeaderField{
		{Name: ":authority", Value: at.Host}, {Name: ":method", Value: "GET"}, {Name: ":path", Value: q.path}, {Name: ":scheme", Value: "https"},
		{Name: "accept", Value: q.accept}, {Name: "authorization", Value: "Bearer " + c.token}, {Name: "user-agent", Value: "bench"},
	} {
		if err := c.packs.WriteField(f); err != nil {
			return err
		}
	}
	c.stream += 2
	return c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: c.stream - 1, BlockFragment: c.head.Bytes(), EndStream: true, EndHeaders: true})
}

// take returns how much of the answer f is, and whether it is its end.
func (c *raw) take(f http2.Frame) (size int64, ended bool, err error) {
	switch f := f.(type) {
	case *http2.HeadersFrame:
		_, err := c.opens.Write(f.HeaderBlockFragment())
		return 0, f.StreamEnded(), err
	case *http2.DataFrame:
		return int64(len(f.Data())), f.StreamEnded(), nil
	case *http2.SettingsFrame:
		if !f.IsAck() {
			return 0, false, c.framer.WriteSettingsAck()
		}
	case *http2.PingFrame:
		if !f.IsAck() {
			return 0, false, c.framer.WritePing(true, f.Data)
		}
	case *http2.RSTStreamFrame, *http2.GoAwayFrame:
		return 0, false, fmt.Errorf("the server broke off: %v", f)
	}
	return 0, false, nil
}
