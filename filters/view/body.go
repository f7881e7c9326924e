package view

import (
	"io"
	"net/http"
	"strconv"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/portico-proxy/portico/core/body"
	"github.com/portico-proxy/portico/core/config"
)

const mediaJSON = "application/json"

// isApply reports server-side apply, which makes what is not there.
func isApply(r *http.Request) bool {
	return r.Method == http.MethodPatch && strings.HasPrefix(body.MediaType(r), "application/apply-patch+")
}

// maxReview bounds what a caller asks about himself, in bytes.
const maxReview = 64 << 10

// readBody returns the body of a request, whole. There has to be room for it, and it
// has to come in time: nobody knows yet whether its sender may send it.
func (s *sight) readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	caller, err := config.CallerOf(r)
	if err != nil {
		return nil, err
	}
	if err := s.rooms.Enter(s.room, r, caller); err != nil {
		return nil, err
	}
	return s.readInTime(w, r)
}

// readReview returns the body of a review, which is so small that there always is
// room for it.
func (s *sight) readReview(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	small := r.WithContext(r.Context())
	small.Body = io.NopCloser(io.LimitReader(r.Body, maxReview+1))
	raw, err := s.readInTime(w, small)
	if err == nil && len(raw) > maxReview {
		err = apierrors.NewRequestEntityTooLargeError("limit is " + strconv.Itoa(maxReview))
	}
	return raw, err
}

func (s *sight) readInTime(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if r.Header.Get("Content-Encoding") != "" {
		return nil, apierrors.NewBadRequest("a view of this proxy looks at the body of this request, and cannot read it by its Content-Encoding: send it as it is")
	}
	unlimited := s.rooms.Limit(w)
	defer unlimited()
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
