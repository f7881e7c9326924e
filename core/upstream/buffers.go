package upstream

import (
	"net/http"
	"net/http/httputil"
	"sync"

	"github.com/portico-proxy/portico/core/server"
)

// watchBuffers are small: a watch holds its buffer while it idles.
var watchBuffers = newBuffers(4 << 10)

// newBulkBuffers returns buffers for long answers over a protocol.
func newBulkBuffers(protoMajor int) *buffers {
	return newBuffers(server.WriteSize(&http.Request{ProtoMajor: protoMajor}))
}

type buffers struct{ pool sync.Pool }

func newBuffers(size int) *buffers {
	return &buffers{pool: sync.Pool{New: func() any { b := make([]byte, size); return &b }}}
}

func (b *buffers) Get() []byte  { return *b.pool.Get().(*[]byte) }
func (b *buffers) Put(p []byte) { b.pool.Put(&p) }

var _ httputil.BufferPool = (*buffers)(nil)
