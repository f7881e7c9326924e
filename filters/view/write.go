package view

import (
	"encoding/json"
	"errors"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/portico-proxy/portico/core/body"
	"github.com/portico-proxy/portico/core/view"
)

// tries is how often a write is made before its caller is told that somebody
// else was faster, who did not ask for more than to write.
const tries = 5

var errModified = errors.New("the object has been modified; please apply your changes to the latest version and try again")

// create makes an object, if it will exist for its caller.
func (s *sight) create(w http.ResponseWriter, r *http.Request) error {
	if s.asked.isWhole() && s.lens.judges(s.asked.resource) {
		raw, err := s.readBody(w, r)
		if err != nil {
			return err
		}
		object, err := objectIn(r, raw)
		if err != nil {
			return err
		}
		if err := s.seeSent(object); err != nil {
			return err
		}
		r = body.With(r, raw)
	}
	return s.shown(w, r)
}

// A write is a request as it goes to the API server, which makes it only if the
// object is still the one that was looked at.
type write struct {
	request *http.Request
	ours    bool // the caller did not ask for that
	tells   bool // the object has what is hidden, so errors may tell
}

// write looks at the current object, has pin make the request that changes
// no other, and sends it.
func (s *sight) write(w http.ResponseWriter, r *http.Request, pin func(current view.Object) (write, error)) error {
	for try := 1; ; try++ {
		current, err := s.current(r)
		if err != nil {
			return err
		}
		pinned, err := pin(current)
		if errors.Is(err, errAgain) && try < tries {
			continue
		}
		if err != nil {
			return err
		}
		answer := newRecorded()
		err = s.shown(answer, pinned.request)
		if try < tries && pinned.ours && (apierrors.IsConflict(err) || answer.lost()) {
			continue
		}
		if err != nil {
			return err
		}
		if pinned.tells && answer.Code >= http.StatusBadRequest {
			return answer.discreet()
		}
		return answer.send(w)
	}
}

// lost reports whether somebody else was faster.
func (w *recorded) lost() bool {
	status := w.Status()
	return status != nil && status.Reason == metav1.StatusReasonConflict && (status.Details == nil || len(status.Details.Causes) == 0)
}

// discreet is a refusal without what it may quote of an object.
func (w *recorded) discreet() error {
	status := w.Status()
	if status == nil {
		return apierrors.NewInternalError(errAnswer)
	}
	if w.lost() || status.Reason == metav1.StatusReasonNotFound {
		return &apierrors.StatusError{ErrStatus: *status}
	}
	status.Message = "the API server refuses the change (" + string(status.Reason) + "); its reason may tell what does not exist for you"
	if status.Details != nil {
		status.Details.Causes = nil
	}
	return &apierrors.StatusError{ErrStatus: *status}
}

// delete deletes an object that was looked at, and no other.
func (s *sight) delete(w http.ResponseWriter, r *http.Request) error {
	raw, err := s.readBody(w, r)
	if err != nil {
		return err
	}
	return s.write(w, r, func(current view.Object) (write, error) {
		options, err := deleteOptions(r, raw)
		if err != nil {
			return write{}, err
		}
		var head metav1.PartialObjectMetadata
		if err := json.Unmarshal(current.JSON, &head); err != nil {
			return write{}, apierrors.NewInternalError(errAnswer)
		}
		if options.Preconditions == nil {
			options.Preconditions = &metav1.Preconditions{}
		}
		p := options.Preconditions
		ours := p.ResourceVersion == nil
		if p.UID == nil {
			p.UID = &head.UID
		}
		if ours {
			p.ResourceVersion = &head.ResourceVersion
		}
		text, err := json.Marshal(options)
		if err != nil {
			return write{}, apierrors.NewInternalError(err)
		}
		out := withJSON(r, text)
		u := *r.URL
		u.RawQuery = ""
		out.URL = &u
		return write{request: out, ours: ours}, nil
	})
}

// change serves PUT and PATCH of an object that was looked at, and of no other.
func (s *sight) change(w http.ResponseWriter, r *http.Request) error {
	raw, err := s.readBody(w, r)
	if err != nil {
		return err
	}
	if r.Method == http.MethodPut {
		return s.write(w, r, func(current view.Object) (write, error) { return s.replace(r, raw, current) })
	}
	p, err := readPatch(r, raw)
	if err != nil {
		return err
	}
	if isApply(r) && !s.lens.weighs(s.asked.resource) {
		return s.apply(w, r, raw, p)
	}
	return s.edit(w, r, p)
}

// edit makes a patch to an object that is there.
func (s *sight) edit(w http.ResponseWriter, r *http.Request, p patch) error {
	return s.write(w, r, func(current view.Object) (write, error) { return s.patch(r, p, current) })
}

// apply serves server-side apply of an object that may not be there yet: if it
// is not, it is made.
func (s *sight) apply(w http.ResponseWriter, r *http.Request, raw []byte, p patch) error {
	if _, err := s.stored(r); !apierrors.IsNotFound(err) {
		return s.edit(w, r, p)
	}
	if p.touches(s.lens.masksOf(s.asked.resource)) {
		return s.hidden(errHidden{"the patch"}) // somebody may have made it by now
	}
	if s.lens.names.MayHide(s.asked.resource) {
		return s.makeBy(w, r, p)
	}
	return s.shown(w, body.With(r, raw))
}

// noState is a resourceVersion that no object has: etcd begins with it, before anything is
// written. Who applies what is not there may name any.
const noState = "1"

// makeBy makes by server-side apply what was not there. Has somebody made it by now, it may
// not exist for the caller.
func (s *sight) makeBy(w http.ResponseWriter, r *http.Request, p patch) error {
	if err := s.seeSent(p.object); err != nil {
		return err
	}
	text, err := p.pinned(noState)
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	answer := newRecorded()
	err = s.shown(answer, body.With(r, text))
	switch {
	case apierrors.IsConflict(err), answer.lost():
		return s.edit(w, r, p)
	case err != nil:
		return err
	}
	return answer.send(w)
}

// replace makes a PUT of what its caller sends, with what is hidden put back.
func (s *sight) replace(r *http.Request, raw []byte, current view.Object) (write, error) {
	sent, err := objectIn(r, raw)
	if err != nil {
		return write{}, err
	}
	rv := versionOf(current)
	asked, _ := at(sent, pinAt).(string)
	ours, err := s.isPinned(asked, rv)
	if err != nil {
		return write{}, err
	}
	all := s.lens.masksOf(s.asked.resource)
	_, tells, err := all.applyToObject(current.JSON, current.Resource.GroupVersion())
	if err != nil {
		return write{}, err
	}
	merged, err := all.restore(current, sent)
	if err != nil {
		return write{}, s.hidden(err)
	}
	pinTo(merged, rv)
	text, err := json.Marshal(merged)
	if err != nil {
		return write{}, apierrors.NewInternalError(err)
	}
	if err := s.seeSent(merged); err != nil {
		return write{}, err
	}
	if !ours && !tells {
		return write{request: body.With(r, raw)}, nil // as it came
	}
	return write{request: withJSON(r, text), ours: ours, tells: tells}, nil
}

// isPinned reports whether the caller leaves it to us to say which state he
// means. If he means another than the current one, he is told that it is gone.
func (s *sight) isPinned(asked, rv string) (ours bool, err error) {
	if asked != "" && asked != rv {
		return false, apierrors.NewConflict(s.asked.resource, s.asked.name, errModified)
	}
	return asked == "", nil
}

// hidden is the refusal of a change to what the caller does not see.
func (s *sight) hidden(err error) error {
	if _, hidden := errors.AsType[errHidden](err); hidden {
		return apierrors.NewForbidden(s.asked.resource, s.asked.name, err)
	}
	return apierrors.NewInternalError(errAnswer)
}

func versionOf(o view.Object) string {
	var head metav1.PartialObjectMetadata
	_ = json.Unmarshal(o.JSON, &head) // it has been read before
	return head.ResourceVersion
}

// pinTo has a change made to one state only.
func pinTo(object map[string]any, rv string) {
	metadata, ok := object["metadata"].(map[string]any)
	if !ok {
		metadata = map[string]any{}
		object["metadata"] = metadata
	}
	metadata["resourceVersion"] = rv
}
