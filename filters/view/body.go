package view

import (
	"net/http"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/portico-proxy/portico/core/body"
)

const mediaJSON = "application/json"

// isApply reports server-side apply, which makes what is not there.
func isApply(r *http.Request) bool {
	return r.Method == http.MethodPatch && strings.HasPrefix(body.MediaType(r), "application/apply-patch+")
}

// readBody returns the body of a request, whole.
func readBody(r *http.Request) ([]byte, error) {
	if r.Header.Get("Content-Encoding") != "" {
		return nil, apierrors.NewBadRequest("a view of this proxy looks at the body of this request, and cannot read it by its Content-Encoding: send it as it is")
	}
	_, raw, err := body.Read(r)
	return raw, err
}

// objectIn returns the object that a body holds.
func objectIn(r *http.Request, raw []byte) (map[string]any, error) {
	_, object, err := body.Object(body.With(r, raw))
	if err != nil {
		return nil, err
	}
	out, err := decode(object)
	if err != nil {
		return nil, apierrors.NewBadRequest("the object in the request cannot be read")
	}
	return out, nil
}

// withJSON returns r with another body, which is JSON.
func withJSON(r *http.Request, raw []byte) *http.Request {
	r = body.With(r, raw)
	r.Header.Set("Content-Type", mediaJSON)
	return r
}
