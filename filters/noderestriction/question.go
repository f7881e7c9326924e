package noderestriction

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/endpoints/request"
)

// A question is a request of a node's caller.
type question struct {
	origin
	node *node
	info *request.RequestInfo
	// limit is what a list asks for at most, as the request says it.
	limit int64
	// fields and labels are the selectors of the query, which RequestInfo does not say
	// of paths with /watch/, nor of deletions.
	fields, labels []string
	acts           bool // its caller would act as somebody else
}

// isRead reports requests that change nothing.
func isRead(info *request.RequestInfo) bool {
	return info.Verb == "get" || info.Verb == "list" || info.Verb == "watch"
}

// isNamed reports that a request can be about one object only.
func (q *question) isNamed() bool {
	return q.info.Name != "" && (q.info.Verb == "get" || q.info.Namespace != "" || clusterScoped[q.info.Resource])
}

// clusterScoped are the resources outside namespaces of which owns knows names.
var clusterScoped = map[string]bool{"nodes": true, "namespaces": true, "csinodes": true}

// selected is what a field selector asks a field to be; empty if it does not.
func (q *question) selected(field string) string {
	for _, text := range q.fields {
		selector, err := fields.ParseSelector(text)
		if err != nil {
			continue // the API server will say so
		}
		if value, asked := selector.RequiresExactMatch(field); asked {
			return value
		}
	}
	return ""
}

// isTooMuch reports a list that asks for more than most.
func (q *question) isTooMuch(most int64) bool {
	return most > 0 && q.info.Verb == "list" && !q.isNamed() && (q.limit <= 0 || q.limit > most)
}

// forbidden is a refusal in the words of the API server's authorizers.
func (q *question) forbidden(r *rule, why string) error {
	resource := q.info.Resource
	if q.info.Subresource != "" {
		resource += "/" + q.info.Subresource
	}
	what := fmt.Sprintf("User %q cannot %s resource %q in API group %q", q.caller.GetName(), q.info.Verb, resource, q.info.APIGroup)
	switch {
	case !q.info.IsResourceRequest:
		what = fmt.Sprintf("User %q cannot %s path %q", q.caller.GetName(), q.info.Verb, q.info.Path)
	case q.info.Namespace != "":
		what += fmt.Sprintf(" in the namespace %q", q.info.Namespace)
	default:
		what += " at the cluster scope"
	}
	return apierrors.NewForbidden(schema.GroupResource{Group: q.info.APIGroup, Resource: q.info.Resource}, q.info.Name, errors.New(what+": "+why+" (NodePolicy "+r.name+")"))
}

// narrowed returns r with a term in its field selector, besides those that it has.
func narrowed(r *http.Request, term string) *http.Request {
	query := r.URL.Query()
	selector := query.Get("fieldSelector")
	switch {
	case selector == "":
		selector = term
	case !asksFor(selector, term):
		selector += "," + term
	}
	query.Set("fieldSelector", selector)
	info, _ := request.RequestInfoFrom(r.Context())
	more := *info
	more.FieldSelector = selector
	r = r.WithContext(request.WithRequestInfo(r.Context(), &more))
	url := *r.URL
	url.RawQuery = query.Encode()
	r.URL = &url
	return r
}

// asksFor reports whether term is one of the selector's.
func asksFor(selector, term string) bool {
	has, err := fields.ParseSelector(selector)
	if err != nil {
		return false
	}
	one, err := fields.ParseSelector(term)
	return err == nil && slices.Contains(has.Requirements(), one.Requirements()[0])
}

// pointerTo is where a field selector's field is.
func pointerTo(field string) string { return "/" + strings.ReplaceAll(field, ".", "/") }
