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
	ServedByCoalesced = "coalesced"
	ServedByUpstream  = "upstream"
	ServedByStale     = "stale"
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

// Metrics of what is in memory, named after those of kube-apiserver's watch cache.
const (
	metricCacheStreams      = "portico_watch_cache_streams"
	metricCacheObjects      = "portico_watch_cache_objects"
	metricCacheBytes        = "portico_watch_cache_size_bytes"
	metricCacheHistory      = "portico_watch_cache_history_events"
	metricCacheHistoryBytes = "portico_watch_cache_history_bytes"
	metricCacheWatchers     = "portico_watch_cache_watchers"
	metricCacheStaleness    = "portico_watch_cache_staleness_seconds"
	metricCacheVersion      = "portico_watch_cache_resource_version"
	metricCacheEvents       = "portico_watch_cache_events_received_total"
	metricCacheInits        = "portico_watch_cache_initializations_total"
	metricCacheAnswers      = "portico_watch_cache_answers_total"
	metricCacheProofs       = "portico_watch_cache_consistent_read_total"
	metricCacheUpstream     = "portico_watch_cache_upstream_request_total"
	metricCachePassed       = "portico_watch_cache_passed_total"
	metricCacheEnded        = "portico_watch_cache_streams_ended_total"
	metricCacheMemory       = "portico_watch_cache_memory_bytes"
	metricCacheMemoryLimit  = "portico_watch_cache_memory_limit_bytes"
	metricTerminated        = "portico_terminated_watchers_total"
)

// Metrics of replicas.
const (
	metricReplicasPeers   = "portico_replicas_peers"
	metricReplicasHeld    = "portico_replicas_leases_held"
	metricReplicasInTouch = "portico_replicas_in_touch"
	metricReplicasLost    = "portico_replicas_lost_touch_total"
	metricReplicasFailed  = "portico_replicas_failed_tellings_total"
)

// Metrics of connections that callers open.
const (
	metricDelays       = "portico_connection_delays_total"
	metricDelaySeconds = "portico_connection_delay_seconds_total"
)

// Metrics of filters that run plugins. A filter is named by its FilterBinding.
const (
	metricFilterDuration = "portico_filter_duration_seconds"
	metricLimits         = "portico_limit_decisions_total"
	metricLimitKeys      = "portico_limit_keys"
	metricUnlogged       = "portico_decision_log_dropped_total"
)

// What a plugin decided.
const (
	DecisionPass  = "pass"
	DecisionDeny  = "deny"
	DecisionError = "error" // it failed, or could not be asked
)

// Why a decision was not logged that was to be.
const (
	UnloggedRate  = "rate"  // there were as many in this second as may be logged
	UnloggedQueue = "queue" // others wait to be written
	UnloggedSize  = "size"  // it is too long
	UnloggedWrite = "write" // it could not be written
)

// Why a read is not answered from memory.
const (
	PassedUnsupported = "unsupported"  // memory does not know what is asked, or not in this form
	PassedPolicy      = "policy"       // the resource is not kept
	PassedNewestGet   = "newest_get"   // one object at its newest version costs upstream no more than a proof
	PassedNotGranted  = "not_granted"  // the caller is not known, may not, or impersonates
	PassedLoading     = "loading"      // the collection is not there yet
	PassedUnavailable = "unavailable"  // the collection cannot be had: forbidden, too large, gone
	PassedHistory     = "history"      // older than what memory remembers
	PassedNotFound    = "not_found"    // upstream may know of it
	PassedNotCurrent  = "not_current"  // memory could not be shown to be new enough in time
	PassedOutOfTouch  = "out_of_touch" // a replica may have acknowledged what we have not heard of
)

// How a read of the newest state knew that memory had it.
const (
	ProofNatural   = "natural"   // it had, or reached it at once
	ProofCoalesced = "coalesced" // it was fetched, once for all who waited
	ProofCatchUp   = "catch_up"  // by a watch that ends with a bookmark
	ProofFailed    = "failed"
)

// What the cache itself asks the API server for.
const (
	ForList      = "list"
	ForWatch     = "watch"
	ForProbe     = "probe"
	ForProgress  = "progress" // asked of a proxy
	ForCatchUp   = "catch_up"
	ForCoalesced = "coalesced"
)

// Why a stream ended.
const (
	EndedIdle       = "idle"
	EndedRedefined  = "redefined"   // its CustomResourceDefinition changed
	EndedRestored   = "restored"    // the API server's revision went backwards
	EndedOverBudget = "over_budget" // it did not fit into memory
	EndedRefused    = "refused"     // the API server does not let us have it any more
	EndedStopped    = "stopped"     // the proxy ends
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
	labelFormat      = "format"
	labelReason      = "reason"
	labelProof       = "proof"
	labelPurpose     = "purpose"
	labelFilter      = "filter"
	labelPolicy      = "policy"
	labelLimit       = "limit"
	labelOutcome     = "outcome"
	labelPhase       = "phase"
	labelMode        = "mode"
	labelDecision    = "decision"
	labelBy          = "by"
)
