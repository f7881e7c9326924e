package telemetry

import (
	"net/http"
	"strconv"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/endpoints/metrics"
	"k8s.io/apiserver/pkg/endpoints/request"
)

// verbOther is what kube-apiserver reports methods as that it does not know.
const verbOther = metrics.OtherRequestMethod

// LongRunning reports requests that last as long as their caller likes. They
// are those kube-apiserver exempts from its request timeout: verbs watch and
// proxy, subresources attach, exec, proxy, log and portforward
// (cmd/kube-apiserver/app/server.go, BuildGenericConfig).
func LongRunning(info *request.RequestInfo) bool {
	return info.Verb == "watch" || info.Verb == "proxy" || info.IsResourceRequest && connects(info.Subresource)
}

func connects(subresource string) bool {
	switch subresource {
	case "attach", "exec", "proxy", "log", "portforward":
		return true
	}
	return false
}

// verbOf is the verb label: kube-apiserver's CleanVerb, but from what was
// parsed already instead of from the query once more.
func verbOf(r *http.Request, info *request.RequestInfo, scope string) string {
	if info.IsResourceRequest && connects(info.Subresource) {
		return metrics.MethodConnect
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		if info.Verb == "watch" {
			return metrics.MethodWatch
		}
		return metrics.CanonicalVerb(r.Method, scope)
	case http.MethodPatch:
		switch types.PatchType(r.Header.Get("Content-Type")) {
		case types.ApplyYAMLPatchType, types.ApplyCBORPatchType:
			return metrics.MethodApply
		}
		return metrics.MethodPatch
	case http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodConnect:
		return r.Method
	}
	return verbOther
}

func cleanServedBy(s string) string {
	switch s {
	case ServedByCache, ServedByCoalesced, ServedByUpstream, ServedByStale:
		return s
	}
	return ""
}

// CodeClientGone is the code of a request whose caller left before any answer:
// it was neither served nor refused. Nobody ever receives it.
const CodeClientGone = 499

// cleanCode keeps registered codes. A pod behind services/proxy can send any.
func cleanCode(code int) string {
	if code != CodeClientGone && http.StatusText(code) == "" {
		return "other"
	}
	return strconv.Itoa(code)
}
