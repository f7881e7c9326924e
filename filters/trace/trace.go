// Package trace is the filter that observes a request from its arrival to its
// end: its span, its Audit-ID, its metrics and its line in the log.
package trace

import (
	"net/http"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/uuid"
	auditinternal "k8s.io/apiserver/pkg/apis/audit"
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
func (f *Filter) ServeHTTP(w http.ResponseWriter, r *http.Request, next pipeline.Handler) (err error) {
	start := time.Now()
	info, ok := request.RequestInfoFrom(r.Context())
	if !ok {
		info = &request.RequestInfo{Path: r.URL.Path, Verb: r.Method}
	}
	identify(r)
	ctx, span := f.telemetry.StartServer(r, info)
	log := f.log.WithValues(telemetry.LogAuditID, telemetry.AuditID(r))
	r = r.WithContext(logr.NewContext(ctx, log))

	x := &exchange{ResponseWriter: w, metrics: f.telemetry.Metrics, r: r, info: info, span: span, start: start}
	x.inFlight = x.metrics.InFlight(info)
	x.inFlight.Inc()
	returned := false
	defer func() { x.end(log, err, returned) }()
	err = next.ServeHTTP(x, r)
	returned = true
	return err
}

// identify gives r an Audit-ID unless its caller did. Like kube-apiserver it
// takes whatever the caller says (k8s.io/apiserver/pkg/endpoints/filters,
// WithAuditInit): this id is a claim, not a proof.
func identify(r *http.Request) {
	if r.Header.Get(auditinternal.HeaderAuditID) == "" {
		r.Header.Set(auditinternal.HeaderAuditID, uuid.NewString())
	}
}

// end is called once, when the chain has returned or is panicking. It does not
// recover: the stack belongs to whoever does.
func (x *exchange) end(log logr.Logger, err error, returned bool) {
	a := telemetry.Answer{
		Code: x.code, Bytes: x.bytes, ServedBy: x.servedBy, Took: time.Since(x.start), Span: x.span,
		Streamed: x.stream != nil, Aborted: err != nil && x.code != 0 || !returned,
	}
	reason := ""
	if x.code == 0 {
		a.Code, reason, a.Aborted = x.unanswered(err, returned)
	}
	a.CallerGone = a.Aborted && x.r.Context().Err() != nil
	if x.code == http.StatusSwitchingProtocols && a.ServedBy == "" {
		a.ServedBy = x.Header().Get(telemetry.HeaderServedBy) // set after Hijack
	}
	if x.stream != nil {
		x.stream.Dec()
	} else {
		x.inFlight.Dec()
		telemetry.EndServer(x.span, a, reason)
	}
	x.metrics.Answered(x.r, x.info, a)
	if line := log.V(accessVerbosity); line.Enabled() {
		line.Info("Request", telemetry.LogVerb, x.info.Verb, telemetry.LogPath, telemetry.Path(x.r, x.info), telemetry.LogCode, a.Code,
			telemetry.LogBytes, a.Bytes, telemetry.LogDuration, a.Took, telemetry.LogServedBy, a.ServedBy)
	}
}

// unanswered says what the pipeline makes of a request nothing was written for.
func (x *exchange) unanswered(err error, returned bool) (code int, reason string, aborted bool) {
	switch {
	case returned && err == nil:
		return http.StatusOK, "", false // net/http writes that
	case x.r.Context().Err() != nil:
		return telemetry.CodeClientGone, "", true
	}
	x.echoAuditID()
	if !returned {
		return http.StatusInternalServerError, "panic", false
	}
	status := pipeline.StatusOf(err)
	return int(status.Code), string(status.Reason), false
}

var _ pipeline.Filter = (*Filter)(nil)
