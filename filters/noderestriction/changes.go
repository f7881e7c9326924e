package noderestriction

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"reflect"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	kjson "sigs.k8s.io/json"

	"github.com/portico-proxy/portico/core/body"
	"github.com/portico-proxy/portico/core/document"
)

// maxTouched bounds how much a patch touches, and maxPointer in bytes how far from
// the root that is.
const (
	maxTouched = 10_000
	maxPointer = 1024
)

var errNoPatch = errors.New("the patch cannot be read")

// tokensOf are the names that a pointer is made of.
func tokensOf(pointer string) []string {
	tokens := strings.Split(strings.TrimPrefix(pointer, "/"), "/")
	for i := range tokens {
		tokens[i] = document.Name(tokens[i])
	}
	return tokens
}

// patch lets a patch pass that changes nothing but what may says. It is judged by
// what it says, for it touches nothing else, whatever the object is by then.
func (e *exchange) patch(r *rule, may func(tokens []string) bool) error {
	e.looked = true
	if err := e.filter.library.options.Rooms.Enter(e.room, e.r, e.caller); err != nil {
		return err
	}
	unlimited := e.filter.library.options.Rooms.Limit(e.w)
	defer unlimited()
	var raw []byte
	var err error
	if e.r, raw, err = body.Read(e.r); err != nil {
		return err
	}
	touched, err := touchedBy(body.MediaType(e.r), raw)
	if err != nil || e.r.Header.Get("Content-Encoding") != "" {
		return e.forbidden(r, "of patches, it takes JSON, merge and strategic merge patches that say what they change")
	}
	for _, pointer := range touched {
		if !isIdentity(pointer) && !may(tokensOf(pointer)) {
			return e.forbidden(r, pointer+" is not the node's to change")
		}
	}
	return nil
}

// touchedBy are pointers to all that a patch changes, or copies. Server-side apply
// is none that says so: it removes what it does not name.
func touchedBy(media string, raw []byte) ([]string, error) {
	if !body.Unambiguous(raw) {
		return nil, errNoPatch
	}
	switch media {
	case "application/merge-patch+json", "application/strategic-merge-patch+json":
		raw = bytes.TrimSpace(raw)
		if len(raw) == 0 || raw[0] != '{' {
			return nil, errNoPatch
		}
		var said any
		if json.Unmarshal(raw, &said) != nil {
			return nil, errNoPatch
		}
		return leaves(said, "", nil)
	case "application/json-patch+json":
		return operands(raw)
	}
	return nil, errNoPatch
}

// leaves adds pointers to all that is said below at. An object that says nothing
// changes nothing. Whoever asks is yet to be authorized, so it takes no more than a
// change of one object needs.
func leaves(said any, at string, all []string) ([]string, error) {
	if len(at) > maxPointer || len(all) >= maxTouched {
		return nil, errNoPatch
	}
	object, ok := said.(map[string]any)
	if !ok {
		return append(all, at), nil
	}
	for _, name := range slices.Sorted(maps.Keys(object)) {
		var err error
		if all, err = leaves(object[name], at+"/"+document.Token(name), all); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// operands are what the operations of a JSON patch are about. Their members are
// taken by exact names, as the API server does: encoding/json would take "Path" for
// "path" in a struct.
func operands(raw []byte) ([]string, error) {
	var operations []map[string]json.RawMessage
	if err := json.Unmarshal(raw, &operations); err != nil || len(operations) > maxTouched {
		return nil, errNoPatch
	}
	var all []string
	for _, o := range operations {
		path := memberOf(o, "path")
		if !strings.HasPrefix(path, "/") || !isOperation(o) {
			return nil, errNoPatch
		}
		if isIdentity(path) && memberOf(o, "op") != "test" {
			return nil, errNoPatch
		}
		all = append(all, path)
		if _, has := o["from"]; has {
			from := memberOf(o, "from")
			if !document.IsPointer(from) {
				return nil, errNoPatch
			}
			all = append(all, from)
		}
	}
	return all, nil
}

// memberOf is the text that an operation has; empty if it has none.
func memberOf(o map[string]json.RawMessage, name string) string {
	var text string
	if json.Unmarshal(o[name], &text) != nil {
		return ""
	}
	return text
}

// isOperation reports that there are no members but those of operations.
func isOperation(o map[string]json.RawMessage) bool {
	for name := range o {
		if !slices.Contains([]string{"op", "path", "from", "value"}, name) {
			return false
		}
	}
	return true
}

// pinPatch makes a patch one of that pod only.
func (e *exchange) pinPatch(p *pod) error {
	var raw []byte
	var err error
	if e.r, raw, err = body.Read(e.r); err != nil {
		return err
	}
	if body.MediaType(e.r) == "application/json-patch+json" {
		return nil // the UID of what is patched is tested by nobody; see the README
	}
	switch uid := document.Text(raw, "/metadata/uid"); {
	case uid == p.uid:
		return nil
	case uid != "":
		return apierrors.NewConflict(schema.GroupResource{Resource: "pods"}, e.info.Name, errors.New("there is another pod of that name"))
	}
	pinned, err := document.Set(raw, "/metadata/uid", []byte(`"`+p.uid+`"`))
	if err != nil {
		return apierrors.NewBadRequest(errNoPatch.Error())
	}
	e.r = body.With(e.r, pinned)
	return nil
}

// update lets a whole object pass that differs from what there is in nothing but
// what may says. It must be made from that: the API server refuses it otherwise.
// What is at unread the API server does not read. Who sees it masked could find out
// the rest by trying.
func (e *exchange) update(r *rule, may func(pointer string) bool, unread string) error {
	if m := r.mask(schema.GroupResource{Group: e.info.APIGroup, Resource: e.info.Resource}, e.kind); !m.isNone() {
		return e.forbidden(r, "fields of it are masked")
	}
	object, err := e.object()
	if err != nil {
		return err
	}
	is, err := e.current()
	if err != nil {
		return err
	}
	version := document.Text(object, "/metadata/resourceVersion")
	if version == "" || version != document.Text(is, "/metadata/resourceVersion") {
		return apierrors.NewConflict(schema.GroupResource{Group: e.info.APIGroup, Resource: e.info.Resource}, e.info.Name,
			errors.New("the object has been modified; please apply your changes to the latest version and try again"))
	}
	var was, will any
	if json.Unmarshal(is, &was) != nil || json.Unmarshal(object, &will) != nil {
		return apierrors.NewBadRequest("the object in the request cannot be read")
	}
	for _, pointer := range differences(was, will, "") {
		if !isBelow(pointer, unread) && !isBelow(pointer, "/metadata/managedFields") && !isIdentity(pointer) && !may(pointer) {
			return e.forbidden(r, "it differs from what there is in more than is the node's to change")
		}
	}
	return nil
}

// differences are pointers to what differs. Lists differ as a whole, and empty
// values are as good as none.
func differences(was, will any, at string) []string {
	a, isObject := was.(map[string]any)
	b, becomesObject := will.(map[string]any)
	if !isObject && was != nil || !becomesObject && will != nil || a == nil && b == nil || len(at) > maxPointer {
		if isEmpty(was) && isEmpty(will) || reflect.DeepEqual(was, will) {
			return nil
		}
		return []string{at}
	}
	var all []string
	names := map[string]bool{}
	for _, o := range []map[string]any{a, b} {
		for name := range o {
			names[name] = true
		}
	}
	for name := range names {
		all = append(all, differences(a[name], b[name], at+"/"+document.Token(name))...)
	}
	slices.Sort(all)
	return all
}

func isEmpty(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case string:
		return v == ""
	case bool:
		return !v
	case float64:
		return v == 0
	case []any:
		return len(v) == 0
	case map[string]any:
		return len(v) == 0
	}
	return false
}

// podOf reads an object as the API server does: "Volumes" are no "volumes".
func podOf(object []byte) (*corev1.Pod, error) {
	p := &corev1.Pod{}
	return p, kjson.UnmarshalCaseSensitivePreserveInts(object, p)
}

func asJSON(o any) ([]byte, error) {
	raw, err := json.Marshal(o)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	return raw, nil
}
