package noderestriction

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/portico-proxy/portico/core/body"
)

// current reads the object that the request is about as its caller may read it:
// who may not learns nothing of it by what is refused.
func (e *exchange) current() ([]byte, error) {
	w := &recorded{header: http.Header{}}
	if err := e.next.ServeHTTP(w, e.reading()); err != nil {
		return nil, err
	}
	if w.code == http.StatusOK && !w.tooLong {
		return w.body.Bytes(), nil
	}
	status := metav1.Status{}
	if json.Unmarshal(w.body.Bytes(), &status) != nil || status.Status != metav1.StatusFailure || int(status.Code) != w.code {
		return nil, unavailable("what is to be changed cannot be read")
	}
	return nil, &apierrors.StatusError{ErrStatus: status}
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

// recorded is an answer that nobody is sent.
type recorded struct {
	header  http.Header
	code    int
	body    bytes.Buffer
	tooLong bool
}

func (w *recorded) Header() http.Header { return w.header }

func (w *recorded) WriteHeader(code int) {
	if code >= http.StatusOK && w.code == 0 {
		w.code = code
	}
}

func (w *recorded) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	if w.body.Len()+len(p) > body.Max {
		w.tooLong = true
		return len(p), nil
	}
	return w.body.Write(p)
}

// Flush has nothing to do, and must be there for what streams.
func (w *recorded) Flush() {}
