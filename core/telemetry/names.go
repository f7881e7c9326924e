package telemetry

import (
	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.41.0"
)

// scope names our instrumentation in traces.
const scope = "github.com/portico-proxy/portico"

// serviceName is the resource attribute service.name, unless OTEL_SERVICE_NAME says otherwise.
const serviceName = "portico"

// Attribute keys of our spans. There is no semantic convention for Kubernetes
// API requests, so theirs share one prefix. Spans of filters are made by
// core/pipeline and are named "filter <name>".
const (
	KeyMethod         = semconv.HTTPRequestMethodKey
	KeyMethodOriginal = semconv.HTTPRequestMethodOriginalKey
	KeyStatusCode     = semconv.HTTPResponseStatusCodeKey
	KeyRoute          = semconv.HTTPRouteKey
	KeyPath           = semconv.URLPathKey
	KeyUserAgent      = semconv.UserAgentOriginalKey
	KeyErrorType      = semconv.ErrorTypeKey
	KeyServerAddress  = semconv.ServerAddressKey
	KeyServerPort     = semconv.ServerPortKey

	// KeyAuditID joins a span with the API server's audit log, and has the name
	// kube-apiserver's own spans use.
	KeyAuditID  = attribute.Key("audit-id")
	KeyServedBy = attribute.Key("portico.served_by")

	KeyAPIVerb        = attribute.Key("k8s.api.verb")
	KeyAPIGroup       = attribute.Key("k8s.api.group")
	KeyAPIVersion     = attribute.Key("k8s.api.version")
	KeyAPIResource    = attribute.Key("k8s.api.resource")
	KeyAPISubresource = attribute.Key("k8s.api.subresource")
	KeyAPINamespace   = attribute.Key("k8s.api.namespace")
)

// Values of error.type where no HTTP status and no API reason says it.
const (
	errorAborted  = "aborted"
	errorCanceled = "canceled"
	errorTimeout  = "timeout"
	errorOther    = "_OTHER" // the semantic conventions' own word
)

// Keys of log lines about requests.
const (
	LogAuditID  = "auditID"
	LogVerb     = "verb"
	LogPath     = "path"
	LogCode     = "code"
	LogBytes    = "bytes"
	LogDuration = "duration"
	LogServedBy = "servedBy"
)

// HeaderAuditID is kube-apiserver's Audit-ID as net/http spells it, which
// spares spelling it anew for each request.
const HeaderAuditID = "Audit-Id"

// HeaderServedBy is the response header that says how an answer was made.
const HeaderServedBy = "Portico-Served-By"

// Values of HeaderServedBy.
const (
	ServedByCache     = "cache"
	ServedByLedger    = "ledger"
	ServedByCoalesced = "coalesced"
	ServedByUpstream  = "upstream"
)

// Metrics are named and labelled as kube-apiserver's apiserver_* are, so that
// what was made for those works with the prefix exchanged.
const (
	metricRequests         = "portico_request_total"
	metricDuration         = "portico_request_duration_seconds"
	metricSizes            = "portico_response_sizes"
	metricAborts           = "portico_request_aborts_total"
	metricLongRunning      = "portico_longrunning_requests"
	metricInFlight         = "portico_current_inflight_requests"
	metricUpstream         = "portico_upstream_request_total"
	metricUpstreamDuration = "portico_upstream_request_duration_seconds"
)

// Labels of metrics. None of them ever names a caller.
const (
	labelVerb        = "verb"
	labelGroup       = "group"
	labelVersion     = "version"
	labelResource    = "resource"
	labelSubresource = "subresource"
	labelScope       = "scope"
	labelServedBy    = "served_by"
	labelCode        = "code"
	labelRequestKind = "request_kind"
	labelAddress     = "address"
)
