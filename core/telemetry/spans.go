package telemetry

import (
	"context"
	"net/http"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
	"k8s.io/apiserver/pkg/endpoints/request"
)

// StartServer begins the span of a request that has arrived. Callers are
// strangers: the context they send is a link, never the parent, so that nobody
// decides from outside what is recorded here; and their baggage ends here. Does
// nothing when tracing is off: the caller's headers then pass untouched.
func (t *Telemetry) StartServer(r *http.Request, info *request.RequestInfo) (context.Context, trace.Span) {
	if !t.Tracing() {
		return r.Context(), noSpan
	}
	r.Header.Del("Baggage")
	// Samplers of ours decide by the trace id. What a span costs is paid only
	// if it is kept.
	ctx, span := t.Tracer.Start(r.Context(), "request", trace.WithNewRoot(), trace.WithSpanKind(trace.SpanKindServer))
	if !span.IsRecording() {
		return ctx, span
	}
	span.SetName(spanName(r.Method, info))
	span.SetAttributes(requestAttributes(r, info)...)
	outside := trace.ContextWithSpan(r.Context(), noSpan)
	caller := trace.SpanContextFromContext(propagation.TraceContext{}.Extract(outside, propagation.HeaderCarrier(r.Header)))
	if caller.IsValid() {
		span.AddLink(trace.Link{SpanContext: caller})
	}
	return ctx, span
}

// EndServer ends a span that StartServer began. reason is the API reason of a
// refusal or empty.
func EndServer(span trace.Span, a Answer, reason string) {
	defer span.End()
	if !span.IsRecording() {
		return
	}
	span.SetAttributes(KeyStatusCode.Int(a.Code))
	if by := cleanServedBy(a.ServedBy); by != "" {
		span.SetAttributes(KeyServedBy.String(by))
	}
	if reason == "" {
		reason = errorOf(a)
	}
	if reason != "" {
		span.SetAttributes(KeyErrorType.String(reason))
	}
	// The semantic conventions: what the caller did wrong is no error of the server.
	if a.Code >= 500 || a.Aborted && !a.CallerGone {
		span.SetStatus(codes.Error, reason)
	}
}

func errorOf(a Answer) string {
	switch {
	case a.CallerGone:
		return errorCanceled
	case a.Aborted:
		return errorAborted
	case a.Code >= 500:
		return cleanCode(a.Code)
	}
	return ""
}

var noSpan trace.Span = noop.Span{}

func requestAttributes(r *http.Request, info *request.RequestInfo) []attribute.KeyValue {
	attrs := make([]attribute.KeyValue, 0, 14)
	attrs = append(attrs, KeyMethod.String(cleanMethod(r.Method)), KeyPath.String(Path(r, info)),
		KeyAuditID.String(AuditID(r)), KeyAPIVerb.String(clean(info.Verb)))
	if cleanMethod(r.Method) != r.Method {
		attrs = append(attrs, KeyMethodOriginal.String(clean(r.Method)))
	}
	if ua := r.UserAgent(); ua != "" {
		attrs = append(attrs, KeyUserAgent.String(clean(ua)))
	}
	if !info.IsResourceRequest {
		return attrs
	}
	return append(attrs, KeyRoute.String(clean(route(info))),
		KeyAPIGroup.String(clean(info.APIGroup)), KeyAPIVersion.String(clean(info.APIVersion)),
		KeyAPIResource.String(clean(info.Resource)), KeyAPISubresource.String(clean(info.Subresource)),
		KeyAPINamespace.String(clean(info.Namespace)))
}

// spanName is what kube-apiserver calls its own span of the same request.
func spanName(method string, info *request.RequestInfo) string {
	if method = cleanMethod(method); method == methodOther {
		method = "HTTP" // the semantic conventions' word
	}
	if !info.IsResourceRequest {
		return method
	}
	return method + " " + clean(route(info))
}

// route is the request's path without what tells one object from another.
func route(info *request.RequestInfo) string {
	return pathOf(info, "{:namespace}", "{:name}")
}

func pathOf(info *request.RequestInfo, namespace, name string) string {
	var b strings.Builder
	add := func(parts ...string) {
		for _, p := range parts {
			b.WriteByte('/')
			b.WriteString(p)
		}
	}
	add(info.APIPrefix)
	if info.APIGroup != "" {
		add(info.APIGroup)
	}
	add(info.APIVersion)
	if info.Namespace != "" {
		add("namespaces", namespace)
	}
	add(info.Resource)
	if info.Name != "" {
		add(name)
	}
	if info.Subresource != "" {
		add(info.Subresource)
	}
	return b.String()
}

// Path is the request's path for spans and logs. Of requests to a pod, service
// or node it says no more than which: the rest is another program's, and may
// hold a secret. Queries are left out for the same reason.
func Path(r *http.Request, info *request.RequestInfo) string {
	if info.Subresource == "proxy" || info.Verb == "proxy" {
		return clean(pathOf(info, info.Namespace, info.Name))
	}
	return clip(r.URL.EscapedPath())
}

// AuditID is the request's, cut as kube-apiserver cuts what it writes of it
// (k8s.io/apiserver/pkg/audit, GetAuditIDTruncated).
func AuditID(r *http.Request) string {
	id := r.Header.Get(HeaderAuditID)
	return strings.ToValidUTF8(id[:min(len(id), 64)], "\uFFFD")
}

const methodOther = "_OTHER"

func cleanMethod(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete,
		http.MethodConnect, http.MethodOptions, http.MethodTrace:
		return method
	}
	return methodOther
}

// clean makes a caller's text fit for export: one invalid byte would lose the
// whole batch of spans it is in.
func clean(s string) string { return strings.ToValidUTF8(clip(s), "\uFFFD") }

func clip(s string) string { return s[:min(len(s), attributeLimit)] }
