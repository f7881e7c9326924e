package view

import (
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metainternalversionscheme "k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/portico-proxy/portico/core/body"
	"github.com/portico-proxy/portico/core/document"
	"github.com/portico-proxy/portico/core/view"
)

// errAgain says that the object has changed since it was looked at.
var errAgain = errors.New("the object has changed")

// A patch is a change: a list of operations, or an object that is merged.
type patch struct {
	operations []operation
	object     map[string]any
}

// An operation is one of a JSON patch.
type operation struct {
	Op    string          `json:"op"`
	Path  string          `json:"path"`
	From  string          `json:"from,omitempty"`
	Value json.RawMessage `json:"value,omitempty"`
}

func readPatch(r *http.Request, raw []byte) (p patch, err error) {
	switch types.PatchType(body.MediaType(r)) {
	case types.JSONPatchType:
		if json.Unmarshal(raw, &p.operations) != nil {
			return p, apierrors.NewBadRequest("the patch cannot be read")
		}
		for _, o := range p.operations {
			if !document.IsPointer(o.Path) || !document.IsPointer(o.From) {
				return p, apierrors.NewBadRequest("the patch has a path that does not begin with /")
			}
		}
		return p, nil
	case types.MergePatchType, types.StrategicMergePatchType:
		p.object, err = objectIn(withJSON(r, raw), raw)
		return p, err
	}
	p.object, err = objectIn(r, raw) // of server-side apply, or of what cannot be read
	return p, err
}

// touches reports whether a patch names what is hidden, or an operation reads
// something that has it.
func (p *patch) touches(all masks) bool {
	for _, o := range p.operations {
		for _, pointer := range []string{o.Path, o.From} {
			if pointer != "" && all.touch(partsOf(pointer)) {
				return true
			}
		}
		if o.Path == "" || len(all) > 0 && o.touchesEcho() {
			return true
		}
	}
	return all.names(p.object)
}

// touchesEcho reports whether an operation reads what has an echo of hidden fields, or
// names something of one: whether that is there tells of a field.
func (o *operation) touchesEcho() bool {
	path, from := partsOf(o.Path), partsOf(o.From)
	switch o.Op {
	case "copy", "move":
		return o.From == "" || echoes.touch(from) || echoes.hides(path)
	case "test":
		return echoes.touch(path)
	}
	return echoes.hides(path)
}

// names reports whether a merge says something of what is hidden.
func (s masks) names(value any) bool {
	if hidden, _ := s.hide(); hidden {
		return true
	}
	if len(s) == 0 {
		return false
	}
	switch v := value.(type) {
	case map[string]any:
		for name, member := range v {
			if s.directs(name) || s.of(name).names(member) {
				return true
			}
		}
	case []any:
		for _, element := range v {
			if s.of(anyElement).names(element) {
				return true
			}
		}
	}
	return false
}

// directs reports whether a directive of a strategic merge is about what is hidden.
// What it does to what has something hidden is seen when it is tried out.
func (s masks) directs(name string) bool {
	directive, about, ok := strings.Cut(name, "/")
	if !ok || !strings.HasPrefix(directive, "$") {
		return false
	}
	below := s.of(about)
	hidden, _ := below.hide()
	return hidden || directive == "$deleteFromPrimitiveList" && len(below) > 0
}

// pinAt is where an object says which of its states it is, and a change to which it is made.
var pinAt = []string{"metadata", "resourceVersion"}

var errUnpinned = apierrors.NewBadRequest("the patch is made to the state that was looked at, and to no other: leave metadata.resourceVersion alone, or set it to what you have read")

// asked is the state that a patch says it is for, if it says so. One that would take back
// what we say of that is refused.
func (p *patch) asked() (rv string, err error) {
	metadata, _ := p.object[pinAt[0]].(map[string]any)
	if drops(p.object, pinAt[0]) || drops(metadata, pinAt[1]) {
		return "", errUnpinned
	}
	rv, _ = metadata[pinAt[1]].(string)
	for i := range p.operations {
		said, is := p.operations[i].pins()
		switch {
		case !is:
		case said == "", rv != "" && said != rv:
			return "", errUnpinned
		default:
			rv = said
		}
	}
	return rv, nil
}

// drops reports whether a directive of a strategic merge takes a member out of an object,
// or all that it has.
func drops(object map[string]any, member string) bool {
	for name := range object {
		if directive, about, _ := strings.Cut(name, "/"); strings.HasPrefix(directive, "$") && about == member {
			return true
		}
	}
	return object["$patch"] == "delete"
}

// pins reports whether an operation writes where the state is told, and which one it
// tells, if it tells any.
func (o *operation) pins() (rv string, is bool) {
	switch {
	case o.Op == "test", !hasPin(o.Path) && (o.Op != "move" || !hasPin(o.From)):
		return "", false
	case (o.Op == "add" || o.Op == "replace") && slices.Equal(partsOf(o.Path), pinAt):
		_ = json.Unmarshal(o.Value, &rv) // what is no string tells none
	}
	return rv, true
}

// hasPin reports whether a pointer leads to where the state is told, or to what that is in.
func hasPin(pointer string) bool {
	parts := partsOf(pointer)
	return pointer == "" || len(parts) <= len(pinAt) && slices.Equal(parts, pinAt[:len(parts)])
}

// pinned is the patch as a change to one state only.
func (p *patch) pinned(rv string) ([]byte, error) {
	if p.object == nil {
		quoted, _ := json.Marshal(rv) // a string always can be
		pin := operation{Op: "add", Path: "/" + strings.Join(pinAt, "/"), Value: quoted}
		return json.Marshal(append([]operation{pin}, p.operations...))
	}
	object := maps.Clone(p.object) // it may be tried again
	if metadata, ok := object["metadata"].(map[string]any); ok {
		object["metadata"] = maps.Clone(metadata)
	}
	pinTo(object, rv)
	return json.Marshal(object)
}

// patch makes a PATCH of the current object, once it has been tried out.
func (s *sight) patch(r *http.Request, p patch, current view.Object) (write, error) {
	all := s.lens.masksOf(s.asked.resource)
	if p.touches(all) {
		return write{}, s.hidden(errHidden{"the patch"})
	}
	asked, err := p.asked()
	if err != nil {
		return write{}, err
	}
	rv := versionOf(current)
	ours, err := s.isPinned(asked, rv)
	if err != nil {
		return write{}, err
	}
	text, err := p.pinned(rv)
	if err != nil {
		return write{}, apierrors.NewInternalError(err)
	}
	out := body.With(r, text)
	_, tells, err := all.applyToObject(current.JSON, current.Resource.GroupVersion())
	if err != nil {
		return write{}, err
	}
	if !tells && !s.lens.weighs(s.asked.resource) {
		return write{request: out, ours: ours}, nil
	}
	return write{request: out, ours: ours, tells: tells}, s.tryOut(body.With(r, text), all, current, tells)
}

// tryOut has the API server do all of a patch but keep the result, and refuses
// what would change what is hidden, or what would not exist any more.
func (s *sight) tryOut(r *http.Request, all masks, current view.Object, tells bool) error {
	u := *r.URL
	query := u.Query()
	query.Set("dryRun", metav1.DryRunAll)
	u.RawQuery = query.Encode()
	r.URL = &u
	r.Header.Set("Accept", mediaJSON)
	r.Header.Del("Accept-Encoding")
	w := newRecorded()
	if err := s.next.ServeHTTP(w, r); err != nil {
		return err
	}
	switch {
	case w.lost():
		return errAgain
	case w.Code >= http.StatusBadRequest && tells:
		return w.discreet()
	case w.Code >= http.StatusBadRequest && w.Status() != nil:
		return &apierrors.StatusError{ErrStatus: *w.Status()}
	case w.Code != http.StatusOK || w.TooLong:
		return apierrors.NewInternalError(errAnswer)
	}
	result, err := decode(w.Body.Bytes())
	if err != nil {
		return apierrors.NewInternalError(errAnswer)
	}
	if err := s.seeSent(result); err != nil {
		return err
	}
	if !tells {
		return nil
	}
	return s.keeps(all, current, w.Body.Bytes())
}

// keeps refuses a result that is another than its caller would have sent it, had
// he sent it whole.
func (s *sight) keeps(all masks, before view.Object, after []byte) error {
	seen, _, err := all.applyToObject(after, before.Resource.GroupVersion())
	if err != nil {
		return err
	}
	sent, err := decode(seen)
	if err != nil {
		return err
	}
	merged, err := all.restore(before, sent)
	if err != nil {
		return s.hidden(err)
	}
	want, err := decode(after)
	if err != nil {
		return err
	}
	dropManagers(want)
	dropManagers(merged)
	if !reflect.DeepEqual(merged, want) {
		return s.hidden(errHidden{"the patch"})
	}
	return nil
}

// deleteOptions reads how to delete, from the body or else from the query, as the
// API server does.
func deleteOptions(r *http.Request, raw []byte) (*metav1.DeleteOptions, error) {
	options := &metav1.DeleteOptions{}
	if len(raw) == 0 {
		if err := metainternalversionscheme.ParameterCodec.DecodeParameters(r.URL.Query(), metav1.SchemeGroupVersion, options); err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}
	} else {
		sent, err := objectIn(r, raw)
		if err != nil {
			return nil, err
		}
		text, err := json.Marshal(sent)
		if err == nil {
			err = json.Unmarshal(text, options)
		}
		if err != nil {
			return nil, apierrors.NewBadRequest("the options of the deletion cannot be read")
		}
	}
	options.TypeMeta = metav1.TypeMeta{Kind: "DeleteOptions", APIVersion: "v1"}
	return options, nil
}
