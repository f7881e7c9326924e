package names

import (
	"encoding/json"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/portico-proxy/portico/core/document"
)

// Operations returns a JSON patch of an object of a resource as it is sent to the
// API server. What would carry a value from or to a place, where it would be read by
// other names, or cannot be told to be one, is refused.
func (m *Mapping) Operations(r schema.GroupResource, patch []byte) ([]byte, error) {
	var operations []map[string]json.RawMessage
	if json.Unmarshal(patch, &operations) != nil {
		return nil, apierrors.NewBadRequest("the patch cannot be read")
	}
	e := edit{m, false, placesOf(r)}
	for _, o := range operations {
		if err := e.operation(o); err != nil {
			return nil, err
		}
	}
	return json.Marshal(operations)
}

func (e edit) operation(o map[string]json.RawMessage) error {
	if !document.IsPointer(pointerIn(o["path"])) || !document.IsPointer(pointerIn(o["from"])) {
		return apierrors.NewBadRequest("the patch has a path that does not begin with /")
	}
	at, err := e.root.reach(pointerIn(o["path"]))
	if err != nil {
		return err
	}
	if o["from"] != nil {
		from, err := e.root.reach(pointerIn(o["from"]))
		if err != nil {
			return err
		}
		// Only what lay at the same place before has the cluster's names already.
		if from != at {
			return apierrors.NewBadRequest("the patch copies or moves a value from or to where a namespace is named: write the value itself")
		}
	}
	if at == nil || o["value"] == nil {
		return nil
	}
	value, err := e.value(at, o["value"])
	o["value"] = value
	return err
}

func pointerIn(raw json.RawMessage) string {
	var pointer string
	_ = json.Unmarshal(raw, &pointer) // what is none the API server refuses
	return pointer
}

// reach returns what a pointer leads to, nil if there is no place in it. What lies
// within a place that can only be read whole is refused.
func (n *node) reach(pointer string) (*node, error) {
	for step := range strings.SplitSeq(strings.TrimPrefix(pointer, "/"), "/") {
		switch {
		case pointer == "":
			return n, nil
		case n.sort != 0:
			return nil, apierrors.NewBadRequest("the patch changes a part of a value that names a namespace: write all of " + pointer)
		}
		if n = n.at(document.Name(step)); n == nil {
			return nil, nil
		}
	}
	return n, nil
}
