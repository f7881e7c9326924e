package noderestriction

import (
	"net/http"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/portico-proxy/portico/core/body"
)

// current reads the object that the request is about as its caller may read it:
// who may not learns nothing of it by what is refused.
func (e *exchange) current() ([]byte, error) {
	w := &body.Answer{}
	if err := e.next.ServeHTTP(w, e.reading()); err != nil {
		return nil, err
	}
	if w.Code == http.StatusOK && !w.TooLong {
		return w.Body.Bytes(), nil
	}
	if status := w.Status(); status != nil {
		return nil, &apierrors.StatusError{ErrStatus: *status}
	}
	return nil, unavailable("what is to be changed cannot be read")
}

// reading is a request for the object under the caller's credential.
func (e *exchange) reading() *http.Request {
	path := strings.TrimSuffix(e.info.Path, "/"+e.info.Subresource)
	info := *e.info
	info.Verb, info.Path, info.Subresource, info.Parts = "get", path, "", []string{info.Resource, info.Name}
	r := e.r.Clone(request.WithRequestInfo(e.r.Context(), &info))
	r.Method, r.Body, r.ContentLength, r.TransferEncoding = http.MethodGet, http.NoBody, 0, nil
	r.URL.Path, r.URL.RawPath, r.URL.RawQuery = path, "", ""
	r.RequestURI = r.URL.RequestURI()
	r.Header = http.Header{"Accept": {"application/json"}}
	for _, name := range []string{"Authorization", "User-Agent", "Audit-Id"} {
		if values := e.r.Header[name]; len(values) > 0 {
			r.Header[name] = values
		}
	}
	return r
}
