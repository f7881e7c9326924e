package view

import (
	"net/http"
	"slices"
	"strings"

	"k8s.io/apiserver/pkg/endpoints/handlers/negotiation"
	"k8s.io/apiserver/pkg/endpoints/request"
)

// conversations are subresources whose answers are no objects.
var conversations = []string{"log", "exec", "attach", "portforward", "proxy"}

// Applies reports whether r has views and its answer consists of objects that they
// are to be applied to. Whether a conversation may be had is decided by filters.
func Applies(r *http.Request) bool {
	if len(From(r.Context())) == 0 {
		return false
	}
	info, ok := request.RequestInfoFrom(r.Context())
	return ok && info.IsResourceRequest && !slices.Contains(conversations, info.Subresource)
}

// Narrow is [OnlyJSON] for requests whose answers views are to be applied to.
func Narrow(r *http.Request) (*http.Request, error) {
	if !Applies(r) {
		return r, nil
	}
	return OnlyJSON(r)
}

// OnlyJSON returns r with nothing in its Accept header but JSON, which is what is
// looked at. It refuses a caller that takes nothing of the kind: it would have to be
// sent what nobody has looked at.
func OnlyJSON(r *http.Request) (*http.Request, error) {
	accept := r.Header.Get("Accept")
	if accept == "" {
		return r, nil
	}
	narrowed := narrow(accept)
	switch narrowed {
	case "":
		return nil, negotiation.NewNotAcceptableError([]string{json})
	case accept:
		return r, nil
	}
	r = r.WithContext(r.Context())
	r.Header = r.Header.Clone()
	r.Header.Set("Accept", narrowed)
	return r, nil
}

const json = "application/json"

// narrow keeps the clauses of accept that JSON satisfies.
func narrow(accept string) string {
	var kept []string
	for clause := range strings.SplitSeq(accept, ",") {
		mediaType, parameters, more := strings.Cut(clause, ";")
		switch strings.ToLower(strings.TrimSpace(mediaType)) {
		case json:
			kept = append(kept, clause)
		case "*/*", "application/*":
			if more {
				parameters = ";" + parameters
			}
			kept = append(kept, json+parameters)
		}
	}
	return strings.Join(kept, ",")
}
