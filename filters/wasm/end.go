package wasm

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/portico-proxy/portico/core/pipeline"
)

// ended is a request that modules want to know the end of.
type ended struct {
	facts  Facts
	began  time.Time
	next   pipeline.Handler
	denied error // if it goes no further
}

// follow passes r on, and tells those who asked how it ended, even if its answer
// broke off.
func (f *Filter) follow(w http.ResponseWriter, r *http.Request, asked []string, e ended) (err error) {
	measured := &measure{ResponseWriter: w}
	err = e.denied
	defer func() {
		end := End{Code: measured.code, Bytes: measured.bytes, Took: time.Since(e.began)}
		if err != nil && end.Code == 0 { // otherwise it broke off
			end.Code = int(pipeline.StatusOf(err).Code)
		}
		f.end(asked, e.facts, end)
	}()
	if err == nil {
		err = e.next.ServeHTTP(measured, r)
	}
	return err
}

// end tells modules, also of callers who are gone. What fails is logged: the answer
// has been given.
func (f *Filter) end(asked []string, facts Facts, e End) {
	f, err := f.enter()
	if err != nil {
		return
	}
	ctx := context.WithoutCancel(facts.Request.Context())
	defer f.leave(ctx)
	for _, b := range f.bindings {
		if b.module == nil || !slices.Contains(asked, b.name) {
			continue
		}
		if err := b.module.Ended(ctx, facts, e); err != nil {
			f.log.Error(err, "filter failed after the answer", "binding", b.name)
		}
	}
}

// measure counts an answer's bytes. Unwrap lets http.ResponseController flush.
type measure struct {
	http.ResponseWriter
	code  int
	bytes int64
}

func (m *measure) Unwrap() http.ResponseWriter { return m.ResponseWriter }

func (m *measure) WriteHeader(code int) {
	if code >= 200 || code == http.StatusSwitchingProtocols { // others come before the answer
		m.code = code
	}
	m.ResponseWriter.WriteHeader(code)
}

func (m *measure) Write(p []byte) (int, error) {
	if m.code == 0 {
		m.code = http.StatusOK
	}
	n, err := m.ResponseWriter.Write(p)
	m.bytes += int64(n)
	return n, err
}

// Hijack takes the connection over, which ends counting.
func (m *measure) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	m.code = http.StatusSwitchingProtocols
	return http.NewResponseController(m.ResponseWriter).Hijack()
}
