package bench

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"testing"

	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/transport"
)

const (
	asJSON     = "application/json"
	asProtobuf = "application/vnd.kubernetes.protobuf"
)

// A road is a way to the API server.
type road struct {
	name   string
	url    string
	token  string
	tls    *transport.Config
	server process // who answers
	behind process // who answers that one; 0 is nobody
}

func newRoad(b *testing.B, name string, c *rest.Config) road {
	b.Helper()
	t, err := c.TransportConfig()
	if err != nil {
		b.Fatal(err)
	}
	return road{name: name, url: c.Host, token: c.BearerToken, tls: t}
}

// readSize is how much a client reads at once if there is as much: client-go
// reads an answer into one growing buffer.
const readSize = 1 << 20

// A client has connections of its own, set up as client-go's are. It reads
// bytes and decodes nothing.
type client struct {
	road
	transport *http.Transport
	buffer    []byte
}

func (r road) client(b *testing.B) *client {
	b.Helper()
	c, err := transport.TLSConfigFor(r.tls)
	if err != nil {
		b.Fatal(err)
	}
	t := utilnet.SetTransportDefaults(&http.Transport{TLSClientConfig: c, DisableCompression: true, MaxIdleConnsPerHost: 25})
	b.Cleanup(t.CloseIdleConnections)
	return &client{road: r, transport: t, buffer: make([]byte, readSize)}
}

// A question is a GET.
type question struct {
	path     string
	accept   string
	encoding string // what is asked for; empty is identity
	mayZip   bool   // gzip is accepted, as it is by client-go's default
}

// open asks and returns when the answer's header is there.
func (c *client) open(ctx context.Context, q question) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url+q.path, nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Accept", q.accept)
	r.Header.Set("Authorization", "Bearer "+c.token)
	r.Header.Set("User-Agent", "bench")
	if q.mayZip {
		r.Header.Set("Accept-Encoding", "gzip")
	} else if q.encoding != "" {
		r.Header.Set("Accept-Encoding", q.encoding)
	}
	res, err := c.transport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	got := res.Header.Get("Content-Encoding")
	if res.StatusCode != http.StatusOK || got != q.encoding && !q.mayZip || res.ProtoMajor != 2 {
		res.Body.Close()
		return nil, fmt.Errorf("GET %s %s: %s in %q over %s", c.name, q.path, res.Status, got, res.Proto)
	}
	return res, nil
}

// read asks and reads the whole answer. It returns its size in bytes.
func (c *client) read(ctx context.Context, q question) (int64, error) {
	res, err := c.open(ctx, q)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	return io.CopyBuffer(onlyWriter{io.Discard}, res.Body, c.buffer)
}

// onlyWriter hides io.Discard's own, smaller buffers.
type onlyWriter struct{ io.Writer }
