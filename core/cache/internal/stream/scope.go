package stream

import (
	"net/url"

	"k8s.io/apimachinery/pkg/fields"
)

// A Scope is a part of a collection that the API server lists and watches by
// itself: one namespace, or the objects that have one value in one field. The
// zero Scope is the whole.
type Scope struct {
	Namespace string
	// Field is selected by Value, unless it is empty.
	Field, Value string
}

// IsWhole reports the zero Scope.
func (s Scope) IsWhole() bool { return s == Scope{} }

// IsApart reports whether no object can be in both.
func (s Scope) IsApart(other Scope) bool {
	return s != other && s.Field == other.Field && !s.IsWhole() && !other.IsWhole()
}

// String says what the part consists of, nothing for the whole.
func (s Scope) String() string {
	if s.Namespace != "" {
		return "metadata.namespace=" + s.Namespace
	}
	return s.Selector("")
}

// Selector is the field selector of the part, or of the one object of it that
// bears name.
func (s Scope) Selector(name string) string {
	var terms []fields.Selector
	if s.Field != "" {
		terms = append(terms, fields.OneTermEqualSelector(s.Field, s.Value))
	}
	if name != "" {
		terms = append(terms, fields.OneTermEqualSelector("metadata.name", name))
	}
	return fields.AndSelectors(terms...).String()
}

// smallest is the smallest LIST of the part: of a namespace that does not exist,
// or of an object that does not, or of the only one.
func (s Scope) smallest(namespaced bool) (namespace string, q url.Values) {
	q = url.Values{"limit": {"1"}}
	name := ""
	switch {
	case s.Namespace != "", !namespaced && s.Field != "metadata.name":
		namespace, name = s.Namespace, nobody
	case namespaced:
		namespace = nobody
	}
	if selector := s.Selector(name); selector != "" {
		q.Set("fieldSelector", selector)
	}
	return namespace, q
}
