package pipeline

import (
	"net/http"
	"net/url"

	metainternalversion "k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metainternalversionscheme "k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/endpoints/request"
)

// requestInfo reads paths as kube-apiserver does (genericapiserver.NewRequestInfoResolver).
var requestInfo = request.RequestInfoFactory{APIPrefixes: sets.NewString("api", "apis"), GrouplessAPIPrefixes: sets.NewString("api")}

// WithRequestInfo has r carry which API request it is, if it does not yet. It
// never refuses: what we cannot read, upstream judges.
func WithRequestInfo(r *http.Request) *http.Request {
	if _, ok := request.RequestInfoFrom(r.Context()); ok {
		return r
	}
	info, err := resolve(r)
	if err != nil {
		info = &request.RequestInfo{Path: r.URL.Path, Verb: r.Method}
	}
	return r.WithContext(request.WithRequestInfo(r.Context(), info))
}

// longSelector is how long a selector may be that is read, in bytes. That takes
// milliseconds for a thousand values, and nobody knows yet whether it is the
// sender's turn.
const longSelector = 2 << 10

// resolve keeps queries that do not parse from the resolver, which writes them
// to the log whole: a caller could fill the log, or put a secret there. The
// result is the one it would have come to.
func resolve(r *http.Request) (*request.RequestInfo, error) {
	query := r.URL.Query()
	labels, read := query.Get("labelSelector"), url.Values{"watch": query["watch"]}
	// Most queries are seen at a glance to parse: any resourceVersion does. What a
	// long selector of labels says matters only to what one of fields does.
	if long := len(labels) > longSelector && query.Get("fieldSelector") == ""; long {
		read.Set("labelSelector", "long")
	} else if len(query) == 0 || len(query) == 1 && query.Has("resourceVersion") || metainternalversionscheme.ParameterCodec.DecodeParameters(query, metav1.SchemeGroupVersion, &metainternalversion.ListOptions{}) == nil {
		return requestInfo.NewRequestInfo(r)
	}
	info, err := requestInfo.NewRequestInfo(&http.Request{Method: r.Method, URL: &url.URL{Path: r.URL.Path, RawQuery: read.Encode()}})
	if err == nil && (info.LabelSelector != "" || len(read) == 1 && (info.Verb == "list" || info.Verb == "watch")) {
		info.FieldSelector, info.LabelSelector = query.Get("fieldSelector"), labels
	}
	return info, err
}
