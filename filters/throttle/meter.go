package throttle

import (
	"net/http"
	"time"

	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/portico-proxy/portico/core/limit"
	"github.com/portico-proxy/portico/core/talkers"
)

// usage is what an answer has cost.
type usage struct {
	bytes, objects int64
	took           time.Duration
}

func (u usage) of(m limit.Measure) float64 {
	switch m {
	case limit.ResponseBytes:
		return float64(u.bytes)
	case limit.ResponseObjects:
		return float64(u.objects)
	}
	return u.took.Seconds()
}

// tranche is how many bytes are sent between two charges: a watch must not cost
// nothing until it ends.
const tranche = 64 << 10

// A meter measures an answer while it is written.
type meter struct {
	http.ResponseWriter
	pass  *pass
	begun bool
	// objects is nil where nobody asks for them.
	objects *talkers.Objects
	// What has not been charged, and since when.
	bytes, counted int64
	since          time.Time
}

// Unwrap lets http.ResponseController reach what is not watched.
func (m *meter) Unwrap() http.ResponseWriter { return m.ResponseWriter }

func (m *meter) WriteHeader(code int) {
	if !m.begun && code >= http.StatusOK {
		m.begun = true
		if code != http.StatusOK {
			m.objects = nil
		}
	}
	m.ResponseWriter.WriteHeader(code)
}

func (m *meter) Write(p []byte) (int, error) {
	n, err := m.ResponseWriter.Write(p)
	m.begun = true
	m.bytes += int64(n)
	if m.objects != nil {
		m.objects.Read(m.Header().Get("Content-Type"), p[:n])
	}
	if m.bytes >= tranche {
		m.pass.charge(m.used())
	}
	return n, err
}

// used is what has not been charged; afterwards it counts as charged.
func (m *meter) used() usage {
	now := time.Now()
	u := usage{bytes: m.bytes, took: now.Sub(m.since)}
	if m.objects != nil {
		u.objects = m.objects.N - m.counted
		m.counted = m.objects.N
	}
	m.bytes, m.since = 0, now
	return u
}

func (m *meter) end() { m.pass.leave(m.used()) }

// countObjects counts those in the answer to r. They cannot be counted in what is
// compressed, so r does not ask for that.
func (m *meter) countObjects(r *http.Request) *http.Request {
	info, ok := request.RequestInfoFrom(r.Context())
	if !ok || !info.IsResourceRequest {
		return r
	}
	m.objects = &talkers.Objects{Verb: info.Verb}
	if r.Header.Get("Accept-Encoding") != "" {
		r = r.Clone(r.Context())
		r.Header.Del("Accept-Encoding")
	}
	return r
}
