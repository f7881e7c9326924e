package view

import (
	"net/http"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1beta1 "k8s.io/apimachinery/pkg/apis/meta/v1beta1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
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

// Narrow returns r with an Accept header that says what was agreed on, in JSON, and
// nothing else, if views are to be applied to its answer. It refuses a caller that
// takes nothing of the kind. Were the API server left to choose among what a caller
// names, it might choose another form than the one that is looked for.
func Narrow(r *http.Request) (*http.Request, error) {
	if !Applies(r) || len(r.Header["Accept"]) == 0 {
		return r, nil
	}
	agreed, ok := agree(r.Header.Get("Accept"))
	if !ok {
		return nil, negotiation.NewNotAcceptableError([]string{json})
	}
	return withAccept(r, agreed), nil
}

// agree returns what a caller who accepts this is answered in.
func agree(accept string) (string, bool) {
	chosen, ok := Agree(accept)
	if !ok {
		return "", false
	}
	agreed := json
	if chosen.Pretty {
		agreed += ";pretty=1"
	}
	to := chosen.Convert
	if to == nil {
		return agreed, true
	}
	agreed += ";as=" + to.Kind + ";g=" + to.Group + ";v=" + to.Version
	if _, plain := negotiation.NegotiateMediaTypeOptions(accept, offered, negotiation.DefaultEndpointRestrictions); plain && to.Kind == "Table" {
		agreed += "," + json // not everything comes in tables; what does not comes whole
	}
	return agreed, true
}

// Agree returns in which form the API server would answer in JSON who accepts this.
func Agree(accept string) (negotiation.MediaTypeOptions, bool) {
	return negotiation.NegotiateMediaTypeOptions(accept, offered, Endpoint{})
}

var offered = []runtime.SerializerInfo{{
	MediaType: json, MediaTypeType: "application", MediaTypeSubType: "json", StreamSerializer: &runtime.StreamSerializerInfo{},
}}

// An Endpoint allows what those of the API server do that serve objects
// (handlers.RequestScope).
type Endpoint struct{}

// AllowsMediaTypeTransform implements [negotiation.EndpointRestrictions].
func (Endpoint) AllowsMediaTypeTransform(_, sub string, to *schema.GroupVersionKind) bool {
	switch {
	case to == nil:
		return true
	case to.GroupVersion() != metav1.SchemeGroupVersion && to.GroupVersion() != metav1beta1.SchemeGroupVersion:
		return false
	case to.Kind == "Table":
		return sub == "json" || sub == "yaml"
	}
	return to.Kind == "PartialObjectMetadata" || to.Kind == "PartialObjectMetadataList"
}

// AllowsServerVersion implements [negotiation.EndpointRestrictions].
func (Endpoint) AllowsServerVersion(v string) bool { return v == metav1.SchemeGroupVersion.Version }

// AllowsStreamSchema implements [negotiation.EndpointRestrictions].
func (Endpoint) AllowsStreamSchema(s string) bool { return s == "watch" }

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
		if len(r.Header["Accept"]) == 1 {
			return r, nil
		}
	}
	return withAccept(r, narrowed), nil
}

func withAccept(r *http.Request, accept string) *http.Request {
	r = r.WithContext(r.Context())
	r.Header = r.Header.Clone()
	r.Header.Set("Accept", accept)
	return r
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
