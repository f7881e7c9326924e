package view

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/portico-proxy/portico/core/document"
	"github.com/portico-proxy/portico/core/pipeline"
	"github.com/portico-proxy/portico/core/view"
)

// What is not there is missing from discovery as well, in both of its forms alike: a
// resource that is hidden, and a group all of whose resources are, by *.

// hides are the lenses of a caller for whom whole resources do not exist.
type hides []*lens

// isDiscovery reports whether r asks which resources there are.
func isDiscovery(r *http.Request) bool {
	info, ok := request.RequestInfoFrom(r.Context())
	if !ok || info.IsResourceRequest || r.Method != http.MethodGet {
		return false
	}
	steps := stepsOf(r)
	switch steps[0] {
	case "api", "apis":
		return len(steps) <= 3
	case "openapi":
		return len(steps) > 1 && steps[1] == "v3"
	}
	return false
}

func stepsOf(r *http.Request) []string { return strings.Split(strings.Trim(r.URL.Path, "/"), "/") }

// hiding reports whether there are resources that do not exist for somebody.
func (f *Filter) hiding() bool {
	return slices.ContainsFunc(*f.library.current.Load(), func(w *world) bool { return w.lens.Load().hidesResources() })
}

func (l *lens) hidesResources() bool { return !l.audits && len(l.hidden) > 0 }

// resource reports whether one does not exist.
func (h hides) resource(r schema.GroupResource) bool {
	return slices.ContainsFunc(h, func(l *lens) bool { return isAbout(l.hidden, r) })
}

// group reports whether nothing of a group exists, so that there is no such group. The
// core group always is.
func (h hides) group(name string) bool {
	return name != "" && h.resource(schema.GroupResource{Group: name, Resource: "*"})
}

// discover answers r with the resources that exist for its caller. Who has seen
// another answer has another ETag.
func (h hides) discover(w http.ResponseWriter, r *http.Request, next pipeline.Handler) error {
	steps := stepsOf(r)
	isPage := steps[0] == "openapi" && len(steps) > 2
	if isPage {
		steps = steps[2:]
	}
	if len(steps) > 1 && steps[0] == "apis" && h.group(steps[1]) {
		return apierrors.NewGenericServerResponse(http.StatusNotFound, "get", schema.GroupResource{}, "", "", 0, false)
	}
	if isPage {
		return next.ServeHTTP(w, r) // as it is: of a group everything is described
	}
	r, err := view.OnlyJSON(r)
	if err != nil {
		return err
	}
	asked := r.Header.Values("If-None-Match")
	r = r.WithContext(r.Context())
	r.Header = r.Header.Clone()
	for _, name := range []string{"If-None-Match", "If-Match", "If-Modified-Since", "If-Unmodified-Since", "Range", "If-Range"} {
		r.Header.Del(name) // what is whole is looked at
	}
	r.Header.Set("Accept-Encoding", "identity")
	answer := newRecorded()
	if err := next.ServeHTTP(answer, r); err != nil {
		return err
	}
	if answer.Code != http.StatusOK || answer.TooLong {
		return answer.send(w)
	}
	return h.send(w, answer, asked)
}

// send sends an answer without what does not exist.
func (h hides) send(w http.ResponseWriter, answer *recorded, asked []string) error {
	// The index of OpenAPI comes as plain text.
	media, _, _ := mime.ParseMediaType(answer.Header().Get("Content-Type"))
	if media != mediaJSON && media != "text/plain" || answer.Header().Get("Content-Encoding") != "" || !json.Valid(answer.Body.Bytes()) {
		return apierrors.NewInternalError(errAnswer)
	}
	text, err := h.document(answer.Body.Bytes())
	if err != nil {
		return fmt.Errorf("leave out resources that do not exist: %w", err)
	}
	answer.Header().Del("Accept-Ranges")
	maps.Copy(w.Header(), answer.Header())
	// What one caller is told is not for others.
	w.Header().Set("Cache-Control", "private")
	w.Header().Add("Vary", "Authorization")
	if w.Header().Get("ETag") != "" {
		sum := sha256.Sum256(text)
		tag := strconv.Quote(strings.ToUpper(hex.EncodeToString(sum[:])))
		w.Header().Set("ETag", tag)
		if strings.Contains(strings.Join(asked, ","), tag) {
			w.Header().Del("Content-Length")
			w.Header().Del("Content-Type")
			w.WriteHeader(http.StatusNotModified)
			return nil
		}
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(http.StatusOK)
	_, err = w.Write(text)
	return err
}

// document leaves out of a document of discovery what does not exist. One of another
// kind has nothing to be left out.
func (h hides) document(raw []byte) ([]byte, error) {
	switch document.Text(raw, "/kind") {
	case "APIGroupDiscoveryList":
		return each(raw, "items", func(group []byte) ([]byte, error) { return h.discovered(group) })
	case "APIGroupList":
		return each(raw, "groups", func(group []byte) ([]byte, error) { return orNothing(group, h.group(document.Text(group, "/name"))) })
	case "APIResourceList":
		version, err := schema.ParseGroupVersion(document.Text(raw, "/groupVersion"))
		if err != nil {
			return nil, err
		}
		return each(raw, "resources", func(resource []byte) ([]byte, error) {
			name, _, _ := strings.Cut(document.Text(resource, "/name"), "/")
			return orNothing(resource, h.resource(schema.GroupResource{Group: version.Group, Resource: name}))
		})
	case "": // the index of OpenAPI v3
		return member(raw, "paths", func(paths []byte) ([]byte, error) {
			return document.Edit(paths, func(name, value []byte) ([]byte, error) {
				group, isGroup := strings.CutPrefix(string(name), "apis/")
				group, _, _ = strings.Cut(group, "/")
				return orNothing(value, isGroup && h.group(group))
			})
		})
	}
	return raw, nil
}

// discovered is a group of the aggregated form, with all of its versions.
func (h hides) discovered(group []byte) ([]byte, error) {
	name := document.Text(group, "/metadata/name")
	if h.group(name) {
		return nil, nil
	}
	return each(group, "versions", func(version []byte) ([]byte, error) {
		return each(version, "resources", func(resource []byte) ([]byte, error) {
			return orNothing(resource, h.resource(schema.GroupResource{Group: name, Resource: document.Text(resource, "/resource")}))
		})
	})
}

func orNothing(value []byte, nothing bool) ([]byte, error) {
	if nothing {
		return nil, nil
	}
	return value, nil
}

// each edits the elements of one member of an object.
func each(object []byte, name string, edit func(element []byte) ([]byte, error)) ([]byte, error) {
	return member(object, name, func(value []byte) ([]byte, error) {
		return document.Edit(value, func(_, element []byte) ([]byte, error) { return edit(element) })
	})
}

// member edits one member of an object.
func member(object []byte, name string, edit func(value []byte) ([]byte, error)) ([]byte, error) {
	return document.Edit(object, func(other, value []byte) ([]byte, error) {
		if string(other) != name {
			return value, nil
		}
		return edit(value)
	})
}
