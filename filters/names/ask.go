package names

import (
	"errors"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/portico-proxy/portico/core/body"
	"github.com/portico-proxy/portico/core/config"
	"github.com/portico-proxy/portico/core/names"
	"github.com/portico-proxy/portico/core/view"
)

var (
	errContradiction = errors.New("two views have different names for your namespaces: whoever runs this proxy has to choose")
	errToken         = errors.New("a token names its namespace as the cluster does, which is not told to you")
)

// ask returns r as it goes on: by the cluster's names, and for an answer that can be
// read.
func (f *Filter) ask(w http.ResponseWriter, r *http.Request, m *names.Mapping) (*http.Request, error) {
	info, _ := request.RequestInfoFrom(r.Context())
	if info.Subresource == "token" && info.Resource == "serviceaccounts" && info.APIGroup == "" {
		return nil, apierrors.NewForbidden(schema.GroupResource{Resource: info.Resource}, info.Name, errToken)
	}
	asked, err := m.Request(r)
	if err != nil {
		return nil, err
	}
	if asked, err = readable(asked, info); err != nil {
		return nil, err
	}
	if !body.Carries(r, info) && !body.Changes(r, info) {
		return asked, nil
	}
	return f.write(w, asked, info, m)
}

// readable returns r with a header that asks for what names can be exchanged in.
// What containers are asked is between them and the caller.
func readable(r *http.Request, info *request.RequestInfo) (*http.Request, error) {
	r.Header.Set("Accept-Encoding", "identity")
	narrow, err := view.OnlyJSON(r)
	if names.Talks(info) {
		if err != nil || info.Subresource == "proxy" || info.Verb == "proxy" {
			return r, nil
		}
		return narrow, nil
	}
	return narrow, err
}

// write returns r with the cluster's names in what it writes. What it takes to read
// that is given back before r goes on.
func (f *Filter) write(w http.ResponseWriter, r *http.Request, info *request.RequestInfo, m *names.Mapping) (*http.Request, error) {
	caller, err := config.CallerOf(r)
	if err != nil {
		return nil, err
	}
	room := &body.Room{}
	defer room.Keep(0)
	if err := f.rooms.Enter(room, r, caller); err != nil {
		return nil, err
	}
	unlimited := f.rooms.Limit(w)
	defer unlimited()
	resource := schema.GroupResource{Group: info.APIGroup, Resource: info.Resource}
	if body.Changes(r, info) {
		return change(r, resource, m)
	}
	r, object, err := body.Object(r)
	if err != nil {
		return nil, err
	}
	if object, err = m.Written(resource, object); err != nil {
		return nil, err
	}
	return body.WithObject(r, object), nil
}

// change returns r with the cluster's names in a change to an object.
func change(r *http.Request, resource schema.GroupResource, m *names.Mapping) (*http.Request, error) {
	if r.Header.Get("Content-Encoding") != "" {
		return nil, apierrors.NewBadRequest("the patch cannot be read by its Content-Encoding: send it as it is")
	}
	r, raw, err := body.Read(r)
	if err != nil {
		return nil, err
	}
	exchange := m.Written
	switch types.PatchType(body.MediaType(r)) {
	case types.JSONPatchType:
		exchange = m.Operations
	case types.MergePatchType, types.StrategicMergePatchType:
	default:
		return nil, apierrors.NewGenericServerResponse(http.StatusUnsupportedMediaType, "patch", resource, "", "the Content-Type of the patch has to be application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json or application/apply-patch+yaml", 0, true)
	}
	// Of a field that is named twice, the API server may take the other one.
	if !body.Unambiguous(raw) {
		return nil, apierrors.NewBadRequest("the patch cannot be read, or names a field twice")
	}
	if raw, err = exchange(resource, raw); err != nil {
		return nil, err
	}
	return body.With(r, raw), nil
}
