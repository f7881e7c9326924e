package names

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/portico-proxy/portico/core/document"
)

// ErrForeign says that an object names a namespace that the tenant has no name
// for: it cannot be shown to him.
var ErrForeign = errors.New("an object names a namespace that has no name for the caller")

// An edit exchanges names in one direction.
type edit struct {
	*Mapping
	out  bool  // toward the tenant
	root *node // the places of the object
}

// Object returns an object of a resource as it is sent to the tenant.
func (m *Mapping) Object(r schema.GroupResource, object []byte) ([]byte, error) {
	e := edit{m, true, placesOf(r)}
	return e.value(e.root, object)
}

// Shows reports whether an object of a resource can be shown to the tenant: it names
// no namespace that he has no name for, and holds no token, which names its own.
func (m *Mapping) Shows(r schema.GroupResource, object []byte) (bool, error) {
	if r == secretResource && document.Text(object, "/type") == string(corev1.SecretTypeServiceAccountToken) {
		return false, nil
	}
	_, err := m.Object(r, object)
	if errors.Is(err, ErrForeign) {
		return false, nil
	}
	return err == nil, err
}

// MayHide reports whether [Mapping.Shows] may say no of objects of a resource, whatever
// namespace they are in.
func (m *Mapping) MayHide(r schema.GroupResource) bool {
	if m == nil || r == namespaceResource { // which name only themselves
		return false
	}
	_, names := ofResource[r]
	return names || r == secretResource
}

var secretResource = schema.GroupResource{Resource: "secrets"}

// Written returns an object of a resource, or one that is merged into it, as it is
// sent to the API server.
func (m *Mapping) Written(r schema.GroupResource, object []byte) ([]byte, error) {
	e := edit{m, false, placesOf(r)}
	return e.value(e.root, object)
}

// value exchanges the names in a value, of which nil is left if it is not shown.
func (e edit) value(at *node, value []byte) ([]byte, error) {
	if at.sort != 0 {
		return e.place(at.sort, value)
	}
	return document.Edit(value, func(name, below []byte) ([]byte, error) {
		if next := at.at(string(name)); next != nil {
			return e.value(next, below)
		}
		return below, nil
	})
}

func (e edit) place(s sort, value []byte) ([]byte, error) {
	switch s {
	case name:
		return e.text(value, e.name)
	case generated:
		return e.text(value, e.generated)
	case account:
		return e.text(value, e.account)
	case text:
		return e.text(value, e.told)
	case applied:
		return e.applied(value)
	case managers:
		if e.out && e.mentions(string(value)) {
			return nil, nil
		}
		return value, nil
	case reference:
		return e.reference(value)
	case attributes:
		return e.attributes(value)
	case expression:
		return e.expression(value)
	case texts:
		return e.each(value, e.told)
	}
	return nil, fmt.Errorf("no place is of sort %d", s)
}

// text exchanges a string. What is none is left to those who read it.
func (e edit) text(value []byte, exchange func(string) (string, error)) ([]byte, error) {
	if !isString(value) {
		return value, nil
	}
	was := string(document.Unquote(value))
	is, err := exchange(was)
	if err != nil || is == was {
		return value, err
	}
	return json.Marshal(is)
}

func isString(value []byte) bool { return len(value) > 1 && value[0] == '"' }

// each exchanges the strings of an array, or one that is not in any.
func (e edit) each(value []byte, exchange func(string) (string, error)) ([]byte, error) {
	if isString(value) {
		return e.text(value, exchange)
	}
	return document.Edit(value, func(_, element []byte) ([]byte, error) { return e.text(element, exchange) })
}

func (e edit) name(was string) (string, error) {
	if !e.out {
		return e.Cluster(was), nil
	}
	own, ok := e.Virtual(was)
	if !ok {
		return "", ErrForeign
	}
	return own, nil
}

func (e edit) generated(was string) (string, error) {
	switch {
	case e.out:
		return strings.TrimPrefix(was, e.prefix), nil
	case was == "": // which is no name to begin with
		return "", nil
	}
	return e.prefix + was, nil
}

const (
	accountPrefix = "system:serviceaccount:"
	groupPrefix   = "system:serviceaccounts:"
)

// account exchanges the namespace in the name of a ServiceAccount's user, or of the
// group of all of a namespace.
func (e edit) account(was string) (string, error) {
	if namespace, ok := strings.CutPrefix(was, groupPrefix); ok {
		namespace, err := e.name(namespace)
		return groupPrefix + namespace, err
	}
	rest, ok := strings.CutPrefix(was, accountPrefix)
	namespace, name, named := strings.Cut(rest, ":")
	if !ok || !named {
		return was, nil
	}
	namespace, err := e.name(namespace)
	return accountPrefix + namespace + ":" + name, err
}

func (e edit) told(was string) (string, error) {
	if !e.out {
		return was, nil
	}
	return e.Text(was), nil
}

// reference exchanges the names in an object reference.
func (e edit) reference(value []byte) ([]byte, error) {
	toNamespace := document.Text(value, "/kind") == "Namespace"
	return e.members(value, func(member string) bool { return member == "namespace" || member == "name" && toNamespace })
}

func (e edit) attributes(value []byte) ([]byte, error) {
	aboutNamespaces := document.Text(value, "/resource") == "namespaces" && document.Text(value, "/group") == ""
	return e.members(value, func(member string) bool { return member == "namespace" || member == "name" && aboutNamespaces })
}

// expression exchanges the values of a requirement on namespaces' names.
func (e edit) expression(value []byte) ([]byte, error) {
	if document.Text(value, "/key") != nameLabelKey {
		return value, nil
	}
	return document.Edit(value, func(member, below []byte) ([]byte, error) {
		if string(member) == "values" {
			return e.each(below, e.name)
		}
		return below, nil
	})
}

const nameLabelKey = "kubernetes.io/metadata.name"

// members exchanges those members of an object that are names.
func (e edit) members(value []byte, isName func(member string) bool) ([]byte, error) {
	return document.Edit(value, func(member, below []byte) ([]byte, error) {
		if isName(string(member)) {
			return e.text(below, e.name)
		}
		return below, nil
	})
}

// applied exchanges the names in an object that is written in a string. One that
// cannot be read is not shown if it could name a namespace.
func (e edit) applied(value []byte) ([]byte, error) {
	if !isString(value) {
		return value, nil
	}
	was := document.Unquote(value)
	if !json.Valid(was) {
		if e.out && e.mentions(string(was)) {
			return nil, nil
		}
		return value, nil
	}
	is, err := e.value(e.root, was)
	if errors.Is(err, ErrForeign) && e.out {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return json.Marshal(string(is))
}
