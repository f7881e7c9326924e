// Package lens applies a request's views to the API server's answer while it
// streams: never more than one object is held, but for what a watch has shown.
package lens

import (
	"context"
	"errors"
	"fmt"
	"mime"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/portico-proxy/portico/core/cache/wire"
	"github.com/portico-proxy/portico/core/view"
)

// errUnreadable says that an answer is nothing that views can be applied to.
var errUnreadable = errors.New("the answer is not in a form that views read")

// A Lens is the views of one request. It serves that request alone.
type Lens struct {
	views    view.Views
	info     *request.RequestInfo
	resource schema.GroupVersionResource
	form     form
	ctx      context.Context
	asked    *http.Request // what is sent
	// shown is what a watch has shown. The list of what it begins with is kept there
	// rather than sent.
	shown *memory
	keep  bool

	columns []byte // of a table, as they came first
	told    bool   // a watch has told them
	version string // of a list
	left    int    // its items that exist
}

type lensKey struct{}

// On returns the request to send in r's place, with the lens for its answer in its
// context: one that asks for whole objects in JSON. Without views it is r itself.
func On(r *http.Request) (*http.Request, error) {
	if !view.Applies(r) {
		return r, nil
	}
	if len(r.Header["Upgrade"]) > 0 {
		// A watch on a WebSocket is an answer that nobody here reads.
		return nil, apierrors.NewBadRequest("what exists for the caller is told over HTTP: send the request without Upgrade")
	}
	r, err := view.Narrow(r)
	if err != nil {
		return nil, err
	}
	info, _ := request.RequestInfoFrom(r.Context())
	l := &Lens{views: view.From(r.Context()), info: info, form: formOf(r, info.Verb), shown: newMemory(allShown)}
	l.resource = schema.GroupVersionResource{Group: info.APIGroup, Version: info.APIVersion, Resource: info.Resource}
	l.ctx = context.WithValue(r.Context(), lensKey{}, l)
	if info.Verb == "watch" {
		context.AfterFunc(l.ctx, l.shown.giveUp)
	}
	l.asked = l.form.ask(r.WithContext(l.ctx), info.Verb)
	return l.asked, nil
}

// From returns the lens for the answer of a request, nil if there is none.
func From(ctx context.Context) *Lens {
	l, _ := ctx.Value(lensKey{}).(*Lens)
	return l
}

// Apply makes of res what its caller is to see. An error that only comes to light
// once something has been sent cuts the connection.
func (l *Lens) Apply(res *http.Response) error {
	if res.StatusCode < 200 || res.StatusCode >= 300 || res.Request.Method == http.MethodHead {
		return nil
	}
	if err := checkReadable(res); err != nil {
		return err
	}
	res.Header.Del("Content-Length")
	res.ContentLength = -1
	var err error
	switch l.info.Verb {
	case "watch":
		l.applyToWatch(res)
	case "list", "deletecollection":
		err = l.applyToList(res)
	default:
		err = l.applyToObject(res)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", view.ErrUnseen, err)
	}
	return nil
}

// checkReadable refuses what is not JSON: nobody would have looked at it.
func checkReadable(res *http.Response) error {
	mediaType, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
	if mediaType != "application/json" || res.Header.Get("Content-Encoding") != "" {
		return fmt.Errorf("%w: %w: %q", view.ErrUnseen, errUnreadable, mediaType)
	}
	return nil
}

// see is what is left of the object in raw, nil for nothing.
func (l *Lens) see(raw []byte) (o *wire.Object, seen []byte, err error) {
	if o, err = wire.Look(raw); err != nil {
		return nil, nil, err
	}
	if !l.judges(o) {
		return o, raw, nil
	}
	seen, err = l.views.See(l.ctx, view.Object{
		Resource: l.resource, Namespace: o.Namespace(), Name: o.Name(), UID: o.UID, ResourceVersion: o.ResourceVersion, Labels: o.Labels(), JSON: raw,
	})
	return o, seen, err
}

// others are subresources that are objects of another kind: whether they exist for
// the caller is decided where it is decided of the object that they are part of.
var others = map[string]bool{"scale": true, "token": true, "eviction": true, "binding": true}

// judges reports whether o is what views know. What has neither name nor UID is
// not stored: a review, say.
func (l *Lens) judges(o *wire.Object) bool {
	return !others[l.info.Subresource] && (o.Name() != "" || o.UID != "")
}
