package upstream

import (
	"net/http/httputil"
	"sync"
)

// A watch holds its buffer while it idles, so watches have small ones; a list
// of a hundred megabytes wants few system calls.
var (
	bulkBuffers  = newBuffers(64 << 10)
	watchBuffers = newBuffers(4 << 10)
)

type buffers struct{ pool sync.Pool }

func newBuffers(size int) *buffers {
	return &buffers{pool: sync.Pool{New: func() any { b := make([]byte, size); return &b }}}
}

func (b *buffers) Get() []byte  { return *b.pool.Get().(*[]byte) }
func (b *buffers) Put(p []byte) { b.pool.Put(&p) }

var _ httputil.BufferPool = (*buffers)(nil)
