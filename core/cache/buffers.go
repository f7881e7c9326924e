package cache

import (
	"bufio"
	"io"
	"sync"
)

// A writerPool lends buffered writers: they save system calls on answers of
// many small pieces.
type writerPool struct{ pool sync.Pool }

func newWriterPool(size int) *writerPool {
	return &writerPool{pool: sync.Pool{New: func() any { return bufio.NewWriterSize(nil, size) }}}
}

func (p *writerPool) get(to io.Writer) *bufio.Writer {
	b := p.pool.Get().(*bufio.Writer)
	b.Reset(to)
	return b
}

// put takes b back with whatever it still holds.
func (p *writerPool) put(b *bufio.Writer) {
	b.Reset(nil)
	p.pool.Put(b)
}
