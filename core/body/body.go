// Package body reads the objects that requests carry before anybody has
// authorized their senders, and what filters ask the API server about them, and
// bounds what that takes.
package body

import (
	"bytes"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/endpoints/request"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"github.com/portico-proxy/portico/core/telemetry"
)

// Max bounds an object in bytes, as the API server does with requests.
const Max = 3 << 20

// Carries reports whether a request's body is an object. Patches other
// than server-side apply are changes to one.
func Carries(r *http.Request, info *request.RequestInfo) bool {
	if !info.IsResourceRequest || telemetry.LongRunning(info) { // such as exec
		return false
	}
	switch info.Verb {
	case "create", "update":
		return true
	case "patch": // in whatever format: what cannot be read is refused
		return applies(r)
	}
	return false
}

func applies(r *http.Request) bool {
	return strings.HasPrefix(MediaType(r), "application/apply-patch+")
}

// Changes reports whether a request's body is a change to an object.
func Changes(r *http.Request, info *request.RequestInfo) bool {
	return info.IsResourceRequest && !telemetry.LongRunning(info) && info.Verb == "patch" && !applies(r)
}

// MediaType is what the body of r says it is; empty if it says nothing sensible. The
// API server looks at nothing but what comes before parameters of a patch's
// (k8s.io/apiserver/pkg/endpoints/handlers/patch.go), so neither do we if they are
// none.
func MediaType(r *http.Request) string {
	text := r.Header.Get("Content-Type")
	media, _, err := mime.ParseMediaType(text)
	if err != nil {
		media, _, _ = strings.Cut(text, ";")
		media, _, _ = mime.ParseMediaType(media)
	}
	return media
}

// Object returns r as it came, with its body yet to be read, and the object
// in that body as JSON. What could be read in two ways is refused: who judges must
// see what the API server will.
func Object(r *http.Request) (same *http.Request, object []byte, err error) {
	if r.Header.Get("Content-Encoding") != "" {
		return r, nil, unreadable("Content-Encoding")
	}
	r, raw, err := Read(r)
	if err != nil {
		return r, nil, err
	}
	switch MediaType(r) {
	case "application/json", "":
		object, err = raw, nil
	case "application/yaml", "application/apply-patch+yaml":
		object, err = yaml.YAMLToJSONStrict(raw)
	case "application/vnd.kubernetes.protobuf":
		if object, err = fromProtobuf(raw); err != nil {
			return r, nil, unreadable("Content-Type")
		}
		return r, object, nil
	default:
		return r, nil, unreadable("Content-Type")
	}
	if err != nil || !bytes.HasPrefix(bytes.TrimSpace(object), []byte("{")) || !Unambiguous(object) {
		return r, nil, apierrors.NewBadRequest("the object in the request cannot be read, or names a field twice")
	}
	return r, object, nil
}

// Unambiguous reports JSON whose objects name no member twice.
func Unambiguous(object []byte) bool {
	var fields any
	strict, err := kjson.UnmarshalStrict(object, &fields)
	return err == nil && len(strict) == 0
}

// Read returns r as it came, with its body yet to be read, and that body.
// Even a request whose body is too long or broke off can so go on.
func Read(r *http.Request) (same *http.Request, raw []byte, err error) {
	raw, err = io.ReadAll(io.LimitReader(r.Body, Max+1))
	if err != nil {
		return withRest(r, raw, broken{err}), nil, apierrors.NewBadRequest("the body of the request broke off")
	}
	if len(raw) > Max {
		return withRest(r, raw, r.Body), nil, apierrors.NewRequestEntityTooLargeError("limit is " + strconv.Itoa(Max))
	}
	return With(r, raw), raw, nil
}

// broken is what is left of a body that broke off.
type broken struct{ err error }

func (b broken) Read([]byte) (int, error) { return 0, b.err }

// withRest returns r with its body, of which the beginning has been read.
func withRest(r *http.Request, beginning []byte, rest io.Reader) *http.Request {
	body := r.Body
	r = r.WithContext(r.Context())
	r.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(beginning), rest), body}
	return r
}

func unreadable(header string) error {
	err := apierrors.NewBadRequest("a policy looks at the object in this request, and cannot read it by its " + header + ": send application/json")
	err.ErrStatus.Code = http.StatusUnsupportedMediaType
	err.ErrStatus.Reason = "UnsupportedMediaType"
	return err
}

// With returns r with another body, already read. The caller's header is
// left alone.
func With(r *http.Request, body []byte) *http.Request {
	r = r.WithContext(r.Context())
	r.Body = io.NopCloser(bytes.NewReader(body))
	r.ContentLength = int64(len(body))
	r.TransferEncoding = nil
	r.Header = r.Header.Clone()
	r.Header.Set("Content-Length", strconv.Itoa(len(body)))
	return r
}

// WithObject returns r with an object that a guest has changed, which is JSON.
func WithObject(r *http.Request, object []byte) *http.Request {
	r = With(r, object)
	if MediaType(r) != "application/apply-patch+yaml" { // whose YAML JSON is
		r.Header.Set("Content-Type", "application/json")
	}
	return r
}
