package view

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/portico-proxy/portico/core/body"
	"github.com/portico-proxy/portico/core/pipeline"
	"github.com/portico-proxy/portico/core/view"
)

// maxAnswer bounds one object of the API server's, in bytes.
const maxAnswer = 16 << 20

var errAnswer = errors.New("the API server's answer cannot be read")

// stored returns the object that r is about, whole, as its caller may read it, whether
// it exists for him or not.
func (s *sight) stored(r *http.Request) (view.Object, error) {
	raw, err := fetch(s.next, s.ask(r, s.asked.path(), "", "get"))
	if err != nil {
		return view.Object{}, err
	}
	return objectOf(raw, &s.asked)
}

// current is stored, of which what does not exist for its caller is not found.
func (s *sight) current(r *http.Request) (view.Object, error) {
	a := &s.asked
	o, err := s.stored(r)
	if err != nil {
		return view.Object{}, err
	}
	exists, err := s.lens.exists(key{a.resource, o.Namespace, o.Name}, o.Labels, &content{raw: o.JSON})
	if err == nil && !exists {
		err = apierrors.NewNotFound(a.resource, a.name)
	}
	return o, err
}

// newest returns the resourceVersion that a collection has reached. Callers who
// may not list it have no list to go on from.
func (s *sight) newest(r *http.Request) (uint64, error) {
	list := s.ask(r, s.asked.collection(), "limit=1", "list")
	raw, err := fetch(s.next, list)
	if apierrors.IsForbidden(err) {
		return 0, nil
	}
	var head struct {
		Metadata struct {
			ResourceVersion uint64 `json:"resourceVersion,string"`
		} `json:"metadata"`
	}
	if err == nil && json.Unmarshal(raw, &head) != nil {
		err = apierrors.NewInternalError(errAnswer)
	}
	return head.Metadata.ResourceVersion, err
}

// ask makes a read under the credential of r's caller.
func (s *sight) ask(r *http.Request, at, query, verb string) *http.Request {
	info := &request.RequestInfo{
		IsResourceRequest: true, Verb: verb, Path: at, APIPrefix: s.asked.info.APIPrefix, APIGroup: s.asked.resource.Group,
		APIVersion: s.asked.info.APIVersion, Resource: s.asked.resource.Resource, Namespace: s.asked.info.Namespace,
	}
	if verb == "get" {
		info.Name, info.Parts = s.asked.name, []string{s.asked.resource.Resource, s.asked.name}
	}
	out := r.Clone(request.WithRequestInfo(r.Context(), info))
	out.Method, out.Body, out.ContentLength, out.TransferEncoding = http.MethodGet, http.NoBody, 0, nil
	out.URL.Path, out.URL.RawPath, out.URL.RawQuery = at, "", query
	out.RequestURI = out.URL.RequestURI()
	out.Header = http.Header{"Accept": {"application/json"}}
	maps.Copy(out.Header, headersOf(r))
	return out
}

// headersOf returns those that say who sends r, and for which request.
func headersOf(r *http.Request) http.Header {
	kept := http.Header{}
	for name, values := range r.Header {
		if name == "Authorization" || name == "User-Agent" || name == "Audit-Id" || strings.HasPrefix(name, "Impersonate-") {
			kept[name] = values
		}
	}
	if token := tokenOfSocket(r); token != "" && kept.Get("Authorization") == "" {
		kept.Set("Authorization", "Bearer "+token)
	}
	return kept
}

// tokenOfSocket is how a web socket's caller says who he is.
func tokenOfSocket(r *http.Request) string {
	for _, line := range r.Header["Sec-Websocket-Protocol"] {
		for protocol := range strings.SplitSeq(line, ",") {
			encoded, ok := strings.CutPrefix(strings.TrimSpace(protocol), "base64url.bearer.authorization.k8s.io.")
			if token, err := base64.RawURLEncoding.DecodeString(encoded); ok && err == nil {
				return string(token)
			}
		}
	}
	return ""
}

// fetch returns the body of a good answer, or the API server's refusal.
func fetch(next pipeline.Handler, r *http.Request) ([]byte, error) {
	w := newRecorded()
	if err := next.ServeHTTP(w, r); err != nil {
		return nil, err
	}
	if w.Code >= 200 && w.Code < 300 && !w.TooLong {
		return w.Body.Bytes(), nil
	}
	if status := w.Status(); status != nil {
		return nil, &apierrors.StatusError{ErrStatus: *status}
	}
	return nil, apierrors.NewInternalError(errAnswer)
}

// objectOf reads what a view wants to know of an object in JSON. It has the
// name that it was asked for by, if it has none yet.
func objectOf(raw []byte, a *asked) (view.Object, error) {
	var head metav1.PartialObjectMetadata
	if err := json.Unmarshal(raw, &head); err != nil {
		return view.Object{}, apierrors.NewInternalError(errAnswer)
	}
	rv, _ := strconv.ParseUint(head.ResourceVersion, 10, 64)
	o := view.Object{
		Resource: a.version(), Namespace: head.Namespace, Name: head.Name, UID: string(head.UID),
		ResourceVersion: rv, Labels: labels.Set(head.Labels), JSON: raw,
	}
	o.Namespace = cmp.Or(o.Namespace, a.namespace)
	o.Name = cmp.Or(o.Name, a.name, head.GenerateName)
	return o, nil
}

// recorded is an answer that nobody has been sent yet.
type recorded struct{ body.Answer }

func newRecorded() *recorded { return &recorded{body.Answer{Limit: maxAnswer}} }

// send sends the answer.
func (w *recorded) send(to http.ResponseWriter) error {
	if w.TooLong {
		return apierrors.NewInternalError(errAnswer)
	}
	for name, values := range w.Header() {
		to.Header()[name] = append(to.Header()[name], values...)
	}
	to.WriteHeader(w.Code)
	_, err := to.Write(w.Body.Bytes())
	return err
}

// floors are the resourceVersions of collections since which a lens is in force.
type floors struct {
	mu    sync.Mutex // guards following
	known map[schema.GroupVersionResource]uint64
}

func newFloors() *floors { return &floors{known: map[schema.GroupVersionResource]uint64{}} }

// of returns a collection's floor, which is found out once. Whoever comes at the
// same time may find it out as well: a later state is as good.
func (f *floors) of(r schema.GroupVersionResource, newest func() (uint64, error)) (uint64, error) {
	f.mu.Lock()
	floor, known := f.known[r]
	f.mu.Unlock()
	if known {
		return floor, nil
	}
	floor, err := newest()
	if err != nil || floor == 0 {
		return floor, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if first, known := f.known[r]; known {
		return first, nil
	}
	f.known[r] = floor
	return floor, nil
}

// seeSent refuses an object that would not exist for who sends it.
func (s *sight) seeSent(object map[string]any) error {
	raw, err := json.Marshal(object)
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	o, err := objectOf(raw, &s.asked)
	if err != nil {
		return apierrors.NewBadRequest("the object in the request cannot be read")
	}
	exists, err := s.lens.exists(key{s.asked.resource, o.Namespace, o.Name}, o.Labels, &content{object: object})
	if err == nil && !exists {
		err = apierrors.NewForbidden(s.asked.resource, o.Name, errOutside)
	}
	return err
}
