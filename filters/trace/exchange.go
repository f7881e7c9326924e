package trace

import (
	"bufio"
	"net"
	"net/http"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/portico-proxy/portico/core/pipeline"
	"github.com/portico-proxy/portico/core/telemetry"
)

// exchange is one request and the response that is being made for it. Like the
// ResponseWriter it wraps it is used by one goroutine at a time.
type exchange struct {
	http.ResponseWriter
	metrics  *telemetry.Metrics
	log      logr.Logger
	r        *http.Request
	info     *request.RequestInfo
	span     trace.Span
	start    time.Time
	inFlight prometheus.Gauge

	code     int // 0 until the response has begun
	bytes    int64
	servedBy string
	stream   prometheus.Gauge // set if what has begun is long-running

	err      error // what the chain returned
	returned bool  // false while it runs, and if it panicked
}

// Unwrap lets http.ResponseController reach what we do not watch.
func (x *exchange) Unwrap() http.ResponseWriter { return x.ResponseWriter }

func (x *exchange) WriteHeader(code int) {
	// 1xx comes before the answer; 101 is one.
	if x.code == 0 && (code >= 200 || code == http.StatusSwitchingProtocols) {
		x.begin(code)
		x.echoAuditID()
	}
	x.ResponseWriter.WriteHeader(code)
}

func (x *exchange) Write(p []byte) (int, error) {
	x.beginOK()
	n, err := x.ResponseWriter.Write(p)
	x.bytes += int64(n)
	return n, err
}

// beginOK does what net/http does where nobody called WriteHeader.
func (x *exchange) beginOK() {
	if x.code == 0 {
		x.begin(http.StatusOK)
		x.echoAuditID()
	}
}

// FlushError is what http.ResponseController calls. Flushing begins a response.
func (x *exchange) FlushError() error {
	x.beginOK()
	return http.NewResponseController(x.ResponseWriter).Flush()
}

// Hijack counts as an answer: whoever hijacks writes its header and all the rest.
func (x *exchange) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(x.ResponseWriter).Hijack()
	if err == nil && x.code == 0 {
		x.begin(http.StatusSwitchingProtocols)
	}
	return conn, rw, err
}

// begin notes that the response's header is final. The span of a stream ends
// here: it would last as long as the stream, and be lost with the process.
func (x *exchange) begin(code int) {
	x.code = code
	x.servedBy = x.Header().Get(telemetry.HeaderServedBy)
	if code == http.StatusSwitchingProtocols {
		x.servedBy = telemetry.ServedByUpstream // nobody else can; its answer to an upgrade stays as it is
	}
	if code >= 400 || !telemetry.LongRunning(x.info) {
		return
	}
	x.stream = x.metrics.Streams(x.r, x.info, code)
	x.stream.Inc()
	x.inFlight.Dec()
	telemetry.EndServer(x.span, telemetry.Answer{Code: code, ServedBy: x.servedBy}, "")
}

// echoAuditID does for the proxy's own answers what kube-apiserver does for
// its. Upstream's have one where upstream sent one.
func (x *exchange) echoAuditID() {
	if x.servedBy == telemetry.ServedByUpstream {
		return
	}
	if h := x.Header(); len(h[telemetry.HeaderAuditID]) == 0 {
		h.Set(telemetry.HeaderAuditID, x.r.Header.Get(telemetry.HeaderAuditID))
	}
}

// end is called once, when the chain has returned or is panicking. It does not
// recover: the stack belongs to whoever does.
func (x *exchange) end() {
	a := telemetry.Answer{
		Code: x.code, Bytes: x.bytes, ServedBy: x.servedBy, Took: time.Since(x.start), Span: x.span,
		Streamed: x.stream != nil, Aborted: x.err != nil || !x.returned,
	}
	reason := ""
	if x.code == 0 {
		a.Code, reason, a.Aborted = x.unanswered()
	}
	a.CallerGone = a.Aborted && x.r.Context().Err() != nil
	if x.stream != nil {
		x.stream.Dec()
	} else {
		x.inFlight.Dec()
		telemetry.EndServer(x.span, a, reason)
	}
	x.metrics.Answered(x.r, x.info, a)
	x.logAccess(a)
}

// unanswered says what the pipeline makes of a request nothing was written for.
func (x *exchange) unanswered() (code int, reason string, aborted bool) {
	switch {
	case x.returned && x.err == nil:
		return http.StatusOK, "", false // net/http writes that
	case x.r.Context().Err() != nil:
		return telemetry.CodeClientGone, "", true
	}
	x.echoAuditID()
	if !x.returned {
		return http.StatusInternalServerError, "panic", false
	}
	status := pipeline.StatusOf(x.err)
	return int(status.Code), string(status.Reason), false
}

func (x *exchange) logAccess(a telemetry.Answer) {
	line := x.log.V(accessVerbosity)
	if !line.Enabled() {
		return
	}
	line.Info("Request", telemetry.LogVerb, x.info.Verb, telemetry.LogPath, telemetry.Path(x.r, x.info), telemetry.LogCode, a.Code,
		telemetry.LogBytes, a.Bytes, telemetry.LogDuration, a.Took, telemetry.LogServedBy, a.ServedBy)
}

var _ http.ResponseWriter = (*exchange)(nil)
