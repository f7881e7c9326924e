// Package trace is the filter that observes a request from its arrival to its
// end: its span, its Audit-ID, its metrics and its line in the log.
package trace

import (
	"net/http"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/uuid"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/portico-proxy/portico/core/pipeline"
	"github.com/portico-proxy/portico/core/telemetry"
)

// accessVerbosity is the log level at which each request gets a line.
// kube-apiserver's own is 3 as well.
const accessVerbosity = 3

// Filter observes requests. It stands first in the chain: what stands above it
// is seen by nobody.
type Filter struct {
	telemetry *telemetry.Telemetry
	log       logr.Logger
}

// New returns a filter that reports to t and puts a logger derived from log
// into each request's context, where logr.FromContext and klog.FromContext find
// it.
func New(t *telemetry.Telemetry, log logr.Logger) *Filter {
	return &Filter{telemetry: t, log: log}
}

// Name is the filter's name.
func (f *Filter) Name() string { return "trace" }

// ServeHTTP passes every request on and watches what becomes of it.
func (f *Filter) ServeHTTP(w http.ResponseWriter, r *http.Request, next pipeline.Handler) error {
	start := time.Now()
	info, ok := request.RequestInfoFrom(r.Context())
	if !ok {
		info = &request.RequestInfo{Path: r.URL.Path, Verb: r.Method}
	}
	identify(r)
	ctx, span := f.telemetry.StartServer(r, info)
	log := f.log.WithValues(telemetry.LogAuditID, telemetry.AuditID(r))
	r = r.WithContext(logr.NewContext(ctx, log))

	x := &exchange{ResponseWriter: w, metrics: f.telemetry.Metrics, log: log, r: r, info: info, span: span, start: start}
	x.inFlight = x.metrics.InFlight(info)
	x.inFlight.Inc()
	defer x.end()
	x.err = next.ServeHTTP(x, r)
	x.returned = true
	return x.err
}

// identify gives r an Audit-ID unless its caller did. Like kube-apiserver it
// takes whatever the caller says (k8s.io/apiserver/pkg/endpoints/filters,
// WithAuditInit): this id is a claim, not a proof.
func identify(r *http.Request) {
	if r.Header.Get(telemetry.HeaderAuditID) == "" {
		r.Header.Set(telemetry.HeaderAuditID, uuid.NewString())
	}
}

var _ pipeline.Filter = (*Filter)(nil)
