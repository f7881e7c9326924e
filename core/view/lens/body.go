package lens

import (
	"bytes"
	"errors"
	"io"
	"iter"

	"k8s.io/klog/v2"
)

// chunk is about how much is handed on at once, in bytes.
const chunk = 32 << 10

// body is an answer that is made while it is read.
type body struct {
	under io.Closer
	next  func() ([]byte, error, bool)
	stop  func()
	left  []byte
	err   error
}

// newBody returns what parts yields, on top of what is closed with it. What parts
// yields is valid until it goes on.
func newBody(under io.Closer, parts iter.Seq2[[]byte, error]) *body {
	b := &body{under: under}
	b.next, b.stop = iter.Pull2(parts)
	return b
}

// advance makes the next part.
func (b *body) advance() {
	part, err, more := b.next()
	b.left, b.err = part, err
	if !more {
		b.err = io.EOF
	}
}

func (b *body) Read(p []byte) (int, error) {
	for len(b.left) == 0 {
		if b.err != nil {
			return 0, b.err
		}
		b.advance()
	}
	n := copy(p, b.left)
	b.left = b.left[n:]
	return n, nil
}

func (b *body) Close() error {
	b.stop()
	return b.under.Close()
}

// begin makes the first part, so that what fails at once can still be told.
func (b *body) begin() error {
	b.advance()
	if b.err == io.EOF {
		return nil
	}
	return b.err
}

// log says why an answer breaks off.
func (l *Lens) log(err error) {
	klog.FromContext(l.ctx).Error(err, "answer broke off: views could not be applied")
}

// parts gathers what write writes.
func (l *Lens) parts(write func(*sink) error) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		s := &sink{yield: yield}
		err := write(s)
		switch {
		case errors.Is(err, errGone):
		case err != nil && s.yielded:
			l.log(err)
			yield(nil, err)
		case err != nil:
			yield(nil, err)
		case s.Len() > 0:
			yield(s.Bytes(), nil)
		}
	}
}

// sink hands on what is written to it.
type sink struct {
	bytes.Buffer
	yield   func([]byte, error) bool
	yielded bool
}

// errGone says that nobody reads on.
var errGone = io.ErrClosedPipe

// pass hands on what there is, if it is worth it.
func (s *sink) pass() error {
	if s.Len() < chunk {
		return nil
	}
	s.yielded = true
	if !s.yield(s.Bytes(), nil) {
		return errGone
	}
	s.Reset()
	return nil
}
